"""The files of the participants asked for that look like images and yet are no inputs, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .entities import split_name
from .links import not_fetched

IMAGE_FILE = re.compile(r".+?(\.(?:nii|nia|mgh|mgz|img|hdr|nrrd|nhdr|mha|mhd|mnc|dcm)(?:\.(?:gz|bz2|zst|zip))?)", re.IGNORECASE)
_MEANT = re.compile(r"t[12]w.*", re.IGNORECASE)
_OTHER_KINDS = {"mask", "dseg", "probseg", "xfm"}


def left_out_files(
    root: Path, subjects: Sequence[str], sessions: Sequence[str], used: Mapping[Path, str | None], *, everywhere: bool = False
) -> Iterator[tuple[Path, str, bool]]:
    """Image-like files below ``sub-*/[ses-*/]`` that are not inputs: path, why, and whether it may have been meant for one.

    ``used`` are the files that the walk knows: None for an input, else why it is none. Without ``everywhere`` only the folders that the
    walk enters too are read. Links to folders that are not there are named as well.
    """
    for subject in subjects:
        folder = root / f"sub-{subject}"
        for path, is_link in _files(folder, sessions, everywhere=everywhere):
            if is_link:
                yield path, "a link to a folder that is not there", True
            elif (why := used[path] if path in used else _why(path, folder)) is not None:
                yield path, why, path not in used and _is_meant(path)


def _files(folder: Path, sessions: Sequence[str], *, everywhere: bool) -> Iterator[tuple[Path, bool]]:
    """Image-like files of one participant in order, and links to folders that are not there (True)."""

    def enters(where: Path, name: str) -> bool:
        depth = len(where.relative_to(folder).parts)
        if depth == 0 and name.startswith("ses-"):
            return not sessions or name[4:] in sessions
        at_unit = depth == 0 or (depth == 1 and where.name.startswith("ses-"))
        return (everywhere and name != "log") or (at_unit and name == "anat")

    yield from _walk(folder, enters)


def _walk(folder: Path, enters: Callable[[Path, str], bool], above: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, bool]]:
    """What lies in ``folder``; a link to one of the folders ``above`` leads round in a circle, and is not followed."""
    if not_fetched(folder):
        yield folder, True
        return
    here = folder.resolve()
    if here in above:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda e: e.name)
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir():
            if enters(folder, entry.name):
                yield from _walk(path, enters, above | {here})
        elif IMAGE_FILE.fullmatch(entry.name):
            yield path, False
        elif entry.is_symlink() and not path.exists() and enters(folder, entry.name) and "." not in entry.name:
            yield path, True


def _why(path: Path, folder: Path) -> str:
    """Why a file that the walk does not know is no input."""
    extension = _extension(path)
    if extension not in {".nii", ".nii.gz"}:
        is_nifti = extension.lower() in {".nii", ".nii.gz"}
        return f"its extension is {extension}, and BIDS knows .nii and .nii.gz alone: " + ("rename it" if is_nifti else "convert it")
    split = split_name(path.name)
    if split is None or split.stray:
        return "the name is not BIDS"
    if split.suffix not in {"T1w", "T2w"}:
        return f"its suffix is {split.suffix}; only T1w and T2w are aligned"
    parts = path.parent.relative_to(folder).parts
    if parts[-1:] != ("anat",):
        return "it does not lie in a folder anat"
    return "its name does not agree with its folders"


def _is_meant(path: Path) -> bool:
    """Whether the name says T1w or T2w somewhere, and no other kind of file."""
    stem = path.name[: -len(_extension(path))]
    *tokens, suffix = stem.split("_")
    return suffix not in _OTHER_KINDS and any(_MEANT.fullmatch(token) for token in (suffix, *tokens))


def _extension(path: Path) -> str:
    found = IMAGE_FILE.fullmatch(path.name)
    return found[1] if found else path.suffix
