"""The contrast of an image, estimated from its correlation with the template that it was aligned to."""

from __future__ import annotations

import torch

from ..geometry import Rigid
from ..imaging.sampling import sample, tensor
from ..matching.brain import Brain
from ..matching.channels import texture
from ..matching.target import Target

RIM_MM = 3.5
"""Erosion of the image's mask, mm, as masks differ in how much extra-axial CSF they include."""
MARGIN = 0.15
"""Absolute correlation below which the contrast is not determined (docs/results/measured-contrast.md)."""
POINTS, FEWEST = 20_000, 300
"""Points that are compared, and the least number of them inside both masks; fewer say nothing. Numerical: not tuned."""
OTHER = {"T1w": "T2w", "T2w": "T1w"}


def apparent_contrast(brain: Brain, target: Target, pose: Rigid) -> tuple[str | None, float]:
    """The apparent contrast of ``brain`` (``T1w``, ``T2w``, or None: not determined), and the correlation it is derived from.

    ``brain`` is the acquired image (not a converted one) at the target's spacing; ``pose`` (template → image, RAS mm) must be correct to a
    few degrees. The correlation is that of locally normalised intensities at 3.2 mm, inside both masks. In newborn and fetal brains, T1w
    contrast is roughly the inverse of T2w contrast, so that the correlation is positive for a template of the same contrast and negative
    otherwise.
    """
    level = texture(brain, 2, RIM_MM)
    points, template = level.points(POINTS), target.coarse_texture
    back = ~pose
    there = (points.where + level.center) @ tensor(back.rotation, level.center.device).T + tensor(back.translation, level.center.device)
    value, inside = sample(torch.stack([template.value * template.as_template, template.as_template]), template.world_to_voxel, there)
    both = (inside > 0.5) & (points.weight > 0.5)
    if int(both.sum()) < FEWEST:
        return None, 0.0
    pair = torch.stack([points.value[both], value[both] / inside[both]])
    correlation = float(torch.nan_to_num(torch.corrcoef(pair)[0, 1]))
    if abs(correlation) < MARGIN:
        return None, correlation
    return (target.contrast if correlation > 0 else OTHER[target.contrast]), correlation
