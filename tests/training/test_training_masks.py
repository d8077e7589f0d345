"""Made-up and real scans for the mask networks: the brain is where the truth says, what is cut is cut in both, a seed gives the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posepipe.errors import UsageError
from posepipe.geometry import so3
from posepipe.imaging.volume import Volume
from posepipe.models.coordinates import HALF_SIDE
from posepipe.models.masks import MaskNet, scaled
from posepipe.training.masks import SUBJECTS, MaskRecipe, MaskSynthesis, MaskTask, Scan, _distance, dice
from posepipe.training.scene_files import EYES_TILT_DEGREES, Landmarks, laid_on, read_landmarks
from posepipe.training.scenes import Scene, Scenes, scene_of
from posepipe.training.sources import LEFT, SIDE, Sources
from posepipe.training.surroundings import Surroundings, scanned

CALM = Surroundings(alone=0, faded=0, thick=0, slab=0, bias=0, noise=0)


def supply(sources: Sources, **options: object) -> MaskSynthesis:
    recipe = MaskRecipe(size=32, scenes=0.5, surroundings=CALM)
    scenes = options.pop("scenes", None)
    return MaskSynthesis(sources, replace(recipe, **options), seed=4, scenes=scenes)  # type: ignore[arg-type]


def scene(center: tuple[float, float, float] = (30, 36, 24), group: str = "one") -> Scene:
    """A ball of brain, 18 mm in radius, half as bright as the rest, on voxels of 2 mm in plane."""
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    index = np.moveaxis(np.indices((34, 34, 14)), 0, -1)
    inside = np.linalg.norm(index * affine.diagonal()[:3] - np.array(center), axis=-1) < 18
    rest = 80 + 20 * np.random.default_rng(0).random(inside.shape)
    return scene_of(f"{group}-1", group, Volume(np.where(inside, 40, rest).astype(np.float32), affine), Volume(inside, affine))


@pytest.mark.parametrize("far", [False, True])
def test_scans_show_the_brain_where_the_truth_says(sources: Sources, far: bool) -> None:
    scan = supply(sources, far=far, labels=0.0, surroundings=replace(CALM, stripped=1.0)).scan(6)
    assert scan.image.shape == scan.brain.shape == (6, 1, 32, 32, 32)
    assert bool(scan.image.isfinite().all()) and float(scan.brain.min()) >= 0 and float(scan.brain.max()) <= 1
    share = scan.brain.flatten(1).mean(1)
    # of the neighbourhood an eighth is brain, of a whole scan less
    assert 0.01 < float(share.mean()) < 0.08 if far else 0.08 < float(share.mean()) < 0.25
    if not far:
        assert all(float((i[b > 0.9] > 0).float().mean()) > 0.9 for i, b in zip(scan.image, scan.brain, strict=True))


@pytest.mark.parametrize("real", [0.0, 1.0])
def test_looks_that_go_astray_see_much_little_or_next_to_nothing_of_a_brain(sources: Sources, real: float) -> None:
    options = {"scenes": Scenes((scene(),)), "surroundings": replace(CALM, stripped=1.0), "labels": 0.0}
    right, astray = (supply(sources, stray=share, **options) for share in (0.0, 1.0))
    seen = []
    for made in (right, astray):
        made.recipe = replace(made.recipe, scenes=real)
        seen.append(made.scan(48).brain.flatten(1).mean(1))
    assert float(seen[0].min()) > 0.03 and float(seen[1].min()) < 0.02
    assert float(seen[1].std() / seen[1].mean()) > 2 * float(seen[0].std() / seen[0].mean())


def test_fluid_about_a_brain_is_that_of_its_contrast_and_a_fetus_s(sources: Sources) -> None:
    made = supply(sources)
    of = dict.fromkeys(("labels", "T2w", "T1w"), 0)
    for picture, voxels, byte in zip(sources.pictures, sources.voxels, made._fluid, strict=True):
        if picture.age >= 37:
            assert byte == -1
            continue
        of[picture.kind] += 1
        brain = voxels[voxels > 0]
        if picture.kind == "labels":  # what lies outermost
            inside = np.argwhere(voxels > 0)
            first = inside[np.abs(inside - inside.mean(0)).max(1).argmax()]
            assert voxels[tuple(first)] % LEFT == byte
        else:
            assert byte >= np.quantile(brain, 0.9) if picture.kind == "T2w" else byte <= np.quantile(brain, 0.1)
    assert of["labels"] and of["T2w"]
    whole, bare = (supply(sources, deform=0, stretch=0, surroundings=replace(CALM, fluid=share)).scan(24) for share in (1.0, 0.0))
    gained = whole.brain.flatten(1).sum(1) / bare.brain.flatten(1).sum(1)
    assert float(gained.min()) > 0.99 and float(gained.max()) > 1.1


def test_masks_with_fluid_and_without_have_equal_chances(sources: Sources) -> None:
    made = supply(sources)
    fluid = np.flatnonzero(made._fluid >= 0)
    bare = np.flatnonzero(made._fluid < 0)[:1]
    assert len(fluid) > 2 and len(bare)
    drawn = made._drawn(np.concatenate([fluid, bare]), 600)
    assert abs(float(np.isin(drawn, bare).mean()) - 0.5) < 0.1
    assert set(drawn) == set(fluid) | set(bare)
    assert set(made._drawn(fluid, 100)) <= set(fluid)


def test_of_newborns_single_subjects_come_before_templates(sources: Sources) -> None:
    made = supply(sources)
    bare = np.flatnonzero(made._fluid < 0)[:2]
    made._sources = replace(
        sources, pictures=tuple(replace(p, name="sub-1" if i == bare[0] else "Atlas+40") for i, p in enumerate(sources.pictures))
    )
    assert abs(float((made._drawn(bare, 600) == bare[0]).mean()) - SUBJECTS) < 0.1
    assert set(made._drawn(bare[1:], 9)) == {bare[1]} and set(made._drawn(bare[:1], 9)) == {bare[0]}


def test_a_nearer_look_shows_the_brain_larger(sources: Sources) -> None:
    scenes = Scenes((scene(),))
    for share in (0.0, 1.0):  # made up, and real
        near, wide = (
            supply(sources, near=width, scenes=scenes, shift=0.0, surroundings=replace(CALM, fluid=0)) for width in (0.9, 1.2)
        )
        for made in (near, wide):
            made.recipe = replace(made.recipe, scenes=share)
        one, other = (float(m.scan(24).brain.mean()) for m in (near, wide))
        assert 0.8 < one / other / (1.2 / 0.9) ** 3 < 1.25


def test_some_scans_hold_no_brain(sources: Sources) -> None:
    alone = supply(sources, surroundings=replace(CALM, alone=1.0)).scan(3)
    assert float(alone.brain.max()) == 0 and float(alone.image.max()) > 0


def test_what_lies_outside_the_field_of_view_is_in_neither() -> None:
    ones = torch.ones(8, 1, 24, 24, 24)
    image, mask = scanned(ones.clone(), ones.clone(), replace(CALM, slab=1.0), torch.Generator().manual_seed(0))
    assert torch.equal(image > 0, mask > 0)
    assert all(0 < float(m.mean()) < 1 for m in mask)


def test_a_seed_gives_the_same_scans_and_a_state_the_next(sources: Sources) -> None:
    scenes = Scenes((scene(),))
    one, other = supply(sources, scenes=scenes), supply(sources, scenes=scenes)
    assert torch.equal(one.scan(3).image, other.scan(3).image)
    state = one.state()
    following = one.scan(3).image
    one.restore(state)
    assert torch.equal(one.scan(3).image, following)


def test_scenes_keep_place_and_size_and_are_read_turned(tmp_path: Path) -> None:
    made = scene()
    assert made.spacing == 2.0 and made.image.shape == (34, 34, 28)
    # the last axis has its first voxel's middle 1 mm nearer to the edge than before
    assert made.center == pytest.approx([30, 36, 25], abs=0.7)
    assert made.radius == pytest.approx(18, rel=0.05)
    turn = so3.exp(np.array([0.4, -0.2, 0.9]))
    image, brain = made.read(turn, made.center + turn @ np.array([5.0, 0, 0]), 28.0, 28)
    middle = np.argwhere(brain > 0.5).mean(0) * 2 - 27
    assert middle == pytest.approx([-5, 0, 0], abs=0.7)
    assert image[brain > 0.9].mean() == pytest.approx(0.5 * image[(brain == 0) & (image > 0.1)].mean(), rel=0.25)
    joined = Scenes.joined([Scenes((made,), {"one": "CC0"}), Scenes((scene(group="two"),), {"two": "CC0"})])
    again = Scenes.load(joined.save(tmp_path / "scenes.npz"))
    assert [s.name for s in again.scenes] == ["one-1", "two-1"] and again.terms == {"one": "CC0", "two": "CC0"}
    np.testing.assert_array_equal(again.scenes[0].mask, made.mask)
    rng = np.random.default_rng(0)
    assert {again.draw(rng).group for _ in range(20)} == {"one", "two"}


def test_what_is_no_file_of_scenes_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a file of training scenes"):
        Scenes.load(tmp_path / "a.npz")
    with pytest.raises(UsageError, match="no scenes"):
        Scenes.joined([])


def test_landmarks_give_the_pose_that_put_them_there(tmp_path: Path) -> None:
    rotation, at = so3.exp(np.array([0.7, 1.1, -0.4])), np.array([12.0, -30, 8])
    tilt = np.radians(EYES_TILT_DEGREES)
    eyes = [np.array([x, 40 * np.cos(tilt), -40 * np.sin(tilt)]) for x in (-20.0, 20.0)]
    values = [at, *(rotation @ e + at for e in eyes)]
    names = [f"{of}_{axis}" for of in ("brain", "eyeL", "eyeR") for axis in "xyz"]
    rows = ["\t".join(["participant_id", *names]), "\t".join(["sub-1", *(f"{v:.6f}" for p in values for v in p)])]
    (tmp_path / "landmarks.tsv").write_text("\n".join(rows) + "\n")
    marks = read_landmarks(tmp_path)["sub-1"]
    assert isinstance(marks, Landmarks)
    pose = marks.pose(np.array([1.0, 2, 3]), np.eye(3))
    assert pose.rotation == pytest.approx(rotation, abs=1e-5)
    assert pose.apply(np.array([1.0, 2, 3])) == pytest.approx(at, abs=1e-5)
    box = np.zeros((20, 20, 20), np.float32)
    box[5:15, 5:15, 5:15] = 1
    template = Volume(box, np.diag([2.0, 2, 2, 1]))
    laid = laid_on(template, Volume(np.zeros((40, 40, 40), np.float32), pose.matrix @ np.diag([1.0, 1, 1, 1])), pose)
    assert laid.data.sum() == pytest.approx(box.sum() * 8, rel=0.15)
    (tmp_path / "landmarks.tsv").write_text("participant_id\tbrain_x\nsub-1\t3\n")
    with pytest.raises(UsageError, match="not a table of landmarks"):
        read_landmarks(tmp_path)
    assert read_landmarks(tmp_path / "elsewhere") == {}


def test_the_task_learns_what_is_bright(sources: Sources) -> None:
    def glowing(seed: int) -> Scan:
        brain = (torch.rand(4, 1, 4, 4, 4, generator=torch.Generator().manual_seed(seed)) > 0.6).float()
        brain = torch.nn.functional.interpolate(brain, scale_factor=4)
        return Scan(scaled(brain + 0.2), brain)

    class Glowing(MaskSynthesis):
        def scan(self, n: int) -> Scan:
            return glowing(int(self._rng.integers(1000)))

    training = Glowing(sources, MaskRecipe(size=16, scenes=0), seed=1)
    torch.manual_seed(0)
    task = MaskTask(MaskNet(16, (8, 8, 8, 8)), training, [glowing(5)], bf16=False)
    before = task.validate(task.network.eval())["dice"]
    optimizer = torch.optim.Adam(task.network.parameters(), 1e-2)
    task.network.train()
    for _ in range(60):
        loss, figures = task.loss(4, "mse")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0 < figures["dice"] <= 1 and figures["seconds"] >= 0
    assert task.validate(task.network.eval())["dice"] > max(0.9, before)


def test_overlap() -> None:
    half = torch.zeros(1, 1, 4, 4, 4)
    half[..., :2] = 1
    assert float(dice(half, half)) == 1 and float(dice(half, 1 - half)) < 0.02


def test_distances_from_the_surface_are_true() -> None:
    index = np.moveaxis(np.indices((SIDE,) * 3), 0, -1) + 0.5
    from_middle = np.linalg.norm(index - np.array([38, 41, 40]), axis=-1)
    made = _distance(np.where(from_middle < 20, 255, 0).astype(np.uint8)) * SIDE / (2 * HALF_SIDE)
    true = from_middle.reshape(40, 2, 40, 2, 40, 2).mean((1, 3, 5)) - 20
    near = np.abs(true) < 8
    assert abs(float((made - true)[near].mean())) < 0.1 and float(np.abs(made - true)[near].max()) < 1.2
