"""Random contrast: tables from the bytes of a source volume to intensities."""

from __future__ import annotations

import numpy as np

from .sources import LEFT

SYMMETRIC_SHARE = 0.9
"""Share of images synthesised from label maps whose hemispheres have the same contrast."""


def random_contrast(kind: str, rng: np.random.Generator, *, own: bool = False) -> np.ndarray:
    """Table (256,) of intensities 0–1 for a source volume of ``kind``; byte 0 is background and gives 0.

    Label maps: a uniform random intensity for each label. Images: a random gamma (60 %), a gamma and inversion (15 %), or a random
    piecewise linear curve, which need not be monotonous (25 %). With ``own`` always a gamma.
    """
    table = _labels(rng) if kind == "labels" else _image(rng, own=own)
    table[0] = 0.0
    return table.astype(np.float32)


def _labels(rng: np.random.Generator) -> np.ndarray:
    right = rng.uniform(0, 1, LEFT)
    left = right if rng.random() < SYMMETRIC_SHARE else rng.uniform(0, 1, LEFT)
    right[0] = left[0] = 0.0  # no label, on either side
    return np.concatenate([right, left])


def _image(rng: np.random.Generator, *, own: bool) -> np.ndarray:
    x = np.linspace(0, 1, 256)
    how = 1.0 if own else rng.random()
    if how < 0.25:
        nodes = np.linspace(0, 1, rng.integers(3, 7))
        return np.interp(x, nodes, rng.uniform(0, 1, len(nodes)))
    curve = x ** np.exp(rng.normal(0, 0.35))
    return 1 - curve if how < 0.40 else curve
