"""The order of acquisition: read, or else estimated and reported."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posepipe.errors import BidsError
from posepipe.geometry import Rigid
from posepipe.slices.acquisition import from_sidecar, guessed_from_poses, in_order, interleaved
from posepipe.slices.motion import random_motion


@given(st.integers(1, 60), st.integers(1, 9))
def test_interleaves_hold_every_slice_once(n, step):
    order = interleaved(n, step)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(np.argsort(in_order(order, 1.3)), order)


def test_slice_timing_is_read_by_slice_number_and_backwards_where_the_direction_says_so():
    times = [0.0, 4.0, 2.0, 6.0]
    found = from_sidecar({"SliceTiming": times}, 4)
    assert (list(found.times), found.source, found.note) == (times, "SliceTiming", "")
    assert list(found.order) == [0, 2, 1, 3]
    back = from_sidecar({"SliceTiming": times, "SliceEncodingDirection": "k-"}, 4)
    assert list(back.times) == times[::-1]


@pytest.mark.parametrize(
    "sidecar",
    [{"SliceTiming": [0, 1]}, {"SliceTiming": [0, 1, 2, -1]}, {"SliceTiming": "soon"},
     {"SliceTiming": [0, 1, 2, 3], "SliceEncodingDirection": "j"}],
)  # fmt: skip
def test_times_that_do_not_fit_are_refused(sidecar):
    with pytest.raises(BidsError, match="Slice"):
        from_sidecar(sidecar, 4)


def test_without_times_the_order_is_guessed_and_said():
    found = from_sidecar({}, 5)
    assert found.source == "guessed" and "assumed" in found.note and "2 interleaves" in found.note
    assert list(found.order) == [0, 2, 4, 1, 3]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_the_order_is_determined_from_the_poses_of_the_slices(step):
    rng = np.random.default_rng(step)
    times = in_order(interleaved(30, step))
    motion = random_motion(times, 8.0, np.zeros(3), rng)
    found = guessed_from_poses([None if i == 7 else m for i, m in enumerate(motion)], np.zeros(3))
    assert found.source == "guessed" and "poses" in found.note
    np.testing.assert_array_equal(found.order, interleaved(30, step))


def test_poses_that_do_not_tell_leave_the_usual_order():
    still = [Rigid.identity()] * 30
    assert list(guessed_from_poses(still, np.zeros(3)).order) == list(interleaved(30, 2))
    assert list(guessed_from_poses([None] * 30, np.zeros(3)).order) == list(interleaved(30, 2))
