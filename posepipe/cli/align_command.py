"""``posepipe-tools align``: one image, no BIDS needed."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..paths import absolute_path
from ..plan import SLICE_KEYS
from ..settings import ESTIMATED
from .parser import add_alignment, age_option, command_line, whole_number
from .threads import library_threads

if TYPE_CHECKING:
    from ..alignment import Alignment

_EXTENSIONS = (".nii.gz", ".nii", ".mgz", ".mgh", ".img", ".hdr")


def add_arguments(subparsers: Any) -> None:
    """Add the ``align`` command to the subparsers of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "align",
        help="align one image to its atlas",
        description="Align one image, named as you like; transforms, images, mask and a page go to one folder.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("image", type=absolute_path, metavar="IMAGE", help="NIfTI or MGH file")
    parser.add_argument(
        "--age", type=age_option, metavar="WEEKS", required=True,
        help="gestational (postmenstrual) weeks at the scan, or estimate: from the image",
    )  # fmt: skip
    parser.add_argument("-o", "--out-dir", type=absolute_path, metavar="DIR", required=True, help="where the outputs go")
    parser.add_argument("--mask-file", type=absolute_path, metavar="FILE", help="brain mask on the image's grid")
    parser.add_argument("--omp-nthreads", type=whole_number, metavar="N", help="threads to use (default: 1)")
    add_alignment(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command with the parsed ``args``; 0 on success. Raises :class:`~posepipe.errors.PosepipeError`."""
    given = vars(args)
    image, folder = Path(args.image), Path(args.out_dir)
    stem = stem_of(image)
    with library_threads(given.get("omp_nthreads", 1)):
        alignment = _align(given, image)
    sidecars, written = _save(alignment, folder, stem, [str(image), *map(str, filter(None, [given.get("mask_file")]))])
    page = _write_page(folder / f"{stem}.html", stem, alignment, sidecars, written, given)
    print(
        f"{image.name}: {alignment.quality.qc}, turned {alignment.pose.angle_degrees:.1f}° from "
        f"{alignment.template.space}, {sum(alignment.seconds.values()):.1f} s"
    )
    for line in (*alignment.quality.reasons, *alignment.warnings):
        print(f"  note: {line}")
    for path in written:
        print(f"  {path}")
    print(f"report: {page}")
    return 0


def _save(alignment: Alignment, folder: Path, stem: str, sources: list[str]) -> tuple[dict[str, dict[str, Any]], list[Path]]:
    """Write all files; the sidecars by output, and the files."""
    from ..bids import OutputNames, write_json
    from ..interfaces.records import mask_to_record
    from ..interfaces.sidecars import other_sidecars

    names = ("forward", "backward", "resampled", "reoriented", "mask", *(("synth",) if alignment.conversion else ()))
    names += ("slices",) if alignment.slices else ()
    files = dict(zip(names, alignment.save(folder, stem), strict=True))
    conversion = alignment.conversion
    found = alignment.sidecar()
    source = "--age" if alignment.age_error is None else ESTIMATED
    sidecar = {"Sources": sources, "Age": found.pop("Age"), "AgeSource": source, **found}
    known = {
        "Sources": sources,
        "Atlas": alignment.template.atlas,
        "Cohort": alignment.template.cohort,
        "TemplateContrast": alignment.template.contrast,
        "TemplateChoice": alignment.choice_reason,
        "TemplateFiles": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (alignment.template.image, alignment.template.mask)
            if path
        },
        "Warnings": list(alignment.warnings),
    }
    mask = mask_to_record(alignment.mask, alignment.image)
    convert = {"network": found["ContrastConversion"], "weights": conversion.weights} if conversion else None
    slices = alignment.slices.about() if alignment.slices else None
    others = other_sidecars(known, mask, alignment.target.millilitres, files["forward"].name, convert, slices)
    sidecars = {"forward": sidecar, **others}
    written = [write_json(OutputNames.sidecar(files[name]), content) for name, content in sidecars.items()]
    return sidecars, [*files.values(), *written]


def stem_of(image: Path) -> str:
    """A file's name without the extension of an image.

    >>> stem_of(Path("a/my.brain.nii.gz"))
    'my.brain'
    """
    for extension in _EXTENSIONS:
        if image.name.lower().endswith(extension):
            return image.name[: -len(extension)]
    return image.stem


def _align(given: dict[str, Any], image: Path) -> Alignment:
    from ..aligner import Aligner

    same = ("atlas", "init", "refine", "mask", "contrast", "convert", "slices", "age_policy", "device", "weights")
    options = {name: given[name] for name in same if name in given}
    aligner = Aligner(
        atlas_dirs=tuple(given.get("atlas_dir", ())),
        seed=given.get("random_seed", 0),
        threads=given.get("omp_nthreads", 1),
        **options,
    )
    return aligner.align(image, given["age"], mask=given.get("mask_file"), timing=_timing(image))


def _timing(image: Path) -> dict[str, Any]:
    """The slice timing fields of the JSON sidecar beside the image, if there is one."""
    from ..bids import read_json

    sidecar = image.with_name(f"{stem_of(image)}.json")
    known = read_json(sidecar) if sidecar.is_file() else {}
    return {key: known[key] for key in SLICE_KEYS if key in known}


def _write_page(
    page: Path, stem: str, alignment: Alignment, sidecars: dict[str, dict[str, Any]], written: list[Path], given: dict[str, Any]
) -> Path:
    from .._version import __version__
    from ..bids.slice_table import table_text
    from ..reports.subject import PageImage, write_subject_page
    from ..reports.views import make_views

    target = alignment.target
    views = make_views(
        alignment.image, alignment.mask.volume, target.volume, target.mask, alignment.pose, synth=alignment.converted
    )  # fmt: skip
    outputs = [path.relative_to(page.parent).as_posix() for path in written]
    name = Path(given["image"]).name
    table = table_text(alignment.slices.rows) if alignment.slices else ""
    shown = PageImage(name, sidecars["forward"], views, outputs, alignment.warnings, sidecars["resampled"], sidecars["mask"], table)
    return write_subject_page(
        page, subject=stem, session=None, images=[shown], version=__version__,
        command=command_line("posepipe-tools", given["argv"]),
    )  # fmt: skip
