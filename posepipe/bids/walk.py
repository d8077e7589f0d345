"""The dataset walk: which images a run works on. Only the folders of what was asked for are read."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import BidsError, UsageError
from .entities import bare_label, split_name
from .filters import matches, parse_filters
from .image import InputImage
from .masks import attach_masks

logger = logging.getLogger(__name__)

SUFFIXES = ("T1w", "T2w")
# made by posepipe: never an input, even where its outputs lie in the dataset that is walked
_OWN_DESC = re.compile(r"(?:.+\+)?(?:reoriented|synth)")
_DERIVED = {"space", "cohort", "res", "den", "label", "seg", "atlas", "desc"}

__all__ = ["InputImage", "find_images", "list_subjects"]


def find_images(
    bids_dir: str | Path,
    *,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    filters: Mapping[str, Any] | None = None,
    derivatives: Sequence[str | Path] = (),
    validate: bool = False,
) -> list[InputImage]:
    """Every T1w and T2w image of a raw or derivative BIDS dataset that was asked for, sorted by path.

    Args:
        bids_dir: the dataset; a missing ``dataset_description.json`` is warned about.
        participants: labels with or without ``sub-``; all if empty.
        sessions: labels with or without ``ses-``; all if empty.
        filters: as :func:`~posepipe.bids.filters.parse_filters` takes them.
        derivatives: ``[NAME=]PATH`` of derivative datasets whose brain masks are used.
        validate: also check the names of a raw dataset against the BIDS standard.

    Left out: images already in a template's space (``space-`` with ``cohort-``), posepipe's own outputs, and phase,
    real or imaginary parts. Raises :class:`~posepipe.errors.UsageError` for a participant or session that is not
    there, and :class:`~posepipe.errors.BidsError` for a folder that is no dataset, when nothing is found, or for two
    equal masks.
    """
    root = _dataset(bids_dir)
    wanted = parse_filters(filters)
    asked = _unique(participants, "sub")
    chosen_sessions = _unique(sessions, "ses")
    subjects = _choose(root, list_subjects(root), asked)
    description = _description(root)
    names = _index(root, subjects if asked else None, chosen_sessions)
    present, left_out = _inputs(root, names)
    if validate:
        _check_names(root, description, present)
    _check_sessions(root, subjects, chosen_sessions, present)
    images = [image for image in present if matches(image, wanted)]
    if not images:
        raise BidsError(_nothing(root, subjects, chosen_sessions, filters, present, left_out))
    for message in left_out:
        logger.info("%s", message)
    masks = attach_masks(images, present, derivatives)
    return [replace(image, mask=mask) for image, mask in zip(images, masks, strict=True)]


def list_subjects(bids_dir: str | Path) -> list[str]:
    """Labels of the participants that have a folder in ``bids_dir``, sorted; the folders are not entered."""
    with os.scandir(bids_dir) as entries:
        return sorted(e.name[4:] for e in entries if e.name.startswith("sub-") and e.is_dir())


def _dataset(bids_dir: str | Path) -> Path:
    root = Path(bids_dir).absolute()
    if not root.is_dir():
        msg = f"{root}: no such folder; give the root of a BIDS dataset"
        raise BidsError(msg)
    return root


def _unique(labels: Iterable[str], prefix: str) -> list[str]:
    """Labels without prefix, each once, in the order given."""
    labels = [labels] if isinstance(labels, str) else labels
    return list(dict.fromkeys(bare_label(label, prefix) for label in labels))


def _choose(root: Path, there: list[str], asked: list[str]) -> list[str]:
    if not there:
        msg = f"{root}: no sub-* folders; give the root of a BIDS dataset"
        raise BidsError(msg)
    known = set(there)
    unknown = [label for label in asked if label not in known]
    if unknown:
        raise UsageError(f"{root}: " + "; ".join(_not_there("sub", label, there) for label in unknown))
    return asked or there


def _not_there(prefix: str, label: str, there: list[str]) -> str:
    padded = [t for t in there if t.lstrip("0") == label.lstrip("0")]  # 7 for 007
    near = list(dict.fromkeys([*padded, *get_close_matches(label, there, n=5, cutoff=0.5)]))
    hint = f"near names: {', '.join(near)}" if near else f"there are: {', '.join(there[:10])}{' …' * (len(there) > 10)}"
    return f"no {prefix}-{label} ({hint})"


def _description(root: Path) -> dict[str, Any] | None:
    path = root / "dataset_description.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        logger.warning("%s: no dataset_description.json; BIDS asks for one. Going on without", root)
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s: cannot be read as JSON (%s). Going on without", path, error)
        return None
    return content if isinstance(content, dict) else None


def _index(root: Path, subjects: list[str] | None, sessions: list[str]) -> list[Path]:
    """Anatomical T1w and T2w files, by a pybids index that enters the asked ``sub-*/[ses-*/]anat`` folders only."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    sub = "(?:" + "|".join(map(re.escape, subjects)) + ")" if subjects else "[^/]+"
    ses = "(?:" + "|".join(map(re.escape, sessions)) + ")" if sessions else "[^/]+"
    ignore = [
        re.compile(rf"^/(?!sub-{sub}(?:/|$))"),
        re.compile(rf"^/sub-[^/]+/(?!(?:ses-{ses}|anat)(?:/|$))"),
        re.compile(r"^/sub-[^/]+/ses-[^/]+/(?!anat(?:/|$))"),
        re.compile(rf"^/sub-[^/]+/(?:ses-[^/]+/)?anat/(?!sub-[^/]+_(?:{'|'.join(SUFFIXES)})\.nii(?:\.gz)?$)"),
    ]
    indexer = BIDSLayoutIndexer(validate=False, ignore=ignore, index_metadata=False)
    # the "bids" rules alone: entities of derivatives are read from the names, without loss
    layout = BIDSLayout(root, validate=False, derivatives=False, config=["bids"], indexer=indexer)
    found = layout.get(suffix=list(SUFFIXES), extension=[".nii", ".nii.gz"], return_type="filename")
    return sorted(Path(name) for name in found)


