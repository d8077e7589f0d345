"""The dataset walk: the input images of a run. Only the requested folders are read."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import BidsError, UsageError
from ..paths import printable
from .entities import bare_label, split_name
from .filters import matches, parse_filters
from .image import InputImage
from .index import INPUT, indexed_images
from .leftover import IMAGE_FILE, left_out_files, misplaced_files
from .links import Folders, is_broken_link, not_fetched
from .masks import attach_masks, unknown_participants, unused_masks
from .reading import read_object

logger = logging.getLogger(__name__)

# outputs of posepipe are never inputs, also if they are in the input dataset
_OWN_DESC = re.compile(r"(?:.+\+)?(?:reoriented|synth)")
_DERIVED = {"space", "cohort", "res", "den", "label", "seg", "atlas", "desc"}

__all__ = ["InputImage", "Survey", "find_images", "list_subjects", "survey_images"]


@dataclass(frozen=True)
class Survey:
    """Result of :func:`survey_images`: the requested ``images``, sorted by path.

    ``left_out``: one line per image-like file that is not an input, with the reason; ``lacking``: one line per requested participant or
    session without an image, including broken links and unreadable folders; ``unmasked``: path → error for images whose brain mask cannot
    be determined; ``misnamed``: path → error for images with an invalid BIDS name.
    """

    images: list[InputImage]
    left_out: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    unmasked: Mapping[Path, BidsError] = field(default_factory=dict)
    misnamed: Mapping[Path, BidsError] = field(default_factory=dict)


def find_images(
    bids_dir: str | Path,
    *,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    filters: Mapping[str, Any] | None = None,
    derivatives: Sequence[str | Path] = (),
    validate: bool = False,
) -> list[InputImage]:
    """The requested T1w and T2w images of a raw or derivative BIDS dataset, sorted by path.

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
    walk = _Walk(bids_dir, participants, sessions, filters)
    if validate and (error := walk.misnamed_together()):
        raise error
    images, unmasked = walk.images(derivatives, left_out=walk.passed_over)
    for error in unmasked.values():
        raise error
    return images


def survey_images(
    bids_dir: str | Path,
    *,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    filters: Mapping[str, Any] | None = None,
    derivatives: Sequence[str | Path] = (),
    validate: bool = False,
    everywhere: bool = False,
) -> Survey:
    """As :func:`find_images`, with left-out files and missing images; ``everywhere``: also read folders other than ``anat``. Images with an
    ambiguous mask or an invalid name do not affect the others; their errors are returned, and raised only if there is no other image."""
    walk = _Walk(bids_dir, participants, sessions, filters)
    left_out, absent = walk.leftovers(everywhere=everywhere)
    misnamed = walk.misnamed() if validate else {}
    images, unmasked = walk.images(derivatives, left_out=[*absent, *left_out])
    if misnamed and all(image.path in misnamed for image in images) and (error := walk.misnamed_together()):
        raise error
    if everywhere:
        left_out += walk.unused_mask_lines(derivatives)
    return Survey(images, tuple(left_out), tuple(walk.lacking(images, left_out, absent)), unmasked, misnamed)


