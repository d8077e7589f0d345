"""The facts that a page shows about one image: the contents of its sidecars in words and units for readers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ..bids.names import FURTHER_KEY
from ..errors import TransformError
from ..files import name_stem
from ..geometry import Rigid
from ..settings import WHOLE

UNKNOWN = "not recorded"
Row = tuple[str, str]


def pose_of(sidecar: Mapping[str, Any]) -> Rigid | None:
    """The pose a sidecar holds, or None where it holds none.

    Raises :class:`~posepipe.errors.TransformError` for numbers that are no rigid map.
    """
    if sidecar.get("RotationMatrix") is None or sidecar.get("TranslationMM") is None:
        return None
    try:
        return Rigid(np.array(sidecar["RotationMatrix"], float), np.array(sidecar["TranslationMM"], float))
    except (TypeError, ValueError) as error:
        msg = f"{sidecar.get('Sources')}: the sidecar's rotation and translation are not numbers; run posepipe again"
        raise TransformError(msg) from error


def rated_name(image: str, sidecar: Mapping[str, Any]) -> str:
    """What is rated: the name of the ``image`` without folders and extension; the template too where the pose is at a further atlas.

    >>> rated_name("sub-01/anat/sub-01_T2w.nii.gz", {"Atlas": "CRL", "Cohort": "29"})
    'sub-01_T2w'
    >>> rated_name("sub-01/anat/sub-01_T2w.nii.gz", {"Atlas": "Serag", "Cohort": "29", "NamedBySpace": True})
    'sub-01_T2w at Serag+29'
    """
    name = name_stem(image)
    if sidecar.get(FURTHER_KEY) is not True:
        return name
    return f"{name} at {'+'.join(str(part) for part in (sidecar.get('Atlas'), sidecar.get('Cohort')) if part)}"


def pose_rows(sidecar: Mapping[str, Any]) -> list[Row]:
    """Rotation, translation and confidence."""
    vector = sidecar.get("RotationVector")
    degrees = UNKNOWN if vector is None else _triple(np.degrees(np.asarray(vector, float)), "°")
    shift = sidecar.get("TranslationMM")
    return [
        ("Rotation", _number(sidecar.get("RotationAngleDegrees"), "{:.1f}°")),
        ("Rotation vector", degrees),
        ("Translation", UNKNOWN if shift is None else _triple(np.asarray(shift, float), unit=" mm")),
        ("Confidence", confidence(sidecar)),
    ]


def confidence(sidecar: Mapping[str, Any]) -> str:
    """The estimated probability that the pose is within 15°, in words.

    >>> confidence({"Confidence": 0.973}), confidence({"Confidence": None})
    ('97 % (that the pose is within 15°)', 'not estimated')
    """
    value = sidecar.get("Confidence")
    if value is None:
        return "not estimated"
    percent = 100 * float(value)
    shown = f"{percent:.0f}" if 1 <= percent <= 99 or percent in (0, 100) else f"{percent:.1f}"
    return f"{shown} % (that the pose is within 15°)"


def image_rows(
    sidecar: Mapping[str, Any], grid: Mapping[str, Any] | None = None, mask: Mapping[str, Any] | None = None
) -> list[Row]:
    """Age, template and why it was chosen, contrast and mask; ``grid`` is the sidecar of the image on its grid, ``mask`` the mask's."""
    age, grid = sidecar.get("Age"), grid or {}
    rows = [
        ("Age", age_text(sidecar)),
        ("Age from", _text(sidecar.get("AgeSource"))),
        ("Template", f"{_text(sidecar.get('Atlas'))}, cohort {_text(sidecar.get('Cohort'))}"),
        ("Chosen for", _choice(age, sidecar.get("Cohort"))),
        ("Contrast", _text(sidecar.get("Contrast"))),
        ("Brain mask", mask_text(sidecar, mask or {})),
        ("Sources", _text(sidecar.get("Sources"))),
    ]
    if grid.get("TemplateChoice"):
        rows.insert(4, ("Atlas chosen", _text(grid["TemplateChoice"])))
    return rows


