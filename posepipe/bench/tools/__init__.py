"""Registration tools of others, and posepipe's own ways, behind one interface: :data:`TOOLS`, by name."""

from __future__ import annotations

from .base import Options, Registered, Tool
from .elastix import Elastix
from .fireants import FireAnts
from .greedy import GreedyMoments, GreedySearch
from .itk_ants import AntsAxes, AntsRigid, AntsSearch
from .mrtrix import Mrtrix
from .ours import Ours
from .simpleitk import SimpleItk

__all__ = ["TOOLS", "Options", "Registered", "Tool"]

OURS = ("search+torch", "search+ants", "deep", "deep+torch", "deep+ants", "auto+torch", "auto+ants")
TOOLS: dict[str, Tool] = {
    "ants": AntsRigid(),
    "ants-affine-initializer": AntsSearch(),
    "ants-axes": AntsAxes(),
    "greedy-moments": GreedyMoments(),
    "greedy-search": GreedySearch(),
    "simpleitk-24": SimpleItk(),
    "elastix": Elastix(),
    "mrregister": Mrtrix(),
    "fireants": FireAnts(),
    **{name: Ours(*name.split("+")) for name in OURS},
}
"""Name → how an image is registered to its template."""