class _Walk:
    """One listing of a dataset: the requested participants, sessions and images that exist."""

    def __init__(
        self, bids_dir: str | Path, participants: Iterable[str], sessions: Iterable[str], filters: Mapping[str, Any] | None
    ) -> None:
        self._folders = Folders()
        self._root = _dataset(bids_dir, self._folders)
        self._filters, self._wanted = filters, parse_filters(filters)
        self._asked, self._sessions = _unique(participants, "sub"), _unique(sessions, "ses")
        lost = (e.name for e in self._folders.entries(self._root) if e.is_broken)
        self._lost = [name[4:] for name in lost if name.startswith("sub-") and "." not in name]
        self._all = [name[4:] for name in self._folders.folders(self._root, "sub-")]
        self._subjects = _choose(self._root, self._all, self._asked, self._lost)
        self._description = _description(self._root)
        there = [s for s in (self._asked or self._all) if s not in self._lost]
        sound = self._description is not None or not os.path.lexists(self._root / "dataset_description.json")
        files = _index(self._root, there, self._sessions, self._folders, sound=sound)
        self._present, self._reasons = _inputs(self._root, files)

    @property
    def passed_over(self) -> list[str]:
        """A line for each T1w or T2w file of the index that is no input."""
        return [self._line(path, why) for path, why in self._reasons.items()]

    def _line(self, path: Path, why: str) -> str:
        return f"{printable(path.relative_to(self._root) if path.is_relative_to(self._root) else path)}: {why}"

    def misnamed(self) -> dict[Path, BidsError]:
        """The images with names that are invalid in a raw dataset, if this is one: path → error."""
        wrong = _wrong_names(self._description, self._present)
        return {i.path: BidsError(f"{i.path}: the name is not valid in a raw BIDS dataset; {_NOT_VALID}") for i in wrong}

    def misnamed_together(self) -> BidsError | None:
        """One error for all of them; None if there are none."""
        wrong = [image.relative.as_posix() for image in _wrong_names(self._description, self._present)]
        shown = ", ".join(wrong[:5]) + (" …" if len(wrong) > 5 else "")
        return BidsError(f"{self._root}: {len(wrong)} names are not valid in a raw BIDS dataset ({shown}); {_NOT_VALID}") if wrong else None

    def unused_mask_lines(self, derivatives: Sequence[str | Path]) -> list[str]:
        """A line for each brain mask of the requested participants that matches no image, and for participants with masks but no images."""
        lines = [self._line(path, why) for path, why in unused_masks(self._present, derivatives)]
        return [*lines, *([] if self._asked else unknown_participants(derivatives, self._all))]

    def images(
        self, derivatives: Sequence[str | Path], *, left_out: list[str]
    ) -> tuple[list[InputImage], dict[Path, BidsError]]:
        """The images with their masks, and path → error for those whose mask cannot be determined; ``left_out`` is part of the error
        message if there are no images."""
        _check_sessions(self._root, self._subjects, self._sessions, self._present, self._folders)
        images = [image for image in self._present if matches(image, self._wanted)]
        if not images:
            raise BidsError(_nothing(self._root, self._subjects, self._sessions, self._filters, self._present, left_out))
        for message in left_out:
            logger.info("left out: %s", message)
        masks = attach_masks(images, self._present, derivatives)
        pairs = list(zip(images, masks, strict=True))
        unmasked = {image.path: mask for image, mask in pairs if isinstance(mask, BidsError)}
        return [replace(image, mask=None if isinstance(mask, BidsError) else mask) for image, mask in pairs], unmasked

    def leftovers(self, *, everywhere: bool) -> tuple[list[str], list[str]]:
        """A line for each image-like file that is not an input, with a warning if it may have been intended as one; and a line for each
        folder that is a broken link."""
        refused = "the filter does not let it through"
        used = {image.path: None if matches(image, self._wanted) else refused for image in self._present}
        left_out: list[str] = []
        absent: list[str] = []
        known = used | self._reasons
        for path, why, meant in left_out_files(self._root, self._subjects, self._sessions, known, self._folders, everywhere=everywhere):
            if meant:
                logger.warning("%s: left out, %s", printable(path), why)
            (left_out if IMAGE_FILE.fullmatch(path.name) else absent).append(self._line(path, why))
        for path, why, meant in misplaced_files(self._root, self._folders, everywhere=everywhere) if not self._asked else ():
            if meant:
                logger.warning("%s: left out, %s", printable(path), why)
            left_out.append(self._line(path, why))
        return left_out, absent

    def lacking(self, images: list[InputImage], left_out: list[str], absent: list[str]) -> Iterator[str]:
        """A line for each requested participant and session without an image."""
        have = {(image.subject, session) for image in images for session in (None, image.session)}
        asked = [(s, n) for s in self._asked for n in (self._sessions or (None,))]
        for subject, session in asked:
            if (subject, session) not in have:
                name = f"sub-{subject}" + (f", ses-{session}" if session else "")
                folder = f"sub-{subject}/" + (f"ses-{session}/" if session else "")
                found = [line for line in (*absent, *left_out) if f"{line.partition(':')[0]}/".startswith(folder)]
                why = f": left out {'; '.join(found[:3])}{' …' * (len(found) > 3)}" if found else ""
                yield f"{name} was selected, but has no usable T1w or T2w image{why}"
        if not asked:
            yield from absent
            nobody = [s for s in self._sessions if s not in {image.session for image in images}]
            yield from (f"ses-{s} was selected, but no participant has a usable T1w or T2w image of it" for s in nobody)


def list_subjects(bids_dir: str | Path) -> list[str]:
    """Labels of the participants that have a folder in ``bids_dir``, sorted; the folders are not entered."""
    return [name[4:] for name in Folders().folders(Path(bids_dir), "sub-")]


