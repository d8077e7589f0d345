"""Which contrast an image has, as it looks against a template that it was aligned to."""

from __future__ import annotations

import torch

from ..geometry import Rigid
from ..imaging.sampling import sample, tensor
from ..matching.brain import Brain
from ..matching.channels import texture
from ..matching.target import Target

RIM_MM = 3.5
"""About as much of the image's mask is left out at its rim, where masks differ in how they treat the outer fluid."""
MARGIN = 0.15
"""A correlation nearer to 0 tells nothing (docs/results/measured-contrast.md)."""
POINTS, FEWEST = 20_000, 300
OTHER = {"T1w": "T2w", "T2w": "T1w"}


def contrast_seen(brain: Brain, target: Target, pose: Rigid) -> tuple[str | None, float]:
    """The contrast that ``brain`` seems to have (``T1w``, ``T2w``, or None: it cannot be told), and the correlation that tells.

    ``brain`` is an image as it was scanned, at the target's spacing; ``pose`` (template → image, RAS mm) must be right to some degrees.
    Correlated are intensities relative to their surroundings at 3.2 mm, inside both masks: in newborn and fetal brains T1w is by and large
    T2w turned over, so they agree with a template of the same contrast (positive) and disagree with one of the other (negative).
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
