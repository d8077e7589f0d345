"""The contents of the sidecars that posepipe writes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .._version import __version__

if TYPE_CHECKING:
    from ..geometry import Rigid

Records = Mapping[str, Mapping[str, Any]]

STAGES = {
    "mask": "Mask",
    "convert": "Conversion",
    "initial": "InitialPose",
    "refined": "Refinement",
    "slices": "Slices",
    "session": "SessionPose",
    "quality": "Quality",
    "apply": "Resampling",
    "figure": "Figure",
    "outputs": "Outputs",
}
"""Stage of the workflow → its key under ``Seconds`` and ``PeakMemoryMB``; of images that are not converted there is no record of
``convert``, of those that are no stack none of ``slices``,
of those without a session's pose none of ``session``."""
_PACKAGES = ("nipype", "numpy", "scipy", "nibabel", "nitransforms", "torch", "antspyx")


def software_versions() -> dict[str, str]:
    """Versions of posepipe, Python and the packages that compute the results."""
    versions = {"posepipe": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def forward_sidecar(known: Mapping[str, Any], pose: Rigid, records: Records) -> dict[str, Any]:
    """The sidecar of the forward transform: the full provenance of the pose.

    ``known`` are the values from the plan of the image; ``records`` are those of the stages (:data:`STAGES`).
    """
    from ..bids import HASH_KEY
    from ..settings import WHOLE
    from .spread import SESSION_KEY

    quality, convert, slices, session = records["quality"], records.get("convert"), records.get("slices"), records.get("session")
    return {
        "Sources": known["Sources"],
        "Age": known["Age"],
        "AgeSource": known["AgeSource"],
        **({"AgeStandardError": known["AgeStandardError"]} if "AgeStandardError" in known else {}),
        "Atlas": known["Atlas"],
        "Cohort": known["Cohort"],
        "Contrast": known["Contrast"],
        **({"ContrastConversion": convert["network"]} if convert else {}),
        "Mask": records["mask"]["source"],
        "InitMethod": records["initial"]["method"],
        "RefineMethod": records["refined"]["method"],
        "RefineTemplate": records["refined"].get("template", WHOLE),
        **({"Slices": about_slices(slices)} if slices else {}),
        "RotationMatrix": pose.rotation,
        "RotationVector": pose.rotvec,
        "RotationAngleDegrees": pose.angle_degrees,
        "TranslationMM": pose.translation,
        "BrainCenterMM": quality["center"],
        **({SESSION_KEY: session[SESSION_KEY]} if session else {}),
        "Similarity": records["refined"]["similarity"],
        "Confidence": quality["confidence"],
        "QC": quality["qc"],
        "QCReasons": quality["reasons"],
        **({"Warnings": quality["notes"]} if quality.get("notes") else {}),
        "Seconds": _by_stage(records, "seconds"),
        **({"PeakMemoryMB": peaks} if (peaks := _by_stage(records, "peak_memory_mb")) else {}),
        "Weights": {
            **records["mask"]["weights"],
            **(convert["weights"] if convert else {}),
            **(records["initial"].get("witness") or {}).get("weights", {}),
            **(slices["Weights"] if slices else {}),
        },
        "SoftwareVersions": software_versions(),
        **({HASH_KEY: known["ParametersHash"]} if "ParametersHash" in known else {}),
    }


def _by_stage(records: Records, key: str) -> dict[str, Any]:
    """The values of ``key`` in the records of the stages, with the names used in sidecars."""
    return {name: records[stage][key] for stage, name in STAGES.items() if key in records.get(stage, {})}


def other_sidecars(
    known: Mapping[str, Any],
    mask: Mapping[str, Any],
    expected: float,
    forward: str,
    convert: Mapping[str, Any] | None = None,
    slices: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """The sidecars of the other outputs, by the output's name; ``mask`` is the record of the brain mask, ``convert`` that of the
    conversion, if there was one, ``slices`` that of the poses of the slices.

    ``expected`` is the volume (ml) of the template's mask: that of a brain of its age. ``forward`` names the forward transform, as a
    BIDS URI in a BIDS dataset.
    """
    image = known["Sources"][0]
    return {
        "backward": {"Sources": [forward], "InverseOf": forward},
        **({"synth": _synthetic(known, convert)} if convert else {}),
        **({"slices": _slice_poses(known, slices)} if slices else {}),
        "mask": {
            "Type": "Brain",
            "Sources": known["Sources"],
            "Mask": mask["source"],
            "Voxels": mask["voxels"],
            "Millilitres": mask["millilitres"],
            "ExpectedMillilitres": expected,
            "VolumeRatio": mask["millilitres"] / expected,
            "Warnings": mask["warnings"],
            **({"Weights": mask["weights"]} if mask["weights"] else {}),
        },
        "reoriented": {
            "SkullStripped": mask["skull_stripped"],
            "Sources": [image, forward],
            "Transform": forward,
            "Interpolation": "none",
        },
        "resampled": {
            "SkullStripped": mask["skull_stripped"],
            "Sources": [image, forward],
            "Transform": forward,
            "Interpolation": "cubic",
            **({"SpatialReference": known["SpatialReference"]} if "SpatialReference" in known else {}),
            "Atlas": known["Atlas"],
            "Cohort": known["Cohort"],
            "TemplateContrast": known["TemplateContrast"],
            "TemplateChoice": known["TemplateChoice"],
            "TemplateFiles": known["TemplateFiles"],
            "Warnings": known["Warnings"],
        },
    }


IN_FORWARD = ("TemplateContrast", "TemplateChoice", "TemplateFiles")
"""What the sidecar of the resampled image tells of the template, and that of the forward transform where that image is not written."""
_OF_MASK = ("Voxels", "Millilitres", "ExpectedMillilitres", "VolumeRatio", "Warnings")


def instead_of_others(level: str, forward: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the ``forward`` transform's sidecar tells at a ``level`` at which mask and resampled image are not written, from their sidecars
    among the ``others``; nothing at the full one."""
    from ..bids.names import BRAIN_MASK_KEY, LEVEL_KEY
    from ..settings import FULL

    if level == FULL:
        return {}
    resampled, mask = others["resampled"], others["mask"]
    warnings = [*forward.get("Warnings", []), *resampled["Warnings"]]
    return {
        LEVEL_KEY: level,
        **{key: resampled[key] for key in IN_FORWARD},
        BRAIN_MASK_KEY: {key: mask[key] for key in _OF_MASK},
        **({"Warnings": list(dict.fromkeys(warnings))} if warnings else {}),
    }


def about_slices(record: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of the slices of a stack for sidecars, from the record of :class:`~posepipe.interfaces.slices.SlicePoses`."""
    return {k: v for k, v in record.items() if k not in {"seconds", "peak_memory_mb", "Weights"}}


def _slice_poses(known: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The data dictionary of the table of slice poses."""
    from ..bids.slice_table import COLUMNS

    return {
        "Description": "Pose of the head in each slice of the image: rigid maps from points of the atlas to points of the image, RAS mm.",
        "Sources": known["Sources"],
        "Atlas": known["Atlas"],
        "Cohort": known["Cohort"],
        **about_slices(record),
        "Weights": record["Weights"],
        **COLUMNS,
    }


def _synthetic(known: Mapping[str, Any], convert: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Description": "Synthetic: generated by a neural network from the T1w image, so that it can be aligned to a T2w template. Not an "
        "acquired image: not for diagnosis and not for measurements.",
        "Synthetic": True,
        "SkullStripped": True,
        "Sources": known["Sources"],
        "Model": convert["network"],
        "Weights": convert["weights"],
    }
