"""The order in which the slices of a stack were acquired: from the sidecar, else assumed, with a note."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BidsError
from ..geometry import Rigid, so3
from ..geometry.so3 import Array

SECONDS_PER_SLICE = 1.5
"""Assumed time between slices, seconds, if not known: the middle of the 1–2 s of single-shot T2 stacks. Twin choice and
smoothing use only the order; the seconds are for display."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """``times`` (n,): acquisition time of each slice, seconds, by its number along the slice axis.

    ``source`` is ``SliceTiming``, ``given`` or ``guessed``; ``note`` states the assumption, empty if there is none.
    """

    times: Array
    source: str
    note: str = ""

    @property
    def order(self) -> npt.NDArray[np.intp]:
        """Slice numbers (n,) in order of acquisition; among simultaneous slices the lower number comes first."""
        return np.argsort(self.times, kind="stable")

    def __len__(self) -> int:
        return len(self.times)


def interleaved(n: int, step: int = 2) -> npt.NDArray[np.intp]:
    """Slice numbers (n,) in order of acquisition with ``step`` interleaves; 1 is sequential.

    >>> interleaved(7, 3)
    array([0, 3, 6, 1, 4, 2, 5])
    """
    if n < 1 or step < 1:
        msg = f"a stack has at least one slice and one interleave, not {n} and {step}"
        raise ValueError(msg)
    return np.concatenate([np.arange(first, n, step) for first in range(min(step, n))])


def in_order(order: npt.ArrayLike, seconds: float = SECONDS_PER_SLICE) -> Array:
    """Acquisition times (n,), s, by slice number, for slices acquired in ``order`` (n,) with an interval of ``seconds``."""
    order = np.asarray(order)
    times = np.empty(len(order))
    times[order] = seconds * np.arange(len(order))
    return times


def from_sidecar(sidecar: Mapping[str, Any], n: int, axis: int = 2) -> Acquisition:
    """Order of ``n`` slices along voxel ``axis`` from BIDS ``SliceTiming`` and ``SliceEncodingDirection``; without timing it is assumed.

    With a direction that ends in ``-`` the first time is that of the last slice (BIDS). Raises :class:`~posepipe.errors.BidsError` for
    times that do not match the stack; they are never replaced by an assumption here.
    """
    times = sidecar.get("SliceTiming")
    if times is None:
        return guessed(n, "the sidecar has no SliceTiming")
    direction = str(sidecar.get("SliceEncodingDirection", "ijk"[axis]))
    try:
        seconds = np.array(times, dtype=float)
    except (TypeError, ValueError) as error:
        msg = f"SliceTiming is not a list of seconds ({error}); correct the sidecar"
        raise BidsError(msg) from error
    if seconds.shape != (n,) or not np.isfinite(seconds).all() or (seconds < 0).any():
        msg = f"SliceTiming must hold {n} times in seconds, one for each slice; it has shape {seconds.shape}; correct the sidecar"
        raise BidsError(msg)
    if direction.rstrip("-") != "ijk"[axis]:
        msg = f"SliceEncodingDirection is {direction}, but the image is thickest along {'ijk'[axis]}; correct the sidecar"
        raise BidsError(msg)
    return Acquisition(seconds[::-1].copy() if direction.endswith("-") else seconds, "SliceTiming")


def guessed(n: int, why: str, step: int = 2) -> Acquisition:
    """``step`` interleaves, ascending, as in most fetal T2 stacks; ``why`` (the reason for the assumption) goes into the note."""
    kind = "sequential" if step == 1 else f"{step} interleaves"
    return Acquisition(in_order(interleaved(n, step)), "guessed", f"{why}: {kind}, ascending, assumed")


def candidate_orders(n: int) -> list[int]:
    """Numbers of interleaves that a stack of ``n`` slices may have: 1 to √n."""
    return list(range(1, max(2, math.isqrt(n)) + 1))


def guessed_from_poses(poses: Sequence[Rigid | None], center: npt.ArrayLike) -> Acquisition:
    """The order with the least motion between successive slices, from their ``poses`` (by slice number, atlas → image; None: not known).

    The measure of motion is the median over successive slices of the angle (degrees) plus the displacement (mm) of the brain's ``center``
    (3,), atlas mm; the median is robust to sudden motion. With fewer than six poses, or if no order is at least 10 % better than two
    interleaves, the result is :func:`guessed`. Ascending and descending order cannot be distinguished.
    """
    n = len(poses)
    known = [p is not None for p in poses]
    if sum(known) < 6:
        return guessed(n, "no SliceTiming, and too few poses to guess from")
    rotation = np.stack([np.eye(3) if p is None else p.rotation for p in poses])
    place = np.stack([np.zeros(3) if p is None else p.apply(center) for p in poses])
    moved = {}
    for step in candidate_orders(n):
        order = np.array([i for i in interleaved(n, step) if known[i]])
        a, b = order[:-1], order[1:]
        change = np.degrees(so3.geodesic_distance(rotation[a], rotation[b])) + np.linalg.norm(place[a] - place[b], axis=1)
        moved[step] = float(np.median(change))
    best = min(moved, key=lambda s: moved[s])
    if best != 2 and moved[best] >= 0.9 * moved[2]:
        return guessed(n, "no SliceTiming, and the slices' poses do not determine the order")
    return guessed(n, "no SliceTiming, guessed from the slices' poses", best)