def _inputs(root: Path, files: list[Path]) -> tuple[list[InputImage], list[str]]:
    """The files that are inputs, and for each of the others one line that says why it is not."""
    images, left_out = [], []
    for path in files:
        relative = path.relative_to(root)
        split = split_name(path.name)
        folders = [f"{key}-{split.entities[key]}" for key in ("sub", "ses") if key in split.entities] if split else []
        if split is None or split.stray or tuple(folders) != relative.parts[:-2]:
            why = "the name is not BIDS, or does not agree with its folders"
            logger.warning("%s: left out, %s; rename it", path, why)
            left_out.append(f"{relative}: {why}")
        elif reason := _not_an_input(split.entities):
            left_out.append(f"{relative}: {reason}")
        else:
            images.append(InputImage(path, relative, split.entities, split.suffix))
    return images, left_out


def _not_an_input(entities: Mapping[str, str]) -> str | None:
    if "space" in entities and "cohort" in entities:
        return "already in a template's space"
    if _OWN_DESC.fullmatch(entities.get("desc", "")):
        return "an output of posepipe"
    if entities.get("part", "mag") != "mag":
        return "not a magnitude image"
    return None


def _check_names(root: Path, description: Mapping[str, Any] | None, images: list[InputImage]) -> None:
    from bids_validator import BIDSValidator  # type: ignore[import-untyped]

    content = description or {}
    if content.get("DatasetType") == "derivative" or "GeneratedBy" in content or "PipelineDescription" in content:
        return  # the validator of names knows raw datasets only
    validator = BIDSValidator()
    checked = [i for i in images if description is not None or not _DERIVED & i.entities.keys()]
    wrong = [i.relative.as_posix() for i in checked if not validator.is_bids(f"/{i.relative.as_posix()}")]
    if wrong:
        shown = ", ".join(wrong[:5]) + (" …" if len(wrong) > 5 else "")
        msg = (
            f"{root}: {len(wrong)} names are not valid in a raw BIDS dataset ({shown}); rename them, set DatasetType "
            "to derivative in dataset_description.json, or use --skip-bids-validation"
        )
        raise BidsError(msg)


def _check_sessions(root: Path, subjects: list[str], sessions: list[str], images: list[InputImage]) -> None:
    """Name the sessions asked for that nobody has; say who lacks one that others have."""
    if not sessions:
        return
    images[:] = [image for image in images if image.session in sessions]
    have = {(image.subject, image.session) for image in images}
    with_images = {session for _, session in have}
    missing = [session for session in sessions if session not in with_images]
    if missing:
        there = sorted({name for subject in subjects for name in _session_folders(root / f"sub-{subject}")})
        unknown = [session for session in missing if session not in there]
        if unknown:
            raise UsageError(f"{root}: " + "; ".join(_not_there("ses", label, there or ["none"]) for label in unknown))
    for subject in subjects:
        lacking = [s for s in sessions if (subject, s) not in have]
        if lacking:
            logger.warning("sub-%s has no T1w or T2w image in session %s", subject, ", ".join(lacking))


def _session_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [e.name[4:] for e in entries if e.name.startswith("ses-") and e.is_dir()]


def _nothing(
    root: Path,
    subjects: list[str],
    sessions: list[str],
    filters: Mapping[str, Any] | None,
    present: list[InputImage],
    left_out: list[str],
) -> str:
    shown = ", ".join(f"sub-{s}" for s in subjects[:5])
    if len(subjects) > 5:
        shown += f" and {len(subjects) - 5} more"
    where = "sub-*/anat and sub-*/ses-*/anat" if not sessions else "sub-*/ses-{" + ",".join(sessions) + "}/anat"
    parts = [f"{root}: no image found. Looked for *_T1w and *_T2w (.nii, .nii.gz) in {where} of {shown}"]
    if filters:
        parts.append(f"the filter {json.dumps(dict(filters))} let none of {len(present)} images through")
    if left_out:
        parts.append(f"left out {len(left_out)}: " + "; ".join(left_out[:5]))
    return ". ".join(parts)
