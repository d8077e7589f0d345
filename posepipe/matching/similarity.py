"""Similarity measures of an image and a template at a pose, as they are reported."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..geometry import Rigid
from ..imaging.sampling import sample, tensor
from .brain import Brain

BINS = 32
"""Bins of joint histograms in each direction, of NMI and of Mattes' mutual information, as is usual for the latter."""


def similarity(image: Brain, template: Brain, pose: Rigid) -> dict[str, float]:
    """``NCC`` and ``NMI`` of the intensities inside both masks, and ``Dice`` of the masks, at ``pose`` (template → image).

    NMI is Studholme's ``(H(A) + H(B)) / H(A, B)``, 1 to 2, from a joint histogram of 32 × 32 bins. If the masks overlap in fewer than 100
    voxels, NCC is 0 and NMI is 1.
    """
    index = (template.mask > 0.05).nonzero()
    where = index.to(torch.float32) * template.spacing + tensor(template.origin, template.image.device)
    flat = tuple(index.T)
    ours, inside = template.image[flat], template.mask[flat]
    rotation = tensor(pose.rotation, where.device)
    there = where @ rotation.T + tensor(pose.translation, where.device)
    theirs, weight = sample(torch.stack([image.image, image.mask]), image.world_to_voxel, there)
    both = (weight > 0.5) & (inside > 0.5)
    # minimum instead of product: a mask with partial-volume voxels then has Dice 1 with itself
    joint = float(torch.minimum(weight, inside).sum()) * template.spacing**3
    sizes = float(inside.sum()) * template.spacing**3 + float(image.mask.sum()) * image.spacing**3
    if int(both.sum()) < 100:
        return {"NCC": 0.0, "NMI": 1.0, "Dice": 2 * joint / sizes}
    a, b = ours[both], theirs[both]
    return {"NCC": _ncc(a, b), "NMI": _nmi(a, b), "Dice": 2 * joint / sizes}


def _ncc(a: Tensor, b: Tensor) -> float:
    a, b = (a - a.mean()).double(), (b - b.mean()).double()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))


def _nmi(a: Tensor, b: Tensor) -> float:
    joint = np.bincount(_levels(a) * BINS + _levels(b), minlength=BINS * BINS).reshape(BINS, BINS)
    p = joint / joint.sum()
    total = _entropy(p)
    return float((_entropy(p.sum(0)) + _entropy(p.sum(1))) / total) if total > 0 else 1.0


def _levels(x: Tensor) -> np.ndarray:
    """Bins 0 to BINS − 1, of equal width between the 1st and 99th percentile."""
    values = x.cpu().numpy()
    low, high = np.percentile(values, [1, 99])
    return np.clip((values - low) / max(high - low, 1e-6) * BINS, 0, BINS - 1).astype(np.int64)


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
