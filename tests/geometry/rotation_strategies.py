"""Hypothesis strategies: rotation vectors, including special angles, and rigid maps."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from posepipe.geometry import Rigid

AWKWARD = (0.0, 1e-12, 1e-9, 1e-6, 1e-4, 5e-3, 1e-2, np.pi / 2, np.pi - 1e-4, np.pi - 1e-6, np.pi - 1e-9, np.pi)
"""Angles where formulas for rotations change branch or lose digits, radians."""

AXES = [*np.eye(3), *-np.eye(3), *(np.array([1.0, 1, 0]), np.array([0, -1.0, 1]), np.array([1.0, 1, 1]))]


def unit(v: np.ndarray) -> np.ndarray:
    """``v`` at length 1."""
    return v / np.linalg.norm(v)


def axes() -> st.SearchStrategy[np.ndarray]:
    """Unit vectors (3,), those along and between the coordinate axes often."""
    component = st.floats(-1, 1, allow_subnormal=False)
    anywhere = st.tuples(component, component, component).map(np.array).filter(lambda v: np.linalg.norm(v) > 1e-3)
    return st.one_of(st.sampled_from(AXES), anywhere).map(unit)


def angles(low: float = 0.0, high: float = np.pi) -> st.SearchStrategy[float]:
    """Angles in radians, the awkward ones often."""
    return st.one_of(st.sampled_from([a for a in AWKWARD if low <= a <= high]), st.floats(low, high))


def rotvecs(low: float = 0.0, high: float = np.pi) -> st.SearchStrategy[np.ndarray]:
    """Rotation vectors (3,) with angle in ``[low, high]``."""
    return st.tuples(axes(), angles(low, high)).map(lambda pair: pair[0] * pair[1])


def rigids() -> st.SearchStrategy[Rigid]:
    """Rigid maps with shifts of up to 300 mm an axis."""
    shift = st.floats(-300, 300)
    return st.builds(Rigid.from_rotvec, rotvecs(), st.tuples(shift, shift, shift))
