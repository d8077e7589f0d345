"""Verdicts on an image, as words, signs and sentences for readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """``key`` is the name in files and styles; ``word`` and ``sign`` are shown to readers and do not depend on colour.

    ``one`` and ``many`` continue the sentences "the image …" and "the images …".
    """

    key: str
    word: str
    sign: str
    one: str
    many: str


PASS = Verdict("pass", "Pass", "✓", "is aligned, no doubt was raised", "are aligned, no doubt was raised")
REVIEW = Verdict(
    "review", "Review", "?", "is aligned, but look at it before you use it", "are aligned, but look at them before use"
)
FAIL = Verdict("fail", "Fail", "✕", "has a pose that is not to be trusted", "have poses that are not to be trusted")
FAILED = Verdict("failed", "Failed", "■", "has no pose: processing stopped", "have no pose: processing stopped")

#: From the least to the most urgent.
ORDER = (PASS, REVIEW, FAIL, FAILED)


def verdict_of(sidecar: Mapping[str, Any]) -> tuple[Verdict, list[str]]:
    """Verdict and reasons that the sidecar of a forward transform holds; without a known verdict, a review.

    >>> verdict_of({"QC": "pass", "QCReasons": []})[0].word
    'Pass'
    >>> verdict_of({})[1]
    ['the sidecar holds no QC verdict']
    """
    reasons = sidecar.get("QCReasons") or []
    reasons = [str(r) for r in ([reasons] if isinstance(reasons, str) else reasons)]
    key = sidecar.get("QC")
    for verdict in (PASS, REVIEW, FAIL):
        if key == verdict.key:
            return verdict, reasons
    missing = "the sidecar holds no QC verdict" if key is None else f"the sidecar's QC verdict {key!r} is not known"
    return REVIEW, [missing, *reasons]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most urgent of ``verdicts``."""
    return max(verdicts, key=ORDER.index)


def headline(verdicts: Iterable[Verdict]) -> tuple[str, str]:
    """Headline: the worst verdict with the number of images that have it, and a sentence with the others.

    >>> headline([PASS])
    ('Pass', 'The image is aligned, no doubt was raised.')
    >>> headline([PASS, REVIEW, PASS])
    ('Review: 1 of 3 images', 'It is aligned, but look at it before you use it. In all: 1 review, 2 pass.')
    """
    found = list(verdicts)
    top = worst(found)
    count = found.count(top)
    if len(found) == 1:
        return top.word, f"The image {top.one}."
    who = "It " + top.one if count == 1 else "They " + top.many
    rest = f" In all: {tally(found)}." if count < len(found) else ""
    return f"{top.word}: {'all ' if count == len(found) else f'{count} of '}{len(found)} images", f"{who}.{rest}"


def tally(verdicts: Iterable[Verdict]) -> str:
    """How many of each, the worst first.

    >>> tally([PASS, REVIEW, PASS])
    '1 review, 2 pass'
    """
    found = list(verdicts)
    return ", ".join(f"{found.count(v)} {v.word.lower()}" for v in reversed(ORDER) if v in found)
