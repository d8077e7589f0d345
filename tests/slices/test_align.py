"""The slice path of a stack: from its image, mask and sidecar to a pose of each slice and of the stack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posepipe.bench.slice_register import start_off
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume
from posepipe.matching.target import Target
from posepipe.models.calibration import ConfidenceModel
from posepipe.refinement.refine import refine_pose
from posepipe.slices.align import KeptPose, align_stack
from posepipe.slices.frames import twin_pose
from posepipe.slices.motion import MovingStack, StackProtocol, simulate_stack
from posepipe.slices.network import SlicePose
from posepipe.slices.points import SliceBatch, SliceTarget

MODEL = ConfidenceModel({"ncc": (2.0, 0.5, 0.1)}, 0.0, 0.5, 0.5)


class FixedNetwork:
    """Stands for the network: the truth of each slice, ``off`` degrees off, every second one the twin."""

    sha256 = {"slice-coordinates": "0" * 64}

    def __init__(self, truth: list[Rigid], off: float = 8.0) -> None:
        self.truth, self.off, self.asked = truth, off, 0

    def poses(self, slices, target, plane):
        self.asked += 1
        rng = np.random.default_rng(3)
        out = []
        for k, s in enumerate(slices.slices):
            near = start_off(self.truth[s.index], target.center, self.off, rng)
            both = (near, twin_pose(near, s.grid, plane))
            out.append(SlicePose(both[k % 2], both[1 - k % 2], 4.0, 2.0, s.area, np.zeros(2)))
        return out


@pytest.fixture(scope="module")
def moved(average) -> MovingStack:
    """A stack of thick slices of the phantom, which moves by 8°; its first slice shows next to no brain."""
    thick = StackProtocol(pixel=1.5, thickness=4.5)
    stack = simulate_stack(*average, np.random.default_rng(21), degrees=8.0, protocol=thick)
    mask = stack.mask.data.copy()
    mask[:, :, 0] = 0
    mask[20:26, 20:26, 0] = 1  # 81 mm²
    return replace(stack, mask=stack.mask.with_data(mask))


@pytest.fixture(scope="module")
def found(moved, slice_target):
    """It, aligned from a pose of the volume that is 25° off."""
    truth = moved.poses(Rigid.identity())
    off = start_off(moved.mean, slice_target.center, 25.0, np.random.default_rng(1))
    timing = {"SliceTiming": moved.acquisition.times.tolist()}
    return align_stack(moved.image, moved.mask, slice_target.target, off, FixedNetwork(truth), sidecar=timing, model=MODEL)


def test_each_slice_has_its_pose(moved, found):
    truth = moved.poses(Rigid.identity())
    assert [r.slice for r in found.rows] == list(range(len(truth)))
    known = [r for r in found.rows if r.pose is not None]
    assert len(known) > 10
    assert np.median([r.pose.degrees_from(truth[r.slice]) for r in known]) < 3
    assert found.acquisition.source == "SliceTiming"


def test_the_head_moved_so_the_stack_has_the_mean_pose_of_its_slices(moved, found, slice_target):
    assert found.kept.kept == "slices" and 5 < found.kept.motion < 13
    assert found.pose.degrees_from(moved.mean) < 3 < 15 < found.by_volume.degrees_from(moved.mean)
    row = next(r for r in found.rows if r.pose is not None)
    assert row.motion_deg == pytest.approx(row.pose.degrees_from(found.pose))
    shift = row.pose.apply(slice_target.center) - found.pose.apply(slice_target.center)
    assert row.motion_mm == pytest.approx(np.linalg.norm(shift))


def test_where_the_network_is_lost_the_pose_of_the_volume_leads(moved, slice_target):
    """All that the network says is 100° off: each slice is found from the volume's pose, by the better fit."""
    truth = moved.poses(Rigid.identity())
    timing = {"SliceTiming": moved.acquisition.times.tolist()}
    found = align_stack(moved.image, moved.mask, slice_target.target, moved.mean, FixedNetwork(truth, off=100.0), sidecar=timing)
    assert np.median([r.pose.degrees_from(truth[r.slice]) for r in found.rows if r.pose is not None]) < 4


def test_the_sidecar_entry_of_a_stack(found):
    about = found.about()
    known = [r for r in found.rows if r.pose is not None]
    assert about["SlicesWithPose"] == len(known) and about["StackPose"] == "slices" and about["SliceOrder"] == "SliceTiming"
    assert about["Outliers"] == sum(r.confidence < MODEL.fail for r in known) == sum(r.outlier for r in known)
    assert "SliceOrderNote" not in about and about["Weights"] == FixedNetwork.sha256