def age_text(sidecar: Mapping[str, Any]) -> str:
    """The age in words, with its standard error where it was estimated.

    >>> age_text({"Age": 29.4}), age_text({"Age": 29.4, "AgeStandardError": 1.1})
    ('29.4 weeks', '29.4 ± 1.1 weeks, estimated from the image')
    """
    age, error = sidecar.get("Age"), sidecar.get("AgeStandardError")
    if age is None:
        return UNKNOWN
    return f"{_plain(age)} weeks" if error is None else f"{_plain(age)} ± {_plain(error)} weeks, estimated from the image"


def mask_text(sidecar: Mapping[str, Any], mask: Mapping[str, Any]) -> str:
    """Source of the mask, its volume, and the ratio to the template's, in words.

    >>> mask_text({"Mask": "network"}, {"Millilitres": 212.4, "VolumeRatio": 0.96}), mask_text({"Mask": "given"}, {})
    ('network, 212 ml (0.96 times the template)', 'given')
    """
    text = _text(sidecar.get("Mask"))
    if isinstance(mask.get("Millilitres"), (int, float)):
        text += f", {mask['Millilitres']:.0f} ml"
    if isinstance(mask.get("VolumeRatio"), (int, float)):
        text += f" ({mask['VolumeRatio']:.2f} times the template)"
    return text


def contrast_note(sidecar: Mapping[str, Any], grid: Mapping[str, Any]) -> str:
    """Note on the contrasts of image and template, shown with the pictures; empty if both are the same.

    >>> contrast_note({"Contrast": "T1w"}, {"TemplateContrast": "T2w"})
    'T1w image on a T2w template'
    >>> contrast_note({"Contrast": "T1w", "ContrastConversion": "contrast"}, {"TemplateContrast": "T2w"})
    'T1w image on a T2w template, aligned by a synthetic T2w image'
    """
    own, template = sidecar.get("Contrast"), grid.get("TemplateContrast")
    if not own or not template or own == template:
        return ""
    by = ", aligned by a synthetic T2w image" if sidecar.get("ContrastConversion") else ""
    return f"{own} image on a {template} template{by}"


def method_rows(sidecar: Mapping[str, Any]) -> list[Row]:
    """Methods of initial pose and refinement, and the network weights.

    >>> method_rows({"InitMethod": "deep", "RefineMethod": "torch", "RefineTemplate": "without extra-axial CSF"})[2]
    ('Refined against', 'the template without extra-axial CSF, with clearly higher similarity')
    """
    rows = [("Initial pose", _text(sidecar.get("InitMethod"))), ("Refinement", _text(sidecar.get("RefineMethod")))]
    if sidecar.get("ContrastConversion"):
        rows.insert(0, ("Aligned by", f"a synthetic T2w image, generated by the network {sidecar['ContrastConversion']}"))
    if sidecar.get("RefineTemplate", WHOLE) != WHOLE:
        rows.append(("Refined against", f"the template {sidecar['RefineTemplate']}, with clearly higher similarity"))
    weights = sidecar.get("Weights") or {}
    if not weights:
        return [*rows, ("Network weights", "none used")]
    return [*rows, *((f"Weights: {name}", f"SHA-256 {value}") for name, value in weights.items())]


def slices_rows(sidecar: Mapping[str, Any]) -> list[Row]:
    """Summary of the slices of a stack.

    >>> slices_rows({"Slices": {"SlicesWithPose": 20, "Outliers": 2, "StackPose": "slices"}})[:2]
    [('Slices with a pose', '20'), ('Of them outliers', '2')]
    """
    known = sidecar.get("Slices") or {}
    names = {
        "SlicesWithPose": "Slices with a pose", "Outliers": "Of them outliers", "MotionDegreesRMS": "Motion of the others (RMS)",
        "StackPose": "Pose of the stack", "StackPoseReason": "Because", "SliceOrder": "Order of acquisition", "SliceOrderNote": "Assumed",
    }  # fmt: skip
    said = {"slices": "the mean of its slices' poses", "volume": "that of the volume", "SliceTiming": "SliceTiming of the sidecar"}
    rows = [(name, known[key]) for key, name in names.items() if known.get(key) is not None]
    return [(name, f"{v:.1f}°" if isinstance(v, float) else said.get(str(v), _text(v))) for name, v in rows]