def _dataset(bids_dir: str | Path, folders: Folders) -> Path:
    root = Path(bids_dir).absolute()
    try:
        folders.entries(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{root}: no such folder; give the root of a BIDS dataset"
        raise BidsError(msg) from error
    except OSError as error:
        msg = f"{root}: cannot be read ({error.strerror}); give the root of a BIDS dataset, and make it readable"
        raise BidsError(msg) from error
    return root


def _unique(labels: Iterable[str], prefix: str) -> list[str]:
    """Labels without prefix, each once, in the order given."""
    labels = [labels] if isinstance(labels, str) else labels
    return list(dict.fromkeys(bare_label(label, prefix) for label in labels))


def _choose(root: Path, there: list[str], asked: list[str], lost: list[str]) -> list[str]:
    there = sorted({*there, *lost})
    if not there:
        msg = f"{root}: no sub-* folders; give the root of a BIDS dataset"
        raise BidsError(msg)
    known = set(there)
    unknown = [label for label in asked if label not in known]
    if unknown:
        raise UsageError(f"{root}: " + "; ".join(_not_there("sub", label, there) for label in unknown))
    return asked or there


def _not_there(prefix: str, label: str, there: list[str]) -> str:
    padded = [t for t in there if t.lstrip("0") == label.lstrip("0")]  # 007 for a given 7
    near = list(dict.fromkeys([*padded, *get_close_matches(label, there, n=5, cutoff=0.5)]))
    hint = f"near names: {', '.join(near)}" if near else f"there are: {', '.join(there[:10])}{' …' * (len(there) > 10)}"
    return f"no {prefix}-{label} ({hint})"


def _description(root: Path) -> dict[str, Any] | None:
    path = root / "dataset_description.json"
    if is_broken_link(path) and (problem := not_fetched(path)):
        raise BidsError(problem)
    try:
        content = read_object(path)
    except BidsError as error:
        logger.warning("%s. Going on without", error)
        return None
    if content is None:
        logger.warning("%s: no dataset_description.json; BIDS asks for one, add it. Going on without", root)
    return content


def _index(root: Path, subjects: list[str], sessions: list[str], folders: Folders, *, sound: bool) -> list[Path]:
    """T1w and T2w files in the requested ``sub-*/[ses-*/]anat`` folders; no other folder is read.

    The files come from a pybids index. If pybids fails on these folders, or the dataset description (which it reads) is not ``sound``, all
    files with matching names are used.
    """
    there = []
    for subject in subjects:
        home = root / f"sub-{subject}"
        units = [home / name for name in folders.folders(home, "ses-") if not sessions or name[4:] in sessions]
        for unit in (home, *units):
            if "anat" in folders.folders(unit, "anat") and not_fetched(unit / "anat") is None:
                with suppress(OSError):  # reported among the left-out files
                    entries = folders.entries(unit / "anat")
                    there += [unit / "anat" / e.name for e in entries if INPUT.fullmatch(e.name) and not e.is_folder]
    if sound and there:
        try:
            indexed = indexed_images(root, sorted({path.parent.relative_to(root).as_posix() for path in there}))
            return sorted(path for path in there if path in indexed)
        except Exception as error:  # for example sqlite's, for undecodable names
            logger.debug("%s: pybids cannot index it (%s: %s); taken by their names", root, type(error).__name__, error)
    return sorted(there)


def _inputs(root: Path, files: list[Path]) -> tuple[list[InputImage], dict[Path, str]]:
    """The files that are inputs, and for each of the others why it is not."""
    images, left_out = [], {}
    for path in files:
        relative = path.relative_to(root)
        split = split_name(path.name)
        folders = [f"{key}-{split.entities[key]}" for key in ("sub", "ses") if key in split.entities] if split else []
        if split is None or split.unparsed or tuple(folders) != relative.parts[:-2]:
            why = "the name is not BIDS, or does not agree with its folders"
            logger.warning("%s: left out, %s; rename it", printable(path), why)
            left_out[path] = why
        elif reason := _not_an_input(split.entities):
            left_out[path] = reason
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


_NOT_VALID = "rename it, set DatasetType to derivative in dataset_description.json, or use --skip-bids-validation"


def _wrong_names(description: Mapping[str, Any] | None, images: list[InputImage]) -> list[InputImage]:
    """The images whose names are not valid, in a raw dataset."""
    from bids_validator import BIDSValidator  # type: ignore[import-untyped]

    content = description or {}
    if content.get("DatasetType") == "derivative" or "GeneratedBy" in content or "PipelineDescription" in content:
        return []  # the validator of names knows raw datasets only
    validator = BIDSValidator()
    checked = [i for i in images if description is not None or not _DERIVED & i.entities.keys()]
    return [i for i in checked if not validator.is_bids(f"/{i.relative.as_posix()}")]


def _check_sessions(root: Path, subjects: list[str], sessions: list[str], images: list[InputImage], folders: Folders) -> None:
    """Raise for requested sessions that no participant has; log participants that lack a session."""
    if not sessions:
        return
    images[:] = [image for image in images if image.session in sessions]
    have = {(image.subject, image.session) for image in images}
    with_images = {session for _, session in have}
    missing = [session for session in sessions if session not in with_images]
    if missing:
        there = sorted({name[4:] for subject in subjects for name in folders.folders(root / f"sub-{subject}", "ses-")})
        unknown = [session for session in missing if session not in there]
        if unknown:
            raise UsageError(f"{root}: " + "; ".join(_not_there("ses", label, there or ["none"]) for label in unknown))
    for subject in subjects:
        lacking = [s for s in sessions if (subject, s) not in have]
        if lacking:
            logger.warning("sub-%s has no T1w or T2w image in session %s", subject, ", ".join(lacking))


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
    looked = f"Looked for *_T1w and *_T2w (.nii, .nii.gz) in {where} of {shown}"
    parts = [f"{root}: no image found; give a dataset and labels that have some. {looked}"]
    if filters:
        text = json.dumps(dict(filters))
        shown = text if len(text) <= 300 else f"{text[:300]}…"
        parts.append(f"The filter {shown} let none of {len(present)} images through: change it")
    if left_out:
        parts.append(f"left out {len(left_out)}: " + "; ".join(left_out[:5]))
    return ". ".join(parts)
