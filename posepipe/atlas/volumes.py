"""Brain volume by age, from the brain masks of an atlas's cohorts."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import PosepipeError
from .library import Template

logger = logging.getLogger(__name__)

SMALL, LARGE = 0.65, 1.5
"""Plausible range of the ratio of a brain mask's volume to the template's at the same age. Set by judgement. Correct masks in the data:
newborns A01–A16 on Serag 0.68–1.22, the fetus on CRL 1.11, CHN on CRL 0.93–1.17; with spina bifida, FidonSBA on CRL, 0.53–1.05. The
standard deviation of the log ratio is 0.15 in A01–A12 on Serag and 0.08 in CHN on CRL; with the first, the limits are at 2.8 and 2.6
standard deviations."""
SIZE_DEVIATION = 0.05
"""Standard deviation of the log radius among brains of one age, about that of the newborns A01–A12 on Serag. In slice registration it is
the prior of the scale. There the errors with 0.03 and 0.06 were equal, and smaller than with a fixed scale
(:mod:`posepipe.bench.slice_register`)."""
TOO_SMALL, TOO_LARGE = 0.5, 1.35
"""Limits of the ratio of a brain mask's volume to that of the youngest, and of the oldest, cohort, beyond which it is outside the ages of
the atlas. No correct mask lies below the first: the smallest, FidonSBA of 21 weeks, has 0.58 of CRL's. The second lies midway between the
largest newborn (A02: 1.22 times Serag's of 44 weeks) and infants of three months (BCP: 1.51); a child of six years has 2.1, an adult
2.9."""


@lru_cache(maxsize=512)
def _millilitres(path: Path, is_mask: bool, _changed: int) -> float:
    from ..imaging.inside import load_mask
    from ..imaging.mask import nonzero_mask
    from ..imaging.volume import load_volume

    mask = load_mask(path) if is_mask else nonzero_mask(load_volume(path)).volume
    return float(np.count_nonzero(mask.data)) * mask.voxel_volume / 1000


def brain_millilitres(template: Template) -> float:
    """Volume (ml) of a cohort's brain mask, or of the nonzero voxels of its image if it has no mask. Read once.

    Raises :class:`~posepipe.errors.ImageError` or :class:`~posepipe.errors.MaskError` for files that cannot be used.
    """
    path = template.mask or template.image
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _millilitres(path, template.mask is not None, changed)


@dataclass(frozen=True)
class VolumeRange:
    """Volumes (ml) of the smallest and the largest brain in the available atlases, and their names: ``CRL+21``, ``Serag+44``."""

    smallest: float
    youngest: str
    largest: float
    oldest: str

    @classmethod
    def of(cls, template: Template, ends: Iterable[Template] = ()) -> VolumeRange:
        """The range over the ``template`` and the first and last cohorts of the available series
        (:func:`~posepipe.atlas.candidates.end_templates`); unreadable ones are skipped, which is logged.

        Raises a :class:`~posepipe.errors.PosepipeError` if the template itself cannot be read.
        """
        sizes = {template.space: brain_millilitres(template)}
        for end in ends:
            try:
                sizes.setdefault(end.space, brain_millilitres(end))
            except PosepipeError as error:
                logger.warning("%s does not count among the sizes of brains: %s", end.space, error)
        small, large = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        return cls(sizes[small], small, sizes[large], large)

    def outside(self, millilitres: float) -> str:
        """Reason why a brain of ``millilitres`` is outside the ages of these atlases; empty if it is not.

        >>> VolumeRange(90, "CRL+21", 518, "Serag+44").outside(631)
        ''
        >>> VolumeRange(90, "CRL+21", 518, "Serag+44").outside(1516).split(": ")[1]
        'the brain is older, or not all is brain'
        """
        if millilitres > TOO_LARGE * self.largest:
            return (
                f"the brain mask holds {millilitres:.0f} ml, {millilitres / self.largest:.1f} times as much as the largest of the atlas "
                f"({self.oldest}, {self.largest:.0f} ml): the brain is older, or not all is brain"
            )
        if millilitres < TOO_SMALL * self.smallest:
            return (
                f"the brain mask holds {millilitres:.0f} ml, {millilitres / self.smallest:.2f} times as much as the smallest of the atlas "
                f"({self.youngest}, {self.smallest:.0f} ml): the brain is younger, or only a part of it"
            )
        return ""


class GrowthCurve:
    """Brain volume as a function of age, by cohorts of increasing age; only the masks that are needed are read.

    ``read`` gives the volume (ml) of a cohort (default: :func:`brain_millilitres`).
    """

    def __init__(self, templates: Sequence[Template], read: Callable[[Template], float] = brain_millilitres) -> None:
        self._templates, self._read = sorted(templates, key=lambda t: t.age), read

    def expected(self, weeks: float) -> float:
        """Volume (ml) at an age, by linear interpolation of its logarithm; constant beyond the first and last cohort."""
        ages = [t.age for t in self._templates]
        k = bisect_left(ages, weeks)
        near = self._templates[max(k - 1, 0) : k + 1]
        return float(np.exp(np.interp(weeks, [t.age for t in near], [np.log(self._read(t)) for t in near])))

    def weeks_of(self, millilitres: float) -> float:
        """Age (weeks) at which a brain has this volume, within the range of the cohorts."""
        k = bisect_left(self._templates, millilitres, key=self._read)
        near = sorted(self._templates[max(k - 1, 0) : k + 1], key=self._read)  # cohorts of real atlases do not always grow
        return float(np.interp(np.log(millilitres), [np.log(self._read(t)) for t in near], [t.age for t in near]))

    def doubt(self, millilitres: float, weeks: float) -> str:
        """Reason why a volume of ``millilitres`` is implausible at ``weeks``; empty if it is plausible (:data:`SMALL`, :data:`LARGE`)."""
        ratio = millilitres / self.expected(weeks)
        if SMALL <= ratio <= LARGE:
            return ""
        low, high = self.weeks_of(millilitres / LARGE), self.weeks_of(millilitres / SMALL)
        first, last = self._templates[0], self._templates[-1]
        usual = f"so much is usual at {low:.0f} to {high:.0f} weeks"
        if millilitres > LARGE * self._read(last):
            usual = f"so much is not usual even at {last.age:g} weeks, where {last.atlas} ends"
        elif millilitres < SMALL * self._read(first):
            usual = f"so little is not usual even at {first.age:g} weeks, where {first.atlas} begins"
        return (
            f"the age cannot be determined: the image looks like {weeks:g} weeks, but its brain mask holds {millilitres:.0f} ml, "
            f"{ratio:.2f} times the atlas's at that age; {usual}: check the mask, or give the age"
        )
