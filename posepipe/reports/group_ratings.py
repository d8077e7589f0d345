"""The ratings of several reviewers, collected, and their agreement."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from ..errors import RatingError, UsageError
from .group_agreement import kappa
from .ratings import DECISIONS, QUALITIES, Rating, read_ratings

ImageKey = tuple[str, str | None, str]


@dataclass(frozen=True)
class FiledRating:
    """A rating and the file that contains it."""

    rating: Rating
    file: str


@dataclass(frozen=True)
class PairAgreement:
    """Agreement of two raters on the images that both rated.

    ``same_decisions`` is the fraction of equal decisions, ``decision_kappa`` Cohen's kappa of the decisions, ``quality_kappa`` the one of
    the quality with quadratic weights, over the ``qualities`` images to which both gave a quality. NaN: not defined (no common images,
    or both raters always gave the same value).
    """

    raters: tuple[str, str]
    images: int
    same_decisions: float
    decision_kappa: float
    qualities: int
    quality_kappa: float


@dataclass(frozen=True)
class Ratings:
    """The valid ratings, sorted by image and rater; ``problems`` lists files that could not be read, ``notes`` the
    ratings that were left out."""

    filed: tuple[FiledRating, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ratings(self) -> list[Rating]:
        """Without the files."""
        return [filed.rating for filed in self.filed]

    @property
    def raters(self) -> list[str]:
        """Their names, sorted."""
        return sorted({rating.rater for rating in self.ratings})

    def by_image(self) -> dict[ImageKey, list[Rating]]:
        """The ratings of each image, by rater."""
        found: dict[ImageKey, list[Rating]] = defaultdict(list)
        for rating in self.ratings:
            found[key_of(rating)].append(rating)
        return dict(found)

    def agreement(self) -> list[PairAgreement]:
        """The agreement of each pair of raters."""
        by_rater = {name: {key_of(r): r for r in self.ratings if r.rater == name} for name in self.raters}
        return [_agreement(one, other, by_rater[one], by_rater[other]) for one, other in combinations(self.raters, 2)]


def key_of(rating: Rating) -> ImageKey:
    """The key that identifies the rated image."""
    return rating.subject, rating.session, rating.image


def gather(folder: str | Path) -> Ratings:
    """The ratings in the ``*.json`` files of ``folder``; unreadable files are reported and skipped.

    If a rater has rated an image in several files (exports of different days), the latest rating is used. Raises
    :class:`~posepipe.errors.UsageError` for a folder that is missing or has no JSON file.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        what = "holds no *.json file" if folder.is_dir() else "no such folder"
        msg = f"--ratings {folder}: {what}; name the folder that the exported ratings were put into"
        raise UsageError(msg)
    found: list[FiledRating] = []
    problems = []
    for path in files:
        try:
            found += [FiledRating(rating, path.name) for rating in read_ratings(path)]
        except RatingError as error:
            problems.append(str(error))
    kept = _latest(found)
    left_out = len(found) - len(kept)
    notes = (f"{left_out} ratings are older than another of the same image by the same rater, and do not count",)
    return Ratings(tuple(kept), tuple(problems), notes if left_out else ())


def _latest(found: Iterable[FiledRating]) -> list[FiledRating]:
    kept: dict[tuple[ImageKey, str], FiledRating] = {}
    for filed in found:
        key = (key_of(filed.rating), filed.rating.rater)
        if key not in kept or filed.rating.rated_at >= kept[key].rating.rated_at:
            kept[key] = filed
    return sorted(kept.values(), key=lambda f: (f.rating.subject, f.rating.session or "", f.rating.image, f.rating.rater))


def _agreement(one: str, other: str, a: dict[ImageKey, Rating], b: dict[ImageKey, Rating]) -> PairAgreement:
    shared = [key for key in a if key in b]
    decided = [a[key].decision for key in shared], [b[key].decision for key in shared]
    both = [key for key in shared if a[key].quality is not None and b[key].quality is not None]
    qualities = [a[key].quality for key in both], [b[key].quality for key in both]
    same = sum(x == y for x, y in zip(*decided, strict=True))
    return PairAgreement(
        (one, other),
        len(shared),
        same / len(shared) if shared else math.nan,
        kappa(*decided, DECISIONS),
        len(both),
        kappa(*qualities, QUALITIES, weights="quadratic"),
    )


def mean_kappa(values: Sequence[float]) -> float:
    """Mean over the pairs for which kappa is defined; NaN if there are none.

    >>> mean_kappa([0.5, float("nan"), 0.7])
    0.6
    """
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