def session_rows(sidecar: Mapping[str, Any]) -> list[Row]:
    """How far the poses of the session's images are apart, and with which this one shares its pose.

    >>> session_rows({"SessionSpread": 1.26, "SessionSpreadMM": 0.8, "SessionSpreadImages": ["bids:raw:sub-1/anat/sub-1_T1w.nii.gz"]})
    [('Largest difference', '1.3°, 0.8 mm'), ('Compared with', 'sub-1_T1w.nii.gz')]
    """
    rows: list[Row] = []
    if sidecar.get("SessionSpread") is not None:
        rows.append(("Largest difference", _apart(sidecar["SessionSpread"], sidecar.get("SessionSpreadMM"))))
        rows.append(("Compared with", _files(sidecar.get("SessionSpreadImages"))))
    known = sidecar.get("SessionPose") or {}
    if not known:
        return rows
    shared = [uri for uri in known.get("SharedBy") or [] if uri not in (sidecar.get("Sources") or [])]
    how = {"joint": "refined on all of these images together", "mean": "the mean of these images' poses"}.get(str(known.get("Method")))
    rows.append(("Pose shared with", f"{_files(shared)}: {how}" if shared and how else "no other image"))
    rows.append(("Changed by that", _apart(known.get("MovedDegrees"), known.get("MovedMM"))))
    rows += [
        (f"Apart from {_files([one.get('Image')])}", f"{_apart(one.get('Degrees'), one.get('Millimetres'))}: {one.get('Reason')}")
        for one in known.get("NotSharedBy") or []
    ]
    return rows


def _apart(degrees: Any, mm: Any) -> str:
    return f"{_number(degrees, '{:.1f}°')}, {_number(mm, '{:.1f} mm')}"


def _files(uris: Any) -> str:
    return ", ".join(PurePosixPath(str(uri)).name for uri in uris or []) or UNKNOWN


def software_rows(sidecar: Mapping[str, Any]) -> list[Row]:
    """Versions of the software."""
    return [(str(k), _text(v)) for k, v in (sidecar.get("SoftwareVersions") or {}).items()]


def seconds_rows(sidecar: Mapping[str, Any]) -> list[Row]:
    """Seconds by stage, and their sum if the sidecar lacks it."""
    seconds = sidecar.get("Seconds") or {}
    rows = [(str(stage), _number(value, "{:.2f}")) for stage, value in seconds.items()]
    if len(rows) > 1 and not any(str(stage).lower() == "total" for stage in seconds):
        rows.append(("total", f"{sum(float(v) for v in seconds.values() if v is not None):.2f}"))
    return rows


