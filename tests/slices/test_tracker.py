"""The tracker: slices and volumes one at a time, with simulated networks that need no weights."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from moving_heads import off, planes_of_stack

import posepipe
from posepipe.brainmask.finder import BrainFinder
from posepipe.errors import AgeError, ImageError, MaskError, UsageError
from posepipe.geometry import Rigid, random_rotations, so3
from posepipe.geometry.so3 import Array
from posepipe.imaging.volume import Volume
from posepipe.slices.align import LEAST_MM2
from posepipe.slices.frames import MidsagittalPlane, twin_pose
from posepipe.slices.fuse import DEGREES, MM
from posepipe.slices.navigator import FoundBrain, NavigatorFollower
from posepipe.slices.network import SlicePose
from posepipe.slices.points import SliceTarget
from posepipe.slices.scanner import SliceScanner
from posepipe.slices.tracker import SliceTracker, _piece


class Said:
    """A network with given answers, slice by slice, which records its inputs."""

    def __init__(self, poses: Sequence[Sequence[Rigid]], area: Sequence[float] | float = 4000.0, center: Array | None = None) -> None:
        self.left = list(poses)
        self.area = [area] * len(self.left) if isinstance(area, float) else list(area)
        self.center = center
        self.asked: list[tuple[Array | None, bool]] = []

    def poses(self, slices, target, plane, *, centers=None, masked=True) -> list[SlicePose]:
        self.asked.append((None if centers is None else np.array(centers[0]), masked))
        i = len(self.asked) - 1 if len(self.left) > 1 else 0
        pose, twin = self.left[i]
        return [SlicePose(pose, twin, 2.0, 2.0, self.area[i], np.zeros(2) if self.center is None else self.center)]


@pytest.fixture(scope="module")
def scene(slice_target: SliceTarget, average: tuple[Volume, Volume]):
    """A head that lies askew, twelve parallel slices of it, the truth, and pose and twin 8° off, in turn."""
    rng = np.random.default_rng(11)
    center = slice_target.center
    own = Rigid.about(random_rotations(1, rng)[0], center, center + np.array([12.0, -7, 20]))
    grids = planes_of_stack(own.apply(center), rng, 24)
    grids = [g for g in grids if abs((own.apply(center) - g.center) @ g.normal) < 22][:12]
    truth = [Rigid.about(so3.exp([0, 0, 0.01 * i]), own.apply(center)) @ own for i in range(len(grids))]
    scanner = SliceScanner(*average, 1.2)
    slices = [scanner.acquire(g, p) for g, p in zip(grids, truth, strict=True)]
    plane = MidsagittalPlane.of(np.eye(3), center)
    said = []
    for i, (g, p) in enumerate(zip(grids, truth, strict=True)):
        near = off(p, center, 8.0, 2.5, rng)
        both = [near, twin_pose(near, g, plane)]
        said.append(both[:: 1 if i % 3 else -1])
    return slices, truth, said


def test_slices_are_registered_and_the_twin_is_chosen(scene, slice_target):
    slices, truth, said = scene
    tracker = SliceTracker(target=slice_target.target, network=Said(said))
    out = [tracker.add(s.image, s.grid.affine, 3.0, s.mask, 1.5 * i) for i, s in enumerate(slices)]
    assert out[0].hold and "confidence" in out[0].reason
    last = out[5:]
    assert all(not t.hold and t.reason == "" and t.confidence > 0.8 for t in last)
    slice_errors = [t.pose.degrees_from(p) for t, p in zip(last, truth[5:], strict=True)]
    assert np.median(slice_errors) < 2.5  # 8° before registration
    assert max(t.head.degrees_from(p) for t, p in zip(last, truth[5:], strict=True)) < 4
    assert max(t.head.mm_from(p) for t, p in zip(last, truth[5:], strict=True)) < 12  # at the scanner's origin
    assert all(t.twin.degrees_from(p) > 20 for t, p in zip(last, truth[5:], strict=True))
    assert all(t.ncc is not None and t.ncc > 0.8 and t.seconds > 0 for t in last)


def test_the_result_of_a_slice_does_not_depend_on_later_ones(scene, slice_target):
    slices, _, said = scene
    out = []
    for order in (range(8), [0, 1, 2, 3, 9, 10, 11, 8]):
        network = Said([said[i] for i in order])
        tracker = SliceTracker(target=slice_target.target, network=network, register=False)
        out.append([tracker.add(slices[i].image, slices[i].grid.affine, 3.0, slices[i].mask) for i in order])
        assert len(network.asked) == 8
    for a, b in zip(out[0][:4], out[1][:4], strict=True):
        assert a.head.is_close(b.head, degrees=0, mm=0) and a.confidence == b.confidence and a.hold == b.hold
        assert a.pose.is_close(b.pose, degrees=0, mm=0)
    assert not out[0][4].head.is_close(out[1][4].head, degrees=0, mm=0)


def test_the_network_alone(scene, slice_target):
    slices, truth, said = scene
    tracker = SliceTracker(target=slice_target.target, network=Said(said), register=False)
    out = [tracker.add(s.image, s.grid.affine, 3.0, s.mask) for s in slices]
    assert out[-1].ncc is None
    assert not out[-1].hold
    assert out[-1].head.degrees_from(truth[-1]) < 8
    assert out[-1].pose.is_close(said[-1][0 if 11 % 3 else 1], degrees=0.01, mm=0.01)
    tracker.reset()
    assert tracker.head is None


def test_hold_without_brain_far_away_and_while_not_confident(scene, slice_target):
    slices, truth, said = scene
    far = [Rigid.about(so3.exp([0, 1.6, 0]), truth[8].apply(slice_target.center)) @ p for p in said[8]]
    network = Said([*said[:7], said[7], far, *said[9:]], [4000.0] * 7 + [LEAST_MM2 - 1] + [4000.0] * 4)
    tracker = SliceTracker(target=slice_target.target, network=network, register=False)
    out = [tracker.add(s.image, s.grid.affine, 3.0, s.mask) for s in slices]
    assert not out[6].hold
    assert out[7].hold and out[7].pose is None and out[7].twin is None and "no brain" in out[7].reason
    assert out[7].head.is_close(out[6].head, degrees=0, mm=0)
    assert out[8].hold and "30° or 15 mm" in out[8].reason and out[8].pose is not None
    assert out[8].head.is_close(out[6].head, degrees=0, mm=0)
    assert not out[-1].hold and not out[-1].head.is_close(out[6].head, degrees=0, mm=0)
    empty = tracker.add(slices[0].image, slices[0].grid.affine, 3.0, np.zeros_like(slices[0].mask))
    assert empty.hold and "mask" in empty.reason and empty.pose is None
    assert empty.head.is_close(out[-1].head, degrees=0, mm=0)


def test_without_a_mask_it_looks_where_the_head_was(scene, slice_target):
    slices, truth, said = scene
    network = Said([said[0]] * 1, center=np.array([4.0, -3.0]))
    tracker = SliceTracker(target=slice_target.target, network=network, register=False)
    first = tracker.add(slices[0].image, slices[0].grid.affine)
    assert [m for _, m in network.asked] == [False] * 3
    np.testing.assert_allclose([c for c, _ in network.asked], [[0, 0], [4, -3], [4, -3]])
    assert first.hold
    tracker = SliceTracker(target=slice_target.target, network=Said(said), register=True)
    for s in slices[:6]:
        tracker.add(s.image, s.grid.affine, mask=s.mask)
    out = tracker.add(slices[6].image, slices[6].grid.affine)
    where, masked = tracker._network.asked[-1]
    s = slices[6]
    middle = (~s.grid.to_world).apply(s.mask_center)[:2]
    assert not masked
    assert np.linalg.norm(where - middle) < 6
    assert not out.hold
    assert out.pose.degrees_from(truth[6]) < 4  # registered under the template's mask


def test_a_navigator_is_followed_where_the_head_was_and_sought_when_lost(slice_target):
    target, center = slice_target.target, slice_target.center
    own = Rigid.about(so3.exp([0.3, -1.2, 0.6]), center, center + np.array([20.0, -12, 9]))
    volume = Volume(np.zeros((9, 9, 9), np.float32), np.diag([6.0, 6, 6, 1]))
    done: list[tuple] = []

    class Finder:
        def near(self, image, at, radius):
            done.append(("near", at, radius))
            return image

        def find(self, image):
            done.append(("find",))
            if len(done) > 3:
                raise MaskError
            return SimpleNamespace(volume=image)

    follower = NavigatorFollower(target, lambda: None)  # type: ignore[arg-type,return-value]
    follower.__dict__["_finder"] = Finder()
    sure = [True, False, True]
    follower._placed = lambda volume, mask, followed: FoundBrain(own, sure.pop(0), followed)  # type: ignore[method-assign]
    found = follower.follow(volume, None, own)
    assert found is not None and found.followed
    np.testing.assert_allclose(done[0][1], own.apply(center))
    found = follower.follow(volume, None, own)  # the pose near the last position is not reliable: the whole volume is segmented
    assert [d[0] for d in done] == ["near", "near", "find"]
    assert found is not None and not found.followed
    assert follower.follow(volume) is None


def test_a_look_near_the_last_place_masks_what_lies_there(scan_weights):
    finder = BrainFinder(scan_weights(0.5))
    affine = np.eye(4)
    affine[:3, :3] = so3.exp([0.2, 0.5, -0.3]) @ np.diag([6.0, -6, 6])
    affine[:3, 3] = [-100.0, 90, -40]
    shape = (40, 40, 20)
    points = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    middle = points[22, 17, 9]
    ball = np.linalg.norm(points - middle, axis=-1) < 42
    volume = Volume(ball.astype(np.float32), affine)
    for away in (np.zeros(3), np.array([12.0, 0, -8])):
        seen = finder.near(volume, middle + away, 42.0)
        assert seen is not None
        assert 2 * (seen.data & ball).sum() / (seen.data.sum() + ball.sum()) > 0.8
        np.testing.assert_allclose(points[seen.data].mean(0), middle, atol=3)
    assert finder.near(volume.with_data(np.zeros(shape, np.float32)), middle, 42.0) is None


def test_volumes_in_turn(slice_target, monkeypatch):
    center = slice_target.center
    own = Rigid.about(so3.exp([0.3, -1.2, 0.6]), center, center + np.array([20.0, -12, 9]))
    far = Rigid.about(so3.exp([0, 0.9, 0]), own.apply(center)) @ own
    answers = [FoundBrain(own, False, False), FoundBrain(far, True, False), FoundBrain(own, True, True), FoundBrain(far, False, True), None]
    asked = []

    def follow(self, volume, mask=None, head=None):
        asked.append(head)
        return answers[len(asked) - 1]

    monkeypatch.setattr(NavigatorFollower, "follow", follow)
    tracker = SliceTracker(target=slice_target.target, network=Said([]))
    volume = Volume(np.zeros((4, 4, 4), np.float32), np.diag([6.0, 6, 6, 1]))
    out = [tracker.add_volume(volume, time=float(i)) for i in range(5)]
    assert asked[0] is None and asked[1] is not None  # first everywhere, then where the head was
    assert out[0].hold and "not reliable" in out[0].reason
    assert not out[1].hold and out[1].head.is_close(far)  # a volume that is sure needs no other
    assert not out[2].hold and out[2].twin is None and out[2].head.is_close(own) and out[2].confidence > 0.9
    assert out[3].hold and out[3].head.is_close(own)
    assert out[4].hold and out[4].pose is None and out[4].head.is_close(own)
    with pytest.raises(UsageError, match="order of acquisition"):
        tracker.add_volume(volume, time=1.0)


def test_refuses_what_is_no_slice(slice_target):
    tracker = SliceTracker(target=slice_target.target, network=Said([]))
    with pytest.raises(ImageError, match="add_volume"):
        tracker.add(np.zeros((4, 4, 4)), np.eye(4))
    with pytest.raises(ImageError, match="mask"):
        tracker.add(np.zeros((8, 8)), np.eye(4), mask=np.ones((4, 4)))
    with pytest.raises(ImageError, match="affine"):
        tracker.add(np.zeros((8, 8)), np.zeros((4, 4)), 3.0)
    with pytest.raises(ImageError, match="thick"):
        tracker.add(np.zeros((8, 8)), np.eye(4), -1.0)
    assert posepipe.SliceTracker is SliceTracker
    assert (DEGREES, MM) == (10.0, 5.0)  # units of the tracker's limits


def test_pixels_that_are_not_finite_are_reported_and_taken_as_0(slice_target, caplog, monkeypatch):
    image, mask = np.ones((9, 10)), np.zeros((9, 10))
    mask[2:7, 2:8] = 1
    image[0, 0] = mask[4, 4] = mask[0] = np.nan
    piece = _piece(image, np.eye(4), 3.0, mask)
    assert piece.image[0, 0] == 0 and piece.mask.sum() == 29
    assert "slice: 1 of 90 voxels" in caplog.text and "slice: in the brain mask 11 of 90 voxels" in caplog.text
    seen = []
    monkeypatch.setattr(NavigatorFollower, "follow", lambda self, *volumes: seen.append(volumes))
    volume = Volume(np.full((4, 4, 4), np.inf, np.float32), np.diag([6.0, 6, 6, 1]), "navigator")
    SliceTracker(target=slice_target.target, network=Said([])).add_volume(volume, volume)
    assert not seen[0][0].data.any() and not seen[0][1].data.any() and "navigator: 64 of 64 voxels" in caplog.text


def test_the_network_is_shown_one_copy_of_each_slice(slice_target):
    """Four take 24 ms, one 12: a scanner does not wait."""
    assert SliceTracker(target=slice_target.target)._poser._copies == 1


def test_a_tracker_chooses_its_template_as_the_aligner_does(miniature):
    tracker = SliceTracker(29.6, atlas="CRL", atlas_dirs=[miniature.folder / "atlases"], register=False)
    assert tracker.choice is not None and tracker.choice.template.space == "CRL+30" and tracker.head is None
    # lies as its atlas does, so that the plane between the halves is known without a network
    assert tracker.target.to_canonical is not None
    normal = tracker._slice_target.plane.normal
    assert abs(float((tracker.target.to_canonical @ normal)[0])) == pytest.approx(1, abs=1e-6)
    tracker.warm()
    with pytest.raises(AgeError):
        SliceTracker(12.0, atlas="CRL", atlas_dirs=[miniature.folder / "atlases"])
