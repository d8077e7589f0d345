"""A whole moving stack: from rough poses, some of them twins or wrong, to the pose of each slice."""

from __future__ import annotations

import numpy as np

from posepipe.bench.slice_register import start_off
from posepipe.geometry import Rigid
from posepipe.slices import stack as stack_module
from posepipe.slices.frames import MidsagittalPlane, twin_pose
from posepipe.slices.motion import StackProtocol, simulate_stack
from posepipe.slices.stack import SINGLE, register_stack


def test_a_stack_is_registered_with_one_size_and_no_lift(average, slice_target, monkeypatch):
    """Three sizes and the foreground_offset, which help single slices, made newborns' stacks worse
    (docs/decisions/034)."""
    asked, plain = [], stack_module.register_slices

    def noted(*args, options, **others):
        asked.append(options)
        return plain(*args, options=options, **others)

    monkeypatch.setattr(stack_module, "register_slices", noted)
    thick = StackProtocol(pixel=2.0, thickness=8.0)
    moved = simulate_stack(*average, np.random.default_rng(2), degrees=0.0, protocol=thick)
    pieces = [s for s in moved.slices if s.area > 100]
    register_stack(pieces, slice_target, [Rigid.identity()] * len(pieces), slice_target.plane, moved.acquisition, guess=Rigid.identity())
    assert len(asked) == 4 and all(o.foreground_offset == 0 and o.shape_deviation == 0 and o.smoothness is not None for o in asked)
    assert [o.shared_scale for o in asked[:3]] == [True] * 3 and SINGLE.foreground_offset > 0 < SINGLE.shape_deviation


def test_a_moving_stack_is_found_slice_by_slice(average, slice_target):
    """8° of motion; starts 8° off, half of them the twin, a sixth lost: afterwards right to 3° and 2 mm, against the head's 8°."""
    rng = np.random.default_rng(21)
    stack = simulate_stack(*average, rng, degrees=8.0)
    plane = MidsagittalPlane.of(np.eye(3), slice_target.center)
    pieces = [s for s in stack.slices if s.area > 100]
    truth = [stack.poses(Rigid.identity())[s.index] for s in pieces]
    begin = [start_off(p, slice_target.center, 70.0 if k % 6 == 2 else 8.0, rng) for k, p in enumerate(truth)]
    begin = [twin_pose(p, s.grid, plane) if k % 2 else p for k, (p, s) in enumerate(zip(begin, pieces, strict=True))]
    found = register_stack(pieces, slice_target, begin, plane, stack.acquisition)
    degrees = np.array([p.degrees_from(q) for p, q in zip(found.poses, truth, strict=True)])
    mm = np.array([p.mm_from(q, slice_target.center) for p, q in zip(found.poses, truth, strict=True)])
    assert np.median(degrees) < 3 and np.median(mm) < 2
    assert (degrees > 15).mean() <= 0.05
    assert found.fused.mean.degrees_from(stack.mean) < 3
    assert found.first.outlier[2::6].mean() > 0.6
    moved = np.array([stack.mean.degrees_from(q) for q in truth])
    assert np.median(degrees) < 0.5 * np.median(moved)
