"""Brain candidates in a scan from the votes of its voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posepipe.brainmask.detection import BrainProbability, candidates_from_offsets
from posepipe.brainmask.scan import Frame
from posepipe.geometry import so3
from posepipe.models.scans import Located

SIDE = (48, 32, 64)
FRAME = Frame(np.array([10.0, -20, 30]), 5.0, SIDE, np.eye(3))


def located(balls: list[tuple[tuple[float, float, float], float]], p: float = 0.95) -> Located:
    """Brains that are balls (centre and radius in voxels), each voxel pointing to the centre of the nearest one."""
    voxels = np.moveaxis(np.indices(SIDE), 0, -1)
    cells = np.moveaxis(np.indices([n // 2 for n in SIDE]), 0, -1) * 2 + 0.5
    brain = np.any([np.linalg.norm(voxels - np.array(c), axis=-1) < r for c, r in balls], axis=0)
    depth = np.stack([np.linalg.norm(cells - np.array(c), axis=-1) / r for c, r in balls])
    nearest = depth.argmin(0)
    offset = np.array([c for c, _ in balls])[nearest] - cells
    radius = np.log(np.array([r for _, r in balls]))[nearest]
    logit = np.where(brain, np.log(p / (1 - p)), -6.0)
    said = (logit[None, None], np.moveaxis(offset, -1, 0)[None], radius[None, None])
    return Located(*(torch.as_tensor(x, dtype=torch.float32) for x in said))


def world(frame: Frame, voxel: tuple[float, float, float]) -> np.ndarray:
    return frame.affine[:3, :3] @ np.array(voxel) + frame.affine[:3, 3]


@pytest.mark.parametrize("axes", [np.eye(3), so3.exp(np.array([0.4, -0.2, 0.7]))], ids=["straight", "turned"])
def test_a_brain_is_where_its_voxels_point_and_as_large_as_they_say(axes):
    frame = Frame(FRAME.center, FRAME.step, FRAME.counts, axes)
    (place,) = candidates_from_offsets(located([((20.3, 15.1, 40.7), 8.5)]), frame)
    assert place.center == pytest.approx(world(frame, (20.3, 15.1, 40.7)), abs=0.5)
    assert place.radius == pytest.approx(8.5 * 5, rel=0.01)
    assert place.share == pytest.approx(0.95, abs=0.06)


def test_two_heads_that_touch_are_two_places():
    balls = [((15.0, 16.0, 30.0), 8.0), ((30.0, 16.0, 30.0), 7.0)]
    places = candidates_from_offsets(located(balls), FRAME)
    assert len(places) == 2
    for (center, radius), place in zip(balls, sorted(places, key=lambda one: one.center[0]), strict=True):
        assert place.center == pytest.approx(world(FRAME, center), abs=1.5)
        assert place.radius == pytest.approx(5 * radius, rel=0.05)
        assert 0.8 < place.share < 1.15  # none of the other's


def test_half_a_brain_is_less_full_than_a_whole_one_and_none_is_nowhere():
    whole = located([((20.0, 16.0, 32.0), 8.0)])
    cut = whole._replace(foreground=whole.foreground.clone())
    cut.foreground[..., :20, :, :] = -6
    (all_of_it,), (half,) = candidates_from_offsets(whole, FRAME), candidates_from_offsets(cut, FRAME)
    assert half.share == pytest.approx(all_of_it.share / 2, rel=0.1)
    assert half.center == pytest.approx(all_of_it.center, abs=1)
    assert candidates_from_offsets(whole._replace(foreground=whole.foreground - 12), FRAME) == ()


def test_the_fullest_comes_first():
    two = located([((12.0, 16.0, 20.0), 7.0), ((36.0, 16.0, 44.0), 7.0)])
    two.foreground[..., :24, :, :] -= 2.5  # the first is less likely
    first, second = candidates_from_offsets(two, FRAME)
    assert first.center[0] > second.center[0] and first.share > second.share


def test_what_is_likely_brain_is_measured_by_its_largest_piece():
    """A ball of 24 mm radius about (20, -20, 30) mm, and a smaller one."""
    frame = Frame(np.array([20.0, -20, 30]), 3.0, (32, 32, 32), so3.exp(np.array([0.4, -0.2, 0.7])))
    far = np.linalg.norm(frame.points(torch.device("cpu")).numpy() - frame.center, axis=-1)
    p = torch.as_tensor(np.where(far < 24, 0.9, 0.05), dtype=torch.float32)
    p[:4, :4, :4] = 1
    likely = BrainProbability(p, frame)
    about = likely.about()
    assert about is not None and about.center == pytest.approx(frame.center, abs=0.1) and about.radius == pytest.approx(24, rel=0.03)
    alone = likely.largest()
    assert alone.frame is frame and float(alone.p[:4, :4, :4].max()) == 0 and torch.equal(alone.p[far < 24], p[far < 24])
    for too_little in (p * 0.5, torch.where(p == 1, p, p * 0)):
        assert BrainProbability(too_little, frame).about() is None
