"""Hypothesis strategies: voxel grids of either handedness, along the axes and oblique, of unlike shapes and spacings."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from posepipe.geometry import axis_rotations, so3
from posepipe.imaging.grid import Grid


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """A grid; its axes lie along the world's, a little or far aslant of them, and turn either way."""
    axes = axis_rotations()[draw(st.integers(0, 23))]
    tilt = draw(st.sampled_from([0.0, 0.02, 0.7]))
    direction = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)))
    axes = so3.exp(tilt * direction / np.linalg.norm(direction)) @ axes @ np.diag([draw(st.sampled_from([1.0, -1.0])), 1, 1])
    edges = np.array(draw(st.tuples(*[st.floats(0.4, 4.0)] * 3)))
    shape = draw(st.tuples(*[st.integers(2, 300)] * 3))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * edges, draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return Grid(shape, affine, edges, "made.nii.gz")
