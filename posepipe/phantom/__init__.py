"""A synthetic fetal and newborn brain of any age from 21 to 44 weeks, for demonstrations, tests and documentation.

The phantom is generated from formulas, without image data. **Atlas pose: +x right, +y anterior, +z superior, the
centre of the brain mask near the world's origin.** Left and right differ as in human brains (torque of the hemispheres, a
longer left Sylvian fissure, a larger left occipital horn), so that a mirrored phantom can be distinguished.

>>> brain = brain_labels(28, spacing=2.0)
>>> image = render(brain, 28, "T2w")
>>> bool((image.data[brain.data == 0] == 0).all())
True
"""

from __future__ import annotations

from .brain import LABELS, brain_labels, brain_mask, render
from .subject import Deformation, random_deformation, random_directions, subject

__all__ = [
    "LABELS",
    "Deformation",
    "brain_labels",
    "brain_mask",
    "random_deformation",
    "random_directions",
    "render",
    "subject",
]
