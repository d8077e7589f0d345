"""Image-like files that are not inputs, with the reasons."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .converted import converter_advice
from .entities import split_name
from .links import Folders, not_fetched

IMAGE_FILE = re.compile(
    r".+?(\.(?:nii|nia|mgh|mgz|img|hdr|nrrd|nhdr|mha|mhd|mnc|dcm)(?:\.(?:gz|bz2|xz|zst|zip))?)\s*", re.IGNORECASE | re.DOTALL
)
_MEANT = re.compile(r"t[12]w.*", re.IGNORECASE | re.DOTALL)
_MEANT_FOLDER = re.compile(r"(?:sub|ses|anat|t[12]w).*", re.IGNORECASE | re.DOTALL)
_OTHER_KINDS = {"mask", "dseg", "probseg", "xfm"}


def left_out_files(
    root: Path,
    subjects: Sequence[str],
    sessions: Sequence[str],
    used: Mapping[Path, str | None],
    folders: Folders,
    *,
    everywhere: bool = False,
) -> Iterator[tuple[Path, str, bool]]:
    """Image-like files below ``sub-*/[ses-*/]`` that are not inputs: path, reason, and whether it may have been intended as an input.

    ``used`` maps indexed files to None for inputs, else to the reason. Without ``everywhere`` only the indexed folders and folders with
    similar names are read. Unreadable folders and broken links to folders are included.
    """
    for subject in subjects:
        folder = root / f"sub-{subject}"
        for path, problem in _files(folder, sessions, folders, everywhere=everywhere):
            if problem is not None:
                yield path, problem, True
            elif (why := used[path] if path in used else _why(path, folder)) is not None:
                yield path, why, path not in used and _is_meant(path)


def misplaced_files(root: Path, folders: Folders, *, everywhere: bool = False) -> Iterator[tuple[Path, str, bool]]:
    """Image-like files beside the participants' folders, and folders there with names similar to BIDS names, as in :func:`left_out_files`;
    with ``everywhere`` also the files in such folders."""
    for entry in folders.entries(root):
        path = root / entry.name
        if not entry.is_folder and IMAGE_FILE.fullmatch(entry.name):
            yield path, "it is not in a folder sub-LABEL/[ses-LABEL/]anat", _is_meant(path)
        elif entry.is_folder and not entry.name.startswith("sub-") and _MEANT_FOLDER.fullmatch(entry.name):
            inside = [inner for inner, problem in _walk(path, lambda *_: True, folders) if problem is None]
            if inside:
                yield path, "a folder of images that is no participant's: those are named sub-LABEL (rename it)", True
            if everywhere:
                yield from ((inner, "it is not in a folder sub-LABEL/[ses-LABEL/]anat", False) for inner in inside)


def _files(folder: Path, sessions: Sequence[str], folders: Folders, *, everywhere: bool) -> Iterator[tuple[Path, str | None]]:
    """Image-like files of one participant in order, each with None, and folders that cannot be read with the reason."""

    def enters(where: Path, name: str) -> bool:
        depth = len(where.relative_to(folder).parts)
        if depth == 0 and name.startswith("ses-"):
            return not sessions or name[4:] in sessions
        at_unit = depth == 0 or (depth == 1 and where.name.lower().startswith("ses"))
        near = name.strip().lower() == "anat" or (depth == 0 and name.lower().startswith("ses"))
        return (everywhere and name != "log") or (at_unit and near)

    yield from _walk(folder, enters, folders)


def _walk(
    folder: Path, enters: Callable[[Path, str], bool], folders: Folders, above: frozenset[str] = frozenset()
) -> Iterator[tuple[Path, str | None]]:
    """Entries of ``folder``, recursively; links to one of the folders ``above`` (cycles) are not followed."""
    if not_fetched(folder):
        yield folder, "a link to a folder that is not there"
        return
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        entries = folders.entries(folder)
    except OSError as error:
        yield folder, f"the folder cannot be read ({error.strerror}); make it readable"
        return
    for entry in entries:
        path = folder / entry.name
        looks = IMAGE_FILE.fullmatch(entry.name)
        if entry.is_folder:
            if looks:
                yield path, None
            if enters(folder, entry.name):
                yield from _walk(path, enters, folders, above | {here})
        elif looks:
            yield path, None
        elif entry.is_broken and enters(folder, entry.name) and "." not in entry.name:
            yield path, "a link to a folder that is not there"


def _why(path: Path, folder: Path) -> str:
    """Reason why a file that is not indexed is not an input."""
    if os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
        return "it is a folder, not an image: replace it by the image"
    if path.name.startswith("."):
        return "it is hidden, like macOS metadata (._) and partial copies"
    extension = _extension(path)
    if extension not in {".nii", ".nii.gz"}:
        is_nifti = extension.strip().lower() in {".nii", ".nii.gz"}
        return f"its extension is {extension}, and BIDS knows .nii and .nii.gz alone: " + ("rename it" if is_nifti else "convert it")
    if advice := converter_advice(path.name):
        return f"the name is not BIDS: {advice}"
    split = split_name(path.name)
    if split is None or split.unparsed or split.extension != extension:
        return "the name is not BIDS"
    if split.suffix not in {"T1w", "T2w"}:
        return f"its suffix is {split.suffix}; only T1w and T2w are aligned"
    parts = path.parent.relative_to(folder).parts
    if parts[-1:] != ("anat",):
        return "it is not in a folder anat"
    return "its name does not agree with its folders"


def _is_meant(path: Path) -> bool:
    """Whether the name says T1w or T2w somewhere, and no other kind of file."""
    stem = path.name[: -len(_extension(path))]
    *tokens, suffix = stem.split("_")
    hidden = path.name.startswith(".")
    return not hidden and suffix not in _OTHER_KINDS and any(_MEANT.fullmatch(token) for token in (suffix, *tokens))


def _extension(path: Path) -> str:
    found = IMAGE_FILE.fullmatch(path.name)
    return found[1] + path.name[found.end(1) :] if found else path.suffix
