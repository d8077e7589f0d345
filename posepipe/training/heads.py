"""Parts of synthetic heads: face, eyes, jaw, neck and trunk as ellipsoids of random size, position and brightness.

Positions are in the canonical frame (RAS axes, brain radii from the brain's centre). Those of the eyes are means over 23 scans with
marked eyes (ds-epi; standard deviation 0.03 to 0.06 radii, docs/decisions/026-head-landmarks.md). The others were set by hand after fetal
anatomy and vary widely.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .ellipsoids import Ellipsoids
from .fields import chance, uniform


@dataclass(frozen=True)
class Part:
    """An ellipsoid: mean ``center`` and its standard deviation ``jitter``; half axes uniform from ``low`` to ``high``; ``paired``: one on
    each side of the midplane; ``tone`` in T2w: bright (1), dark (−1) or any (0); ``share``: probability of the part. In brain radii."""

    center: tuple[float, float, float]
    jitter: float
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    tone: int = 0
    paired: bool = False
    share: float = 0.9


BODY = (
    Part((0.0, 0.1, -3.2), 0.35, (0.8, 0.7, 1.1), (1.4, 1.2, 1.9)),  # trunk
    Part((0.4, 0.2, -2.7), 0.15, (0.3, 0.3, 0.4), (0.5, 0.5, 0.7), 1, True, 0.6),  # lungs
    Part((0.1, 0.2, -3.7), 0.25, (0.4, 0.4, 0.3), (0.8, 0.7, 0.6), -1, False, 0.6),  # liver
    Part((0.8, 0.3, -2.2), 0.3, (0.2, 0.2, 0.3), (0.4, 0.4, 0.9), 0, True, 0.6),  # shoulders, arms
    Part((0.3, 1.4, -1.3), 0.4, (0.1, 0.1, 0.1), (0.3, 0.3, 0.5), 0, True, 0.5),  # hands
    Part((0.0, -0.1, -1.7), 0.15, (0.3, 0.3, 0.6), (0.6, 0.55, 1.0)),  # neck
)
FACE = (
    Part((0.0, 0.55, -0.95), 0.1, (0.45, 0.4, 0.5), (0.75, 0.65, 0.8)),  # cheeks and jaw
    Part((0.0, 0.15, -0.75), 0.1, (0.3, 0.4, 0.15), (0.6, 0.7, 0.35), -1),  # skull base
    Part((0.5, -0.05, -0.55), 0.08, (0.12, 0.12, 0.08), (0.3, 0.25, 0.2), -1, True, 0.7),  # petrous bones
    Part((0.0, 0.8, -1.2), 0.08, (0.15, 0.2, 0.1), (0.35, 0.4, 0.25)),  # mouth and tongue
    Part((0.0, 0.95, -0.9), 0.06, (0.08, 0.12, 0.1), (0.2, 0.3, 0.25), 1, False, 0.7),  # nose and throat
    Part((0.25, 0.9, -1.35), 0.08, (0.1, 0.2, 0.06), (0.3, 0.4, 0.15), -1, True, 0.6),  # lower jaw
)
SPINE = (
    Part((0.0, -0.3, -1.6), 0.06, (0.12, 0.12, 0.7), (0.2, 0.2, 1.2), 1, False, 0.85),  # spinal canal
    Part((0.0, -0.3, -1.6), 0.06, (0.05, 0.05, 0.7), (0.09, 0.09, 1.2), 0, False, 0.7),  # cord
)
EYE, EYE_JITTER, EYE_RADIUS = (0.395, 0.835, -0.607), 0.06, (0.13, 0.22)
"""Centre of the right eye, the standard deviation of its position, and the range of the eye's radius, in brain radii."""
LENS = (0.06, 0.09)
T1W = 0.25
"""Share of heads with T1w-like contrast: parts that are bright in T2w are dark."""


def add_parts(out: Tensor, parts: tuple[Part, ...], bodies: Ellipsoids, flip: Tensor, generator: torch.Generator) -> Tensor:
    """``out`` (B, 1, S, S, S) with the voxels inside each of ``parts`` set to the part's random brightness, later parts over earlier ones.
    Images with ``flip`` (B, 1, 1, 1, 1) have T1w-like contrast."""
    for part in parts:
        center, size = _sampled(part, len(out), generator)
        inside = (bodies.depth(center, size, paired=part.paired) < 1) & (chance(len(out), part.share, generator) > 0)
        out = torch.where(inside, _tone(part.tone, flip, generator).expand_as(out), out)
    return out


def add_eyes(out: Tensor, bodies: Ellipsoids, outside: Tensor, flip: Tensor, generator: torch.Generator) -> Tensor:
    """``out`` with two eyes where ``outside`` the brain: orbital fat, a bright globe, and a dark lens in its anterior half."""
    n = len(out)
    spot = torch.tensor(EYE, device=out.device) + EYE_JITTER * torch.randn(n, 1, 3, generator=generator, device=out.device)
    radius = uniform(n, *EYE_RADIUS, generator).flatten(2).expand(-1, -1, 3)
    fat = radius * (1 + uniform(n, 0.05, 0.6, generator).flatten(2))
    ahead = torch.tensor([0.0, 0.85, -0.35], device=out.device) * 0.55
    lens = uniform(n, *LENS, generator).flatten(2).expand(-1, -1, 3)
    visible = outside & (chance(n, 0.95, generator) > 0)
    shapes = (
        (bodies.depth(spot, fat, paired=True), 0, 0.7),
        (bodies.depth(spot, radius, paired=True), 1, 1.0),
        (bodies.depth(spot + ahead * radius, lens, paired=True), -1, 0.8),
    )
    for depth, tone, share in shapes:
        here = visible & (depth < 1) & (chance(n, share, generator) > 0)
        out = torch.where(here, _tone(tone, flip, generator).expand_as(out), out)
    return out


def _sampled(part: Part, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random centres and half axes (n, 1, 3) of ``part``, brain radii."""
    device = generator.device
    center = torch.tensor(part.center, device=device) + part.jitter * torch.randn(n, 1, 3, generator=generator, device=device)
    low, high = torch.tensor(part.low, device=device), torch.tensor(part.high, device=device)
    return center, low + (high - low) * torch.rand(n, 1, 3, generator=generator, device=device)


def _tone(tone: int, flip: Tensor, generator: torch.Generator) -> Tensor:
    """Random brightness (n, 1, 1, 1, 1) in [0, 1]: uniform for ``tone`` 0, mostly bright for 1, mostly dark for −1; inverted where
    ``flip``."""
    u = uniform(len(flip), 0, 1, generator)
    if not tone:
        return u
    bright = 1 - 0.7 * u.square()
    return torch.where(flip ^ (tone < 0), 1 - bright, bright)
