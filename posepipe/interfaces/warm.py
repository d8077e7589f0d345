"""What a process keeps between nodes: networks, and the last image as it is compared with its template.

The stages of an image that run in one process share the prepared brain and the terms of the comparison, as in
:class:`posepipe.Aligner`; and images share the networks. A file that has changed is read again. What is kept is small: brains on a grid of
1.6 mm, and the networks' weights.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..brainmask.finder import BrainFinder
    from ..matching.brain import Brain
    from ..matching.comparison import Comparison
    from ..matching.target import Target
    from ..pose.coordinate_networks import PoseNetworks

Stamp = tuple[str, int, int]


def stamp(path: str | Path) -> Stamp:
    """Path, time of the last change (ns) and size of a file."""
    about = Path(path).stat()
    return str(path), about.st_mtime_ns, about.st_size


def brain_of(image: Any, mask: Any, files: tuple[str, str], device: str = "cpu") -> Brain:
    """``image`` and ``mask`` (volumes, read from ``files``) prepared for the comparison."""
    known = (stamp(files[0]), stamp(files[1]), device)
    if known not in _brains:
        from ..matching.brain import Brain
        from ..matching.target import SPACING

        made = Brain.prepare(image, mask, SPACING, device)
        while len(_brains) >= _KEPT:
            del _brains[next(iter(_brains))]
        _brains[known] = made
    return _brains[known]


_KEPT = 2
"""Prepared brains kept: those of one image, as it is and converted."""
_brains: dict[tuple[Stamp, Stamp, str], Brain] = {}


def comparison_of(image: Any, mask: Any, files: tuple[str, str], target: Target, device: str) -> Comparison:
    """The comparison of ``image`` within ``mask`` (read from ``files``) with ``target``."""
    return _comparison(brain_of(image, mask, files, device), target)


@lru_cache(maxsize=1)
def _comparison(brain: Brain, target: Target) -> Comparison:
    from ..matching.comparison import Comparison

    return Comparison(brain, target)


def pose_networks(weights: Path | None, device: str) -> PoseNetworks:
    """The default networks, with those of the folder ``weights`` before the package's."""
    return _pose_networks(weights, _stamps(weights), device)


@lru_cache(maxsize=1)
def _pose_networks(weights: Path | None, _changed: tuple[Stamp, ...], device: str) -> PoseNetworks:
    from ..pose.coordinate_networks import PoseNetworks

    return PoseNetworks(weights, device=device)


def brain_finder(weights: Path | None, device: str) -> BrainFinder:
    """The networks that find the brain, with those of the folder ``weights`` before the package's."""
    return _brain_finder(weights, _stamps(weights), device)


@lru_cache(maxsize=1)
def _brain_finder(weights: Path | None, _changed: tuple[Stamp, ...], device: str) -> BrainFinder:
    from ..brainmask.finder import BrainFinder

    return BrainFinder(weights, device)


def _stamps(weights: Path | None) -> tuple[Stamp, ...]:
    """The files of a folder of weights, as they are now."""
    return () if weights is None else tuple(stamp(path) for path in sorted(weights.iterdir()) if path.is_file())