def similarity_rows(sidecar: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Measure, value before and value after.

    Understands ``{"MI": {"before": …, "after": …}}``, ``{"before": {"MI": …}, "after": …}`` and ``{"MI before": …,
    "MI after": …}``; a single value is that of the pose written.

    >>> similarity_rows({"Similarity": {"MIBefore": 0.1, "MIAfter": 0.45678, "NCC": 0.9}})
    [('MI', '0.1', '0.4568'), ('NCC', '', '0.9')]
    """
    found: dict[str, dict[str, str]] = {}
    for name, value in _flat(sidecar.get("Similarity") or {}):
        match = re.match(r"^(?:(.*?)[\s_.-]*)?(before|after|initial|final)(?:[\s_.-]*(.*))?$", name, re.IGNORECASE)
        when, measure = "after", name
        if match:
            when = "before" if match[2].lower() in ("before", "initial") else "after"
            measure = " ".join(p for p in (match[1], match[3]) if p) or "similarity"
        found.setdefault(measure, {})[when] = _number(value, "{:.4g}")
    return [(measure, values.get("before", ""), values.get("after", "")) for measure, values in found.items()]


def matrix_text(pose: Rigid) -> str:
    """The homogeneous matrix (4, 4) of ``pose``, atlas to image, RAS mm, as four lines."""
    matrix = pose.matrix + 0.0  # avoid −0
    return "\n".join(" ".join(f"{value:11.6f}" for value in row) for row in matrix)


def describe(output: str) -> str:
    """Description of an output file, from its name.

    >>> describe("sub-01/anat/sub-01_from-T2w_to-CRL+29_mode-image_xfm.txt")
    'transform from the image to the template (ITK)'
    """
    name = PurePosixPath(output).name
    for pattern, meaning in (
        (r"_from-T[12]w_to-.*_xfm\.json$", "all numbers of this page"),
        (r"\.json$", "sidecar"),
        (r"_from-T[12]w_to-.*_xfm\.txt$", "transform from the image to the template (ITK)"),
        (r"_xfm\.txt$", "transform from the template to the image (ITK)"),
        (r"_space-.*\.nii(\.gz)?$", "image on the template's grid"),
        (r"_desc-reoriented_.*\.nii(\.gz)?$", "image with a new header, its voxels as they were"),
        (r"_desc-brain_mask\.nii(\.gz)?$", "brain mask used"),
        (r"_desc-slices_pose\.tsv$", "pose of each slice, and its motion"),
        (r"_desc-synth_.*\.nii(\.gz)?$", "synthetic T2w image, made for the alignment: not to be measured"),
    ):
        if re.search(pattern, name):
            return meaning
    return "output"


def apply_command(name: str, outputs: Sequence[str]) -> str:
    """An ``antsApplyTransforms`` command that resamples the image to the template's grid, to be run in the folder of the page.

    Empty unless the outputs hold the forward transform and an image on the template's grid, as the reference.
    """
    forward = next((o for o in outputs if re.search(r"_from-T[12]w_to-[^/]*_xfm\.txt$", o)), None)
    grid = next((o for o in outputs if re.search(r"_space-[^/]*\.nii(\.gz)?$", o)), None)
    if forward is None or grid is None:
        return ""
    image = shlex.quote(name) if name.startswith("/") else '"$BIDS_DIR"/' + shlex.quote(name)
    return (
        f"antsApplyTransforms -d 3 -i {image} \\\n  -r {shlex.quote(grid)} \\\n"
        f"  -t {shlex.quote(forward)} \\\n  -o resampled.nii.gz"
    )


def _choice(age: Any, cohort: Any) -> str:
    """Reason for the cohort: its age compared with the image's."""
    if age is None:
        return UNKNOWN
    try:
        older = float(cohort) - float(age)
    except (TypeError, ValueError):
        return f"an image of {_plain(age)} weeks"
    if abs(older) < 0.05:
        return f"an image of {_plain(age)} weeks: the cohort's own age"
    if abs(older) > 10:  # a cohort counted in months, or from birth
        return f"an image of {_plain(age)} weeks"
    side = "older" if older > 0 else "younger"
    return f"an image of {_plain(age)} weeks: the cohort is {abs(older):.1f} weeks {side}"


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        full = f"{above} {name}".strip()
        rows += _flat(value, full) if isinstance(value, Mapping) else [(full, value)]
    return rows


def _number(value: Any, form: str) -> str:
    return form.format(float(value)) if isinstance(value, (int, float)) else _text(value)


def _plain(value: Any) -> str:
    return _number(value, "{:.4g}")


def _triple(values: np.ndarray, each: str = "", unit: str = "") -> str:
    return ", ".join(f"{axis} {v + 0.0:.1f}{each}" for axis, v in zip("RAS", values.round(1), strict=True)) + unit


def _text(value: Any) -> str:
    if value is None or value == "" or value == []:
        return UNKNOWN
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)
