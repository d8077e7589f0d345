"""BIDS file names: entities in their official order, and lossless parsing and building of names.

Outputs keep every entity of their input, known or unknown, and indices as written (``run-01``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# (short, long) in the order of the BIDS schema (1.11). Two additions, both as the NiPreps family writes them:
# ``cohort`` beside the ``space`` that it qualifies (the schema places it for templates only), and
# ``from``/``to``/``mode`` of transforms.
ENTITIES: tuple[tuple[str, str], ...] = (
    ("sub", "subject"),
    ("tpl", "template"),
    ("ses", "session"),
    ("sample", "sample"),
    ("task", "task"),
    ("tracksys", "tracksys"),
    ("acq", "acquisition"),
    ("nuc", "nucleus"),
    ("voi", "volume"),
    ("ce", "ceagent"),
    ("trc", "tracer"),
    ("stain", "stain"),
    ("rec", "reconstruction"),
    ("dir", "direction"),
    ("run", "run"),
    ("mod", "modality"),
    ("echo", "echo"),
    ("flip", "flip"),
    ("inv", "inversion"),
    ("mt", "mtransfer"),
    ("part", "part"),
    ("proc", "processing"),
    ("hemi", "hemisphere"),
    ("space", "space"),
    ("cohort", "cohort"),
    ("split", "split"),
    ("recording", "recording"),
    ("chunk", "chunk"),
    ("atlas", "atlas"),
    ("seg", "segmentation"),
    ("scale", "scale"),
    ("res", "resolution"),
    ("den", "density"),
    ("label", "label"),
    ("from", "from"),
    ("to", "to"),
    ("mode", "mode"),
    ("desc", "description"),
)
_RANK = {short: rank for rank, (short, _) in enumerate(ENTITIES)}
_UNKNOWN_RANK = _RANK["from"] - 0.5
# ``staining`` is pybids' name for the schema's ``stain``, and filter files are written with its names
_SHORT = {name: short for short, long in ENTITIES for name in (short, long)} | {"staining": "stain"}
_PAIR = re.compile(r"([0-9A-Za-z]+)-([0-9A-Za-z+]+)")
_STEM_END = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True)
class SplitName:
    """A parsed file name; ``entities`` map short names to labels in BIDS order, ``unparsed`` are the other parts."""

    entities: dict[str, str]
    suffix: str
    extension: str
    unparsed: tuple[str, ...] = ()


def short_name(entity: str) -> str | None:
    """The short name of an entity given by its short or long name; None if there is no such entity.

    >>> short_name("reconstruction"), short_name("rec"), short_name("colour")
    ('rec', 'rec', None)
    """
    return _SHORT.get(entity)


def in_order(entities: Mapping[str, str]) -> dict[str, str]:
    """``entities`` in BIDS order; unknown ones keep their order, before ``from``, ``to``, ``mode`` and ``desc``.

    >>> in_order({"desc": "x", "run": "1", "sub": "01", "rec": "svr"})
    {'sub': '01', 'rec': 'svr', 'run': '1', 'desc': 'x'}
    """
    return dict(sorted(entities.items(), key=lambda item: _RANK.get(item[0], _UNKNOWN_RANK)))


def split_name(name: str) -> SplitName | None:
    """Parse a BIDS file name; None if it is not one (no ``sub-``, an entity twice, no suffix).

    >>> split_name("sub-01_rec-svr_T2w.nii.gz")
    SplitName(entities={'sub': '01', 'rec': 'svr'}, suffix='T2w', extension='.nii.gz', unparsed=())
    """
    stem, dot, rest = name.partition(".")
    *tokens, suffix = stem.split("_")
    entities: dict[str, str] = {}
    unparsed = []
    for token in tokens:
        pair = _PAIR.fullmatch(token)
        if pair is None:
            unparsed.append(token)
        elif pair[1] in entities:
            return None
        else:
            entities[pair[1]] = pair[2]
    if "sub" not in entities or not _STEM_END.fullmatch(suffix):
        return None
    return SplitName(in_order(entities), suffix, dot + rest, tuple(unparsed))


def join_name(entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Build a BIDS file name, with entities in BIDS order.

    >>> join_name({"desc": "brain", "sub": "01"}, "mask", ".nii.gz")
    'sub-01_desc-brain_mask.nii.gz'
    """
    pairs = [f"{key}-{label}" for key, label in in_order(entities).items()]
    return "_".join([*pairs, suffix]) + extension


def bare_label(label: str, prefix: str) -> str:
    """A label without its prefix: ``sub-01`` and ``01`` are the same participant.

    >>> bare_label("sub-01", "sub"), bare_label("01", "sub")
    ('01', '01')
    """
    return label.strip().removeprefix(f"{prefix}-")
