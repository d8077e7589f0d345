"""Random contrast: a table from the bytes of a picture to intensities."""

from __future__ import annotations

import numpy as np

from .sources import LEFT

TIED = 0.9
"""Share of label images whose two halves have the same contrast."""


def random_contrast(kind: str, rng: np.random.Generator, *, own: bool = False) -> np.ndarray:
    """256 intensities, 0–1, for a picture of ``kind``; byte 0 is background and gives 0.

    Labels each get a brightness of their own. Images keep theirs up to gamma (60 %), are inverted (15 %), or go through a
    random smooth curve, which need not be monotonous (25 %). With ``own`` all keep theirs.
    """
    table = _labels(rng) if kind == "labels" else _image(rng, own=own)
    table[0] = 0.0
    return table.astype(np.float32)


def _labels(rng: np.random.Generator) -> np.ndarray:
    right = rng.uniform(0, 1, LEFT)
    left = right if rng.random() < TIED else rng.uniform(0, 1, LEFT)
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
