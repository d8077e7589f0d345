"""``posepipe-tools align``: one image, no BIDS needed."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import name_stem
from ..paths import absolute_path
from ..plan import SLICE_KEYS
from ..settings import ESTIMATED
from .parser import add_alignment, add_outputs, age_option, command_line, whole_number
from .threads import library_threads
from .upright import check_output, write_upright

if TYPE_CHECKING:
    from ..alignment import Alignment


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
    parser.add_argument(
        "--upright", type=absolute_path, metavar="FILE",
        help="write the image upright by its header, its voxels unchanged, under this name too (as `posepipe-tools reorient` does): for "
        "pipelines that expect one file",
    )  # fmt: skip
    parser.add_argument("--omp-nthreads", type=whole_number, metavar="N", help="threads to use (default: 1)")
    add_alignment(parser)
    add_outputs(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command with the parsed ``args``; 0 on success. Raises :class:`~posepipe.errors.PosepipeError`."""
    given = vars(args)
    from ..interfaces.on_request import no_labels

    image, folder = Path(args.image), Path(args.out_dir)
    stem = name_stem(image)
    if upright := given.get("upright"):
        check_output(upright, image, *filter(None, [given.get("mask_file")]))
    with library_threads(given.get("omp_nthreads", 1)):
        alignment = _align(given, image)
    sidecars, written = _save(alignment, folder, stem, [str(image), *map(str, filter(None, [given.get("mask_file")]))], given)
    written += [write_upright(image, alignment.pose, upright)] if upright else []
    page = _write_page(folder / f"{stem}.html", stem, alignment, sidecars, written, given)
    print(
        f"{image.name}: {alignment.quality.qc}, turned {alignment.pose.angle_degrees:.1f}° from "
        f"{alignment.template.space}, {sum(alignment.seconds.values()):.1f} s"
    )
    notes = (no_labels(alignment.template.space),) if given.get("labels") and "Labels" not in sidecars["forward"] else ()
    for line in (*alignment.quality.reasons, *alignment.warnings, *notes):
        print(f"  note: {line}")
    for path in written:
        print(f"  {path}")
    print(f"report: {page}")
    return 0


def _save(
    alignment: Alignment, folder: Path, stem: str, sources: list[str], given: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[Path]]:
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
    more = _save_formats(alignment, sidecars, files, given.get("xfm_formats", ()))
    more += _save_labels(alignment, sidecars["forward"], known, files["forward"], folder / f"{stem}_seg") if given.get("labels") else []
    written = [write_json(OutputNames.sidecar(files[name]), content) for name, content in sidecars.items()]
    return sidecars, [*files.values(), *more, *written]


def _save_formats(alignment: Alignment, sidecars: dict[str, dict[str, Any]], files: dict[str, Path], formats: Sequence[str]) -> list[Path]:
    """Write both transforms in other formats, and say so in their sidecars."""
    from ..bids.names import FORMATS_KEY
    from ..imaging.grid import Grid
    from ..interfaces.on_request import write_formats

    image, template = Grid.of(alignment.image), Grid.load(alignment.template.image)
    written = []
    for name, pose, moving, reference in (("forward", alignment.pose, image, template), ("backward", ~alignment.pose, template, image)):
        entries = write_formats(pose, files[name], formats, moving, reference)
        sidecars[name] |= {FORMATS_KEY: entries} if entries else {}
        written += [files[name].with_name(one["File"]) for one in entries.values()]
    return written


def _save_labels(alignment: Alignment, sidecar: dict[str, Any], known: dict[str, Any], forward: Path, stem: Path) -> list[Path]:
    """Write the template's label maps on the image's grid, with their sidecars and names, and say so in the transform's ``sidecar``."""
    from ..atlas import label_maps
    from ..atlas.sidecars import file_sha256
    from ..bids import write_json
    from ..bids.names import LABELS_KEY
    from ..files import write_text
    from ..imaging.volume import save_volume, stored_type
    from ..interfaces.on_request import label_request, label_sidecar

    maps = label_maps(alignment.template)
    request = label_request(maps, file_sha256)
    sidecar |= {LABELS_KEY: request} if maps else {}
    written, volumes = [], alignment.labels()
    for one in maps:
        base, labels = f"{stem}-{one.kind}_desc-atlas_dseg", volumes[one.kind]
        written.append(save_volume(labels, f"{base}.nii.gz", stored_type(labels.data.dtype)))
        written.append(write_json(f"{base}.json", label_sidecar(known, one.kind, request[one.kind], forward.name)))
        written += [write_text(f"{base}.tsv", one.table())] if one.names else []
    return written


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

    sidecar = image.with_name(f"{name_stem(image)}.json")
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
    outputs = [path.relative_to(page.parent).as_posix() for path in written if path.is_relative_to(page.parent)]
    name = Path(given["image"]).name
    table = table_text(alignment.slices.rows) if alignment.slices else ""
    shown = PageImage(name, sidecars["forward"], views, outputs, alignment.warnings, sidecars["resampled"], sidecars["mask"], table)
    return write_subject_page(
        page, subject=stem, session=None, images=[shown], version=__version__,
        command=command_line("posepipe-tools", given["argv"]),
    )  # fmt: skip
