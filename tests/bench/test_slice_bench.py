"""The comparison on slices: the sampled slices, the errors of poses, and the chain from a phantom to tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from posepipe import phantom
from posepipe.bench import slice_methods, slices
from posepipe.bench.classical import Case
from posepipe.bench.rows import PartFile, read_rows
from posepipe.bench.slice_baselines import geometric_start
from posepipe.bench.slice_methods import OWN, Family, Found, SliceBenchmarkRunner, families, fused_slab, missing_networks, registered_slab
from posepipe.bench.slice_register import Brain, Cutter
from posepipe.bench.slice_tables import SliceRow
from posepipe.bench.slices import SAMPLINGS, THICKNESS, SliceTrial, measure, read_parts, sample_trial, slice_cases, slice_errors, trials
from posepipe.cli import bench_command
from posepipe.errors import UsageError
from posepipe.geometry import Rigid, so3
from posepipe.matching.target import Target
from posepipe.models.slices import SliceCoordinateNet, slice_offset
from posepipe.models.weights import save_network
from posepipe.phantom.demo_data import write_demo
from posepipe.slices.frames import twin_degrees, twin_pose
from posepipe.slices.network import SlicePose
from posepipe.slices.points import SliceTarget

TILT = Rigid.from_rotvec([0.2, -0.3, 0.1], [9.0, -12.0, 5.0])
"""Where the template lies, against the upright one: 21° and 16 mm off."""
OWN_POSE = Rigid.from_rotvec([1.1, -0.6, 1.3], [12.0, -25.0, 8.0])
"""Pose of the head against the template."""


@pytest.fixture(scope="module")
def brain(one_thread_no_cache: None) -> Brain:
    """A template that lies askew, and itself as a head somewhere else."""
    labels = phantom.brain_labels(29.0, 2.0)
    image, mask = (v.moved(TILT) for v in (phantom.render(labels, 29.0), phantom.brain_mask(labels)))
    target = Target(image, mask, "Phantom+29", to_canonical=TILT.rotation.T)
    return Brain("head", "phantoms", image.moved(OWN_POSE), mask.moved(OWN_POSE), target, OWN_POSE)


@pytest.fixture(scope="module")
def target(brain: Brain) -> SliceTarget:
    return SliceTarget(brain.target)


@pytest.fixture(scope="module")
def cutter(brain: Brain) -> Cutter:
    return Cutter(brain)


def sampled(brain: Brain, cutter: Cutter, target: SliceTarget, sampling: str, n: int) -> list[SliceTrial]:
    return [sample_trial(brain, cutter, target.to_canonical, SAMPLINGS[sampling], trial) for trial in range(n)]


def test_the_papers_sampling_is_half_of_all_orientations_and_whole_numbers(brain, cutter, target):
    paper, every = (sampled(brain, cutter, target, name, 24) for name in ("paper", "all"))
    assert all(p.rotation[2, 2] >= 0 and p.number == round(p.number) for p in paper)
    assert 6 <= sum(p.rotation[2, 2] < 0 for p in every) <= 18
    assert not any(p.number == round(p.number) for p in every)
    for p in paper + every:
        assert 0 <= p.number <= 29 and THICKNESS[0] <= p.middle.grid.thickness <= THICKNESS[1]
        assert p.pieces == (p.middle,) and np.linalg.det(p.rotation) == pytest.approx(1)


def test_the_truth_is_the_rotation_of_the_slice_and_its_number(brain, cutter, target):
    for p in sampled(brain, cutter, target, "paper", 6):
        np.testing.assert_allclose(p.truth.rotation @ target.to_canonical.T, p.rotation, atol=1e-9)
        np.testing.assert_allclose(p.middle.grid.to_world.matrix, np.eye(4), atol=1e-9)  # the header says nothing of the brain
        assert p.angle == pytest.approx(np.degrees(np.linalg.norm(so3.log(p.rotation))))
        # the canonical brain's voxels along the slice's normal
        voxels = np.argwhere(brain.target.mask.data > 0) @ brain.target.mask.affine[:3, :3].T + brain.target.mask.affine[:3, 3]
        heights = (voxels - target.center) @ (p.rotation @ target.to_canonical)[2]
        offset = float(slice_offset(p.number, heights.min(), heights.max()))
        assert p.truth.apply(target.center)[2] == pytest.approx(-offset, abs=2)


def test_the_slice_shows_the_template_where_the_truth_says(brain, cutter, target):
    """Also away from the middle: the template's mask at the pixels' places is the slice's, and is not at the twin's or the inverse's."""
    tilted = [p for p in sampled(brain, cutter, target, "all", 8) if abs(p.number - 14.5) > 6]
    assert len(tilted) >= 3
    to_voxel = np.linalg.inv(brain.target.mask.affine)

    def dice(p: SliceTrial, pose: Rigid) -> float:
        index = np.round((~pose).apply(p.middle.grid.points) @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
        inside = np.all((index >= 0) & (index < brain.target.mask.data.shape), -1)
        seen = np.zeros(p.middle.mask.shape, bool)
        seen[inside] = brain.target.mask.data[tuple(index[inside].T)] > 0
        return 2 * (seen & p.middle.mask).sum() / (seen.sum() + p.middle.mask.sum())

    assert min(dice(p, p.truth) for p in tilted) > 0.93
    assert np.mean([dice(p, Rigid.about(p.truth.rotation.T, target.center, p.truth.apply(target.center))) for p in tilted]) < 0.9


def test_the_same_trial_is_the_same_slice(brain, cutter, target):
    one, again, other = (sample_trial(brain, cutter, target.to_canonical, SAMPLINGS["paper"], t) for t in (3, 3, 4))
    np.testing.assert_array_equal(one.middle.image, again.middle.image)
    assert one.angle != other.angle
    assert one.angle != sample_trial(brain, cutter, target.to_canonical, SAMPLINGS["paper"], 3, seed=1).angle


def test_svr_gc_begins_off_by_the_rotation(brain, cutter, target):
    """The tilt of the template is between its start and the canonical rotation."""
    for p in sampled(brain, cutter, target, "paper", 4):
        start = geometric_start(p.middle, target)
        assert start.degrees_from(p.truth) == pytest.approx(np.degrees(so3.geodesic_distance(p.rotation @ target.to_canonical, np.eye(3))))


def test_slabs_are_parallel_slices_four_mm_apart(brain, cutter, target):
    for p in sampled(brain, cutter, target, "slab-5", 3):
        assert [s.index for s in p.pieces] == [0, 1, 2, 3, 4] and p.middle is p.pieces[2]
        centers = np.array([s.grid.center for s in p.pieces])
        np.testing.assert_allclose(centers, np.outer([-8, -4, 0, 4, 8], [0, 0, 1]), atol=1e-9)
        assert len({s.grid.thickness for s in p.pieces}) == 1
    assert [len(p.pieces) for p in sampled(brain, cutter, target, "slab-3", 2)] == [3, 3]


def test_poses_are_judged_against_the_truth_and_its_twin(brain, cutter, target):
    p = next(p for p in sampled(brain, cutter, target, "all", 9) if 60 < twin_degrees(p.truth, p.middle.grid, target.plane) < 170)
    other = twin_pose(p.truth, p.middle.grid, target.plane)
    apart = p.truth.degrees_from(other)
    right, wrong = slice_errors(p.truth, p, target), slice_errors(other, p, target)
    assert (right.degrees, right.mm) == pytest.approx((0, 0), abs=1e-4) and right.right_twin == 1
    assert (wrong.nearer_degrees, wrong.nearer_mm) == pytest.approx((0, 0), abs=1e-4) and wrong.right_twin == 0
    assert wrong.degrees == pytest.approx(apart) and wrong.mm > 10
    lifted = slice_errors(Rigid(np.eye(3), np.array([0, 0, 3.0])) @ p.truth, p, target)
    assert lifted.mm == pytest.approx(3) and lifted.degrees == pytest.approx(0, abs=1e-4) and lifted.nearer_mm == pytest.approx(3)
    turned = slice_errors(Rigid.about(so3.exp([0, 0, np.radians(10)]), p.middle.mask_center, p.middle.mask_center) @ p.truth, p, target)
    assert turned.degrees == turned.nearer_degrees == pytest.approx(10)


def predicted(p: SliceTrial, target: SliceTarget, flips: list[bool]) -> list[SlicePose]:
    """What a perfect network that cannot tell twins would say of the slices of a slab."""
    both = [(p.truth, twin_pose(p.truth, s.grid, target.plane)) for s in p.pieces]
    return [SlicePose(*(pair[::-1] if flip else pair), 1.0, 1.0, 1.0, np.zeros(2)) for pair, flip in zip(both, flips, strict=True)]


def test_a_slab_chooses_the_twins_that_agree(brain, cutter, target):
    (p,) = sampled(brain, cutter, target, "slab-5", 1)
    found = predicted(p, target, [True, False, True, True, False])
    assert fused_slab(found, target).degrees_from(p.truth) < 0.01
    pose = registered_slab(p.pieces, target, found)
    assert pose.degrees_from(p.truth) < 2 and slice_errors(pose, p, target).mm < 1.5


def test_the_twin_that_fits_better_is_kept(brain, cutter, target, monkeypatch: pytest.MonkeyPatch):
    (p,) = sampled(brain, cutter, target, "all", 1)
    (found,) = predicted(p, target, [False])
    asked = []

    def register(pieces, _, starts, *, which, options):
        asked.append((len(pieces), starts, which, options.scale_deviation > 0))
        return SimpleNamespace(poses=starts, ncc=np.array([0.4, 0.6]))

    monkeypatch.setattr(slice_methods, "register_slices", register)
    assert slice_methods.better_twin(p.middle, target, found) is found.twin
    assert asked == [(1, [found.pose, found.twin], [0, 0], True)]
    assert slice_methods.better_twin(p.middle, target, found, register=False) is found.pose


def test_with_half_the_twin_whose_normal_points_up_is_taken(brain, cutter, target, monkeypatch: pytest.MonkeyPatch):
    """Whatever the NCC; where both or none point up it decides."""
    p = sampled(brain, cutter, target, "paper", 4)[3]
    assert slice_methods.normal_in_brain(p.middle, p.truth, target) == pytest.approx(p.rotation[2], abs=1e-6)
    other = twin_pose(p.truth, p.middle.grid, target.plane)
    assert slice_methods.normal_in_brain(p.middle, other, target)[2] == pytest.approx(-p.rotation[2, 2], abs=1e-6)
    ncc = [0.9, 0.1]
    monkeypatch.setattr(slice_methods, "register_slices", lambda s, t, starts, **_: SimpleNamespace(poses=starts, ncc=np.array(ncc)))
    for first, second in ((p.truth, other), (other, p.truth)):
        found = SimpleNamespace(pose=first, twin=second, copies=())
        for register in (True, False):
            assert slice_methods.better_twin(p.middle, target, found, half=True, register=register) is p.truth
    both = SimpleNamespace(pose=p.truth, twin=Rigid(p.truth.rotation.copy(), p.truth.translation), copies=())
    assert slice_methods.better_twin(p.middle, target, both, half=True) is both.pose


def test_families_and_what_they_need(tmp_path: Path):
    assert [f.methods for f in families()] == [("svr-gc",), ("slice-pose-mse",), ("slice-pose", "svr-deep"), OWN]
    for names in (["a", "a"], ["ours"]):
        with pytest.raises(UsageError, match="name each network once"):
            families(names)
    some = families(["nowhere-mse", "nowhere"])
    assert missing_networks(some[:3]) == {"nowhere-mse": "nowhere-mse", "nowhere": "nowhere", "svr-deep": "nowhere"}
    able, missing = slices.runnable(["nowhere"])
    assert able[0].name == "svr-gc" and "svr-deep" in missing and not any(f.name == "nowhere" for f in able)


def test_groups_have_equal_shares():
    def case(name: str, group: str) -> Case:
        return Case(name, group, Path(), None, None, None)  # type: ignore[arg-type]

    cases = [case("f", "fetus"), *(case(f"n{i}", "newborns") for i in range(4)), *(case(f"c{i}", "CHN") for i in range(16))]
    assert trials(cases, 480) == {"f": 160, **{f"n{i}": 40 for i in range(4)}, **{f"c{i}": 10 for i in range(16)}}
    assert sum(trials(cases, 481).values()) >= 481
    assert trials(cases[:1], 7) == {"f": 7}


@pytest.mark.data
def test_brains_that_nobody_trained_on(data_dir: Path):
    cases = slice_cases(data_dir, ("fetus", "newborn-T2w", "CHN"))
    against = {c.name: c.template.space for c in cases}
    assert list(against)[:5] == ["f234", *(f"sub-A{i}-T2w" for i in range(13, 17))]
    assert against["f234"] == "CRL+29" and against["sub-A13-T2w"].startswith("Serag")
    assert [(n, against[n]) for n in list(against)[5:]] == [(f"CHN+{w}", f"CRL+{w}") for w in range(23, 39)]
    assert {c.name for c in slice_cases(data_dir, ("development",))} >= {"sub-A04", "CRL+27"}


class Counted(SliceBenchmarkRunner):
    """Methods that find the truth moved by a mm for each letter of their family, and count how often they are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.halves: list[bool] = []

    def run(self, family, pieces, target, *, half=False) -> Iterator[tuple[str, Found]]:
        self.asked.append(family.name)
        self.halves.append(half)
        for method in family.methods:
            yield method, Found(Rigid.identity(), 0.5)


def test_rows_hold_the_columns_and_are_made_once(brain, cutter, target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slices, "_loaded", lambda case: (brain, cutter, target))
    case = Case("head", "phantoms", Path(), None, SimpleNamespace(age=29.0), OWN_POSE)  # type: ignore[arg-type]
    some, runner = families(["slice-pose"]), Counted()

    def parts(of=some) -> dict[Family, PartFile]:
        return {f: PartFile(tmp_path / f"{f.name}.csv") for f in of}

    measure(case, runner, parts(), {"paper": 2, "slab-3": 1})
    assert runner.asked == ["svr-gc", "slice-pose", "ours"] * 2 + ["ours"]
    assert runner.halves == [True] * 6 + [False]
    rows = read_rows(tmp_path / f"{f.name}.csv" for f in some)
    assert len(rows) == 2 * 5 + 2
    assert list(rows[0]) == [f.name for f in fields(SliceRow) if f.name != "bin"]
    measure(case, runner, parts(), {"paper": 3, "slab-3": 1})
    assert runner.asked[7:] == ["svr-gc", "slice-pose", "ours"]
    # SVR-Deep from another network is another row
    other = families(["another"])
    measure(case, runner, {**parts(), **parts((other[1],))}, {"paper": 3})
    assert runner.asked[10:] == ["another"] * 3


@pytest.fixture(scope="module")
def demo_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    from posepipe.atlas import AtlasLibrary

    demo = write_demo(tmp_path_factory.mktemp("demo"), n_subjects=1, weeks=(27, 30), spacing=2.0, seed=3)
    template = replace(AtlasLibrary([demo.atlas_dir]).template("Phantom", "30", "T2w"), to_canonical=np.eye(3))
    return Case("Phantom+30", "templates", template.image, template.mask, template, Rigid.identity())


@pytest.mark.slow
def test_from_a_phantom_to_the_tables(demo_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(slices, "slice_cases", lambda data, groups: [demo_case])
    options = {"size": 16, "width": [2, 2, 2, 2]}
    save_network(
        SliceCoordinateNet(16, (2, 2, 2, 2)), "slice-coordinates", tmp_path / "weights",
        architecture="SliceCoordinateNet", options=options, card="For a test.", terms="none",
    )  # fmt: skip
    parser = argparse.ArgumentParser()
    bench_command.add_arguments(parser.add_subparsers())
    line = ["bench", "slice", "data", "-o", str(tmp_path / "out"), "--weights", str(tmp_path / "weights"), "--slabs", "1"]
    args = parser.parse_args([*line, "--slices", "1", "--pose-weights", "nowhere"])
    assert parser.parse_args(line).slices == 480 and bench_command.run(args) == 0
    assert "svr-deep: not run, there is no nowhere in these weights" in capsys.readouterr().out
    rows = read_rows([tmp_path / "out/slice.csv"])
    assert [r["method"] for r in rows] == ["svr-gc", *OWN] * 2 + [*OWN] * 2
    assert [r["sampling"] for r in rows] == ["paper"] * 3 + ["all"] * 3 + ["slab-3"] * 2 + ["slab-5"] * 2
    assert all(SliceRow.of(r).seconds > 0 for r in rows)
    text = (tmp_path / "out/slice.md").read_text()
    assert "| nowhere |" in text and "| ours+svr | truth |" in text
    for name in ("figure2.png", "figure3.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert len(read_parts(tmp_path / "out", [demo_case], families([])[:1])) == 2
