"""How large brains are at each age, as the brain masks of an atlas's cohorts have it."""

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
"""Volume of a brain mask over the template's, a ratio of millilitres, outside of which it is implausible for the age. Set by judgement.
Sound brains of the data set: newborns A01–A16 on Serag 0.68–1.22, the fetus on CRL 1.11, CHN on CRL 0.93–1.17; with spina bifida,
FidonSBA on CRL, 0.53–1.05. The logarithm's standard deviation is 0.15 in A01–A12 about Serag, 0.08 in CHN about CRL: with the first
these are 2.8 and 2.6 standard deviations."""
TOO_SMALL, TOO_LARGE = 0.5, 1.35
"""Volume of a brain mask over that of the youngest and of the oldest cohort, beyond which it is of no age of the atlas. Below the first
lies no sound brain: the smallest, FidonSBA of 21 weeks, has 0.58 of CRL's. The other lies midway between the largest newborn, A02 with
1.22 times Serag's of 44 weeks, and the infants of three months, BCP, with 1.51; a child of six years has 2.1, an adult 2.9."""


@lru_cache(maxsize=512)
def _millilitres(path: Path, is_mask: bool, _changed: int) -> float:
    from ..imaging.inside import load_mask
    from ..imaging.mask import nonzero_mask
    from ..imaging.volume import load_volume

    mask = load_mask(path) if is_mask else nonzero_mask(load_volume(path)).volume
    return float(np.count_nonzero(mask.data)) * mask.voxel_volume / 1000


def brain_millilitres(template: Template) -> float:
    """Volume (ml) of a cohort's brain mask, or of what is not 0 in its image where it has none. Read once.

    Raises :class:`~posepipe.errors.ImageError` or :class:`~posepipe.errors.MaskError` for files that cannot be used.
    """
    path = template.mask or template.image
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _millilitres(path, template.mask is not None, changed)


@dataclass(frozen=True)
class VolumeRange:
    """Volumes (ml) of the smallest and the largest brain of the atlases at hand, and their names: ``CRL+21``, ``Serag+44``."""

    smallest: float
    youngest: str
    largest: float
    oldest: str

    @classmethod
    def of(cls, template: Template, ends: Iterable[Template] = ()) -> VolumeRange:
        """Of the ``template`` that is used and the cohorts at the ends of the series at hand, since brains grow
        (:func:`~posepipe.atlas.candidates.end_templates`); those that cannot be read are left out, which is logged.

        Raises a :class:`~posepipe.errors.PosepipeError` where the template itself cannot be read.
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
        """Why a brain of so many ml is of no age of these atlases; empty where it may be.

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
    """Volume against age by cohorts of rising age; few masks are read, those that are needed.

    ``read`` gives the volume (ml) of a cohort (default: :func:`brain_millilitres`).
    """

    def __init__(self, templates: Sequence[Template], read: Callable[[Template], float] = brain_millilitres) -> None:
        self._templates, self._read = sorted(templates, key=lambda t: t.age), read

    def expected(self, weeks: float) -> float:
        """Volume (ml) at an age, the logarithm interpolated; beyond the cohorts that of the first or last."""
        ages = [t.age for t in self._templates]
        k = bisect_left(ages, weeks)
        near = self._templates[max(k - 1, 0) : k + 1]
        return float(np.exp(np.interp(weeks, [t.age for t in near], [np.log(self._read(t)) for t in near])))

    def weeks_of(self, millilitres: float) -> float:
        """Age at which a brain has this volume, within those of the cohorts."""
        k = bisect_left(self._templates, millilitres, key=self._read)
        near = sorted(self._templates[max(k - 1, 0) : k + 1], key=self._read)  # cohorts of real atlases do not always grow
        return float(np.interp(np.log(millilitres), [np.log(self._read(t)) for t in near], [t.age for t in near]))

    def doubt(self, millilitres: float, weeks: float) -> str:
        """Why a brain of so many ml is not of this age; empty where it may be (:data:`SMALL`, :data:`LARGE`)."""
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
            f"the age cannot be told: the image looks like {weeks:g} weeks, but its brain mask holds {millilitres:.0f} ml, {ratio:.2f} "
            f"times the atlas's at that age; {usual}: check the mask, or give the age"
        )