def test_slices_without_brain_have_no_pose_but_a_line(found):
    empty = [r for r in found.rows if r.pose is None]
    assert [r.slice for r in empty] == [0] and all(r.confidence is None and r.outlier is None for r in empty)


def test_the_pose_of_the_stack_takes_its_similarity_along(moved, found, slice_target):
    about = (moved.image, moved.mask, slice_target.target)
    volume = refine_pose(*about, found.by_volume, method="none")
    kept = found.applied_to(volume, *about)
    assert kept.pose is found.pose and kept.method == "slices"
    assert kept.similarity["CR"]["before"] == volume.similarity["CR"]["before"] < kept.similarity["CR"]["after"]
    still = replace(found, kept=replace(found.kept, kept="volume"))
    assert still.applied_to(volume, *about) is volume


def test_with_a_timing_that_does_not_fit_the_order_is_guessed_and_said(moved, slice_target):
    truth = moved.poses(Rigid.identity())
    found = align_stack(moved.image, moved.mask, slice_target.target, moved.mean, FixedNetwork(truth), sidecar={"SliceTiming": [0.0, 1.0]})
    assert found.acquisition.source == "guessed" and "SliceTiming must hold" in found.about()["SliceOrderNote"]
    assert all(r.confidence is None for r in found.rows)


def test_too_few_slices_keep_the_volume(moved, slice_target):
    mask = np.zeros_like(moved.mask.data)
    middle = moved.mask.shape[2] // 2
    mask[:, :, middle : middle + 2] = moved.mask.data[:, :, middle : middle + 2]
    network = FixedNetwork(moved.poses(Rigid.identity()))
    found = align_stack(moved.image, moved.mask.with_data(mask), slice_target.target, moved.mean, network)
    assert found.pose is moved.mean and found.kept.kept == "volume" and "only 2 slices" in found.about()["StackPoseReason"]
    assert network.asked == 0 and all(r.pose is None for r in found.rows)


@pytest.mark.slow
def test_a_still_head_keeps_the_pose_at_which_its_slices_fit_better(average, slice_target):
    """Motion of nothing: of the true pose and one 6° off the true one is kept, whichever of the two is the volume's."""
    stack = simulate_stack(*average, np.random.default_rng(4), degrees=0.0, protocol=StackProtocol(pixel=1.5, thickness=4.5))
    truth = stack.poses(Rigid.identity())
    found = align_stack(stack.image, stack.mask, slice_target.target, Rigid.identity(), FixedNetwork(truth))
    assert found.kept.motion < 3
    off = start_off(Rigid.identity(), slice_target.center, 6.0, np.random.default_rng(0))
    pieces = [s for s in stack.slices if s.area > 100]
    batch, ready = SliceBatch(pieces), SliceTarget(slice_target.target)
    fused = found_like(found, pieces, Rigid.identity())
    assert KeptPose.of(batch, ready, fused, off).kept == "slices"
    assert KeptPose.of(batch, ready, found_like(found, pieces, off), Rigid.identity()).kept == "volume"


def found_like(found, pieces, pose):
    """What :class:`KeptPose` looks at, of slices that all lie at ``pose``."""
    from types import SimpleNamespace

    fused = SimpleNamespace(mean=pose, outlier=np.zeros(len(pieces), bool))
    return SimpleNamespace(poses=[pose] * len(pieces), fused=fused, log_scale=0.0)


def test_thickness_of_the_sidecar_counts_if_it_can_be(moved, slice_target):
    from posepipe.slices.align import _thickness

    assert _thickness({"SliceThickness": 2.5}, moved.image, 2) == 2.5
    step = float(moved.image.spacing[2])
    for given in (0.003, "n/a", None, 900.0):
        assert _thickness({"SliceThickness": given}, moved.image, 2) == pytest.approx(step)


def test_a_stack_may_lie_along_any_voxel_axis(moved, slice_target):
    """The same stack with its slice axis first: the same poses."""
    data = {name: np.moveaxis(getattr(moved, name).data, 2, 0) for name in ("image", "mask")}
    affine = moved.image.affine[:, [2, 0, 1, 3]]
    image, mask = (Volume(np.ascontiguousarray(data[name]), affine) for name in ("image", "mask"))
    timing = {"SliceTiming": moved.acquisition.times.tolist()}
    truth = moved.poses(Rigid.identity())
    found = align_stack(image, mask, Target(slice_target.target.volume, slice_target.target.mask, to_canonical=np.eye(3)), moved.mean,
                        FixedNetwork(truth), sidecar=timing)  # fmt: skip
    assert np.median([r.pose.degrees_from(truth[r.slice]) for r in found.rows if r.pose is not None]) < 3
