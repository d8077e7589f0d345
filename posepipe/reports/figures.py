"""Figures of a pose: slices before and after, and a drawing of how the head lay.

**Frame: RAS millimetres. A pose maps template points to image points, ``x_image = R x_atlas + t``**, so an image is
shown in the template's space by sampling it at ``pose.apply(template points)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import Rigid
from ..imaging.volume import Float, Volume
from .drawing import head_turn
from .montage import ATLAS, SUBJECT, Layout, Panel, Pen, layout, montage
from .slices import Slice, centroid, contours, cuts, label_contours, sample, voxel_steps

__all__ = [
    "Layout",
    "Panel",
    "Pen",
    "Slice",
    "before_after",
    "centroid",
    "contours",
    "cuts",
    "head_turn",
    "layout",
    "montage",
    "pose_panels",
    "sample",
    "start_pose",
]

BRAIN = Pen("atlas brain outline", ATLAS, width=2.2)
INNER = Pen("atlas structures", ATLAS, width=1.1, alpha=0.6)
MASK = Pen("mask of this image", SUBJECT, width=2.0, dashed=True)


def before_after(
    image: Volume,
    mask: Volume,
    template: Volume,
    template_mask: Volume,
    pose: Rigid,
    *,
    tissues: Volume | None = None,
    inner: Sequence[int] | None = None,
    per_plane: int = 3,
    size: int = 1640,
) -> bytes:
    """One picture (WebP) of an image before and after its pose, above the template itself, with the atlas outlined.

    Rows: the image as its header has it, with the centroid of its mask moved onto the template's; the image by
    ``pose``; the template. Columns: ``per_plane`` (1, 2 or 3) axial, coronal and sagittal slices about the centroid of
    ``template_mask``, the neurological way round. Only these slices are resampled.

    ``mask`` (above 0.5 inside) may have a grid of its own, in the image's world. ``tissues``, a label map in the
    template's world, adds the outlines of its labels, or of those in ``inner``. ``size`` is the width of all panels, in
    pixels. Raises :class:`~posepipe.errors.MaskError` for an empty mask.
    """
    slices = cuts(template_mask, per_plane=per_plane, pixels=size)
    rows = pose_panels(image, mask, template, template_mask, pose, slices, tissues=tissues, inner=inner)
    return montage(
        rows,
        row_titles=("Before", "After", "Template"),
        column_titles=[s.title for s in slices],
        legend=(BRAIN, MASK) if tissues is None else (BRAIN, INNER, MASK),
        group=per_plane,
    )


def pose_panels(
    image: Volume,
    mask: Volume,
    template: Volume,
    template_mask: Volume,
    pose: Rigid,
    slices: Sequence[Slice],
    *,
    tissues: Volume | None = None,
    inner: Sequence[int] | None = None,
) -> list[list[Panel]]:
    """The three rows of :func:`before_after` (before, after, template), one panel for each of ``slices``."""
    brains = [sample(template_mask, s.points) for s in slices]
    atlas = []
    for s, brain in zip(slices, brains, strict=True):
        structures = [] if tissues is None else label_contours(tissues, s, inner)
        atlas.append(((INNER, structures), (BRAIN, contours(brain, voxel_steps(template_mask, s)))))
    poses = (start_pose(mask, template_mask), pose)
    shown = [[sample(image, place.apply(s.points)) for s in slices] for place in poses]
    masks = [[sample(mask, place.apply(s.points)) for s in slices] for place in poses]
    low, high = _window([*shown[0], *shown[1]], [*masks[0], *masks[1]])  # one for both, so that they compare
    rows = []
    for pictures, insides in zip(shown, masks, strict=True):
        own = [(MASK, contours(m, voxel_steps(mask, s))) for s, m in zip(slices, insides, strict=True)]
        row = zip(slices, pictures, atlas, own, strict=True)
        rows.append([Panel((p - low) / (high - low), (*lines, line), s.sides) for s, p, lines, line in row])
    originals = [sample(template, s.points) for s in slices]
    low, high = _window(originals, brains)
    last = zip(slices, originals, atlas, strict=True)
    rows.append([Panel((p - low) / (high - low), lines, s.sides) for s, p, lines in last])
    return rows


def start_pose(mask: Volume, template_mask: Volume) -> Rigid:
    """The pose 'before': no rotation, and the centroid of the template's mask goes to the centroid of the image's."""
    return Rigid(np.eye(3), centroid(mask) - centroid(template_mask))


def _window(pictures: Sequence[Float], masks: Sequence[Float]) -> tuple[float, float]:
    """Values drawn black and white: those of the brain from its darkest to its brightest, outliers left out."""
    values = np.concatenate([p[m > 0.5] for p, m in zip(pictures, masks, strict=True)])
    if values.size == 0:
        values = np.concatenate([p.ravel() for p in pictures])
    darkest, quarter, high = (float(v) for v in np.percentile(values, [0.5, 25, 99.7]))
    if high <= darkest:
        return darkest, darkest + 1.0
    # The rim of a loose mask holds background, which must not set the black of the brain.
    return max(darkest, quarter - 0.6 * (high - quarter)), high
