"""The filter file (``--bids-filter-file``): selection of images by entities, in fMRIPrep's format."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import BidsError, UsageError
from ..files import parse_json
from .entities import ENTITIES, short_name
from .image import InputImage
from .reading import read_text

logger = logging.getLogger(__name__)

CONTRASTS = {"t1w": "T1w", "t2w": "T2w"}
_ANY = {"*", "Query.ANY"}
_NONE = {"Query.NONE"}
_OPTIONAL = {"Query.OPTIONAL"}
_OTHER_FIELDS = {"suffix", "datatype", "extension"}
Wanted = dict[str, dict[str, Any] | None]


def read_filter_file(path: str | Path) -> dict[str, Any]:
    """Read a filter file. Raises :class:`~posepipe.errors.UsageError` if it is missing, not JSON, or not an object."""
    path = Path(path)
    try:
        text = read_text(path)
    except BidsError as error:
        msg = f"{error} (--bids-filter-file)"
        raise UsageError(msg) from error
    if text is None:
        msg = f"{path}: the BIDS filter file cannot be read (no such file); give an existing file"
        raise UsageError(msg)
    try:
        filters = parse_json(text)
    except ValueError as error:
        msg = f"{path}: the BIDS filter file is not valid JSON ({error}); repair it"
        raise UsageError(msg) from error
    if filters is None:
        raise _no_object(str(path), filters)
    parse_filters(filters, source=str(path))
    return filters


def parse_filters(filters: Mapping[str, Any] | None, source: str = "filters") -> Wanted:
    """Validate a filter and convert it to short entity names: contrast → (entity → wanted value), or None to exclude the contrast.

    A value is a label, a number, a list of either, null (the entity must be absent), ``"*"`` (must be present).
    Keys other than ``t1w`` and ``t2w`` belong to other apps; they are logged and ignored. Raises
    :class:`~posepipe.errors.UsageError` for an unknown entity.

    >>> parse_filters({"t2w": {"reconstruction": "svr"}})
    {'T2w': {'rec': 'svr'}}
    """
    if not isinstance({} if filters is None else filters, Mapping):
        raise _no_object(source, filters)
    wanted: Wanted = {}
    for key, query in ({} if filters is None else filters).items():
        contrast = CONTRASTS.get(key.lower())
        if contrast is None:
            logger.warning("%s: %r is no contrast of posepipe (t1w, t2w): left alone", source, key)
        elif query is None:
            wanted[contrast] = None
        elif isinstance(query, Mapping):
            wanted[contrast] = {_field(name, source): _value_wanted(name, value, source) for name, value in query.items()}
        else:
            msg = f"{source}: {key!r} must hold an object of entities, or null to leave it out, not {str(query)[:60]!r}; correct it"
            raise UsageError(msg)
    return wanted


def _no_object(source: str, found: Any) -> UsageError:
    example = '{"t2w": {"reconstruction": "svr"}}'
    return UsageError(f"{source}: expected an object such as {example}, found {type(found).__name__}; correct it")


def _field(name: str, source: str) -> str:
    short = name if name in _OTHER_FIELDS else short_name(name)
    if short is None:
        known = sorted({*_OTHER_FIELDS, *(n for pair in ENTITIES for n in pair)})
        near = get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}? Correct it" if near else f"; use one of: {', '.join(known)}"
        msg = f"{source}: unknown entity {name!r}{hint}"
        raise UsageError(msg)
    return short


def _value_wanted(name: str, value: Any, source: str) -> Any:
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, (Mapping, list, tuple)):
            msg = f"{source}: {name!r} cannot be {str(one)[:60]}; give a label, a number, a list of them, or null"
            raise UsageError(msg)
    return value


def matches(image: InputImage, wanted: Wanted) -> bool:
    """Whether ``image`` matches the filter; all images of a contrast without a filter match."""
    query = wanted.get(image.suffix, {})
    if query is None:
        return False
    return all(_agrees(_value(image, name), want) for name, want in query.items())


def _value(image: InputImage, name: str) -> str | None:
    if name == "suffix":
        return image.suffix
    if name == "datatype":
        return "anat"
    if name == "extension":
        return ".nii.gz" if image.path.name.endswith(".gz") else ".nii"
    return image.entities.get(name)


def _agrees(value: str | None, want: Any) -> bool:
    if isinstance(want, (list, tuple)):
        return any(_agrees(value, one) for one in want)
    if want is None or want in _NONE:
        return value is None
    if want in _OPTIONAL:
        return True
    if value is None:
        return False
    if want in _ANY:
        return True
    text = str(want)
    # an index is a number: run 1 is also written run-01
    return value == text or (value.isdecimal() and text.isdecimal() and value.lstrip("0") == text.lstrip("0"))
