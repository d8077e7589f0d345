"""Ratings that a reviewer gave on subject pages and exported: one JSON file per rater."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import RatingError
from ..files import parse_json

VERSION = 1
#: Possible decisions on an image, from best to worst.
DECISIONS = ("accept", "adjust", "reject")
#: From 1 (worst) to 4 (best).
QUALITIES = (1, 2, 3, 4)
#: key in the file → label on the page.
ARTEFACTS = {
    "wrong-orientation": "Wrong orientation",
    "left-right": "Left and right swapped",
    "mask": "Mask",
    "atlas-age": "Atlas age",
    "motion": "Motion",
}
_KEYS = ("subject", "session", "image", "decision", "quality", "artefacts", "comment", "rated")


@dataclass(frozen=True)
class Rating:
    """One rater's rating of one image.

    ``subject`` and ``session`` are labels without ``sub-`` and ``ses-`` (``session`` None for a dataset without);
    ``image`` is the input file's name without its extension; ``decision`` is one of :data:`DECISIONS`; ``quality`` 1
    to 4, or None if none was given; ``artefacts`` keys of :data:`ARTEFACTS`; ``rated`` an ISO time.
    """

    rater: str
    subject: str
    session: str | None
    image: str
    decision: str
    quality: int | None
    artefacts: tuple[str, ...]
    comment: str
    rated: str

    @property
    def rated_at(self) -> datetime:
        """``rated`` as a time with time zone (default: UTC)."""
        return _time(self.rated)


def read_ratings(path: str | Path) -> list[Rating]:
    """The ratings in a JSON file exported by a page, in the order of the file; for the format see docs/tutorials/qc.md.

    Raises :class:`~posepipe.errors.RatingError` for a file that cannot be read, has another format or version, contains
    an invalid value, or rates an image twice.
    """
    path = Path(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: cannot be read as JSON ({error}); export the ratings again from the page"
        raise RatingError(msg) from error
    try:
        return _ratings(content)
    except RatingError as error:
        msg = f"{path}: {error}; export the ratings again from the page"
        raise RatingError(msg) from error


def _ratings(content: Any) -> list[Rating]:
    if not isinstance(content, dict) or "posepipe_ratings" not in content:
        msg = "no posepipe ratings: there is no key 'posepipe_ratings'"
        raise RatingError(msg)
    version = content["posepipe_ratings"]
    if version != VERSION or isinstance(version, bool):
        msg = f"ratings of version {version!r}, but this posepipe reads version {VERSION}"
        raise RatingError(msg)
    rater = _text(content, "rater", "the file").strip()
    if not rater:
        msg = "'rater' is empty: give the rater a name"
        raise RatingError(msg)
    _check_time(content, "exported", "the file")
    rows = content.get("ratings")
    if not isinstance(rows, list):
        msg = "'ratings' is not a list"
        raise RatingError(msg)
    found: dict[tuple[str, str | None, str], Rating] = {}
    for number, row in enumerate(rows, start=1):
        rating = _rating(row, rater, f"rating {number}")
        key = (rating.subject, rating.session, rating.image)
        if key in found:
            msg = f"rating {number}: {rating.image!r} is rated twice"
            raise RatingError(msg)
        found[key] = rating
    return list(found.values())


def _rating(row: Any, rater: str, where: str) -> Rating:
    if not isinstance(row, dict):
        msg = f"{where} is not an object"
        raise RatingError(msg)
    missing, unknown = [k for k in _KEYS if k not in row], [k for k in row if k not in _KEYS]
    if missing or unknown:
        what = f"lacks {', '.join(map(repr, missing))}" if missing else f"has unknown {', '.join(map(repr, unknown))}"
        msg = f"{where} {what}"
        raise RatingError(msg)
    for key in ("subject", "image"):
        if not _text(row, key, where):
            msg = f"{where}: {key!r} is empty"
            raise RatingError(msg)
    _check_time(row, "rated", where)
    artefacts = row["artefacts"]
    if not isinstance(artefacts, list) or len({str(a) for a in artefacts}) < len(artefacts):
        msg = f"{where}: 'artefacts' is {artefacts!r}, not a list of different words"
        raise RatingError(msg)
    return Rating(
        rater=rater,
        subject=row["subject"],
        session=None if row["session"] is None else _text(row, "session", where),
        image=row["image"],
        decision=_one_of(row["decision"], DECISIONS, "decision", where),
        quality=None if row["quality"] is None else _one_of(row["quality"], QUALITIES, "quality", where),
        artefacts=tuple(_one_of(a, tuple(ARTEFACTS), "artefacts", where) for a in artefacts),
        comment=_text(row, "comment", where),
        rated=row["rated"],
    )


def _one_of(value: Any, allowed: Sequence[Any], key: str, where: str) -> Any:
    """``value`` if it is one of ``allowed``, with the same type (True and 1.0 are not 1)."""
    if type(value) is not type(allowed[0]) or value not in allowed:
        msg = f"{where}: {key!r} is {value!r}, not one of {', '.join(map(str, allowed))}"
        raise RatingError(msg)
    return value


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        msg = f"{where}: {key!r} is {value!r}, not text"
        raise RatingError(msg)
    return value


def _check_time(row: Mapping[str, Any], key: str, where: str) -> None:
    text = _text(row, key, where)
    try:
        _time(text)
    except ValueError as error:
        msg = f"{where}: {key!r} is {text!r}, not an ISO time such as 2026-01-31T09:30:00Z"
        raise RatingError(msg) from error


def _time(text: str) -> datetime:
    from datetime import timezone

    # Python 3.10 parses neither Z nor other numbers of decimals than 3 and 6
    time = datetime.fromisoformat(text.strip().removesuffix("Z") + ("+00:00" if text.strip().endswith("Z") else ""))
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
