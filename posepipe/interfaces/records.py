"""JSON records of the stages, which nodes exchange in addition to images: conversion to and from objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..imaging.mask import BrainMask, FoundPose
    from ..imaging.volume import Volume
    from ..pose.initial import InitialPose, NetworkPrediction
    from ..refinement.refine import Refined


def write_record(cwd: str | Path, name: str, record: Mapping[str, Any]) -> str:
    """Write ``record`` to ``cwd/name.json``; its path."""
    from ..bids import write_json

    return str(write_json(Path(cwd) / f"{name}.json", record))


def weights_folder(inputs: Any) -> Path | None:
    """The folder of network weights whose listing an interface's ``weights`` names, if it names one."""
    from nipype.interfaces.base import isdefined

    return Path(inputs.weights).parent if isdefined(inputs.weights) else None


def initial_to_record(initial: InitialPose) -> dict[str, Any]:
    """The initial pose as plain values; hypotheses best first, rotation vectors in radians, translations in mm.

    The network prediction has the key ``witness`` and its reliability the key ``sure``, which existing work folders hold.
    """
    hypotheses = [
        {
            "rotvec": h.pose.rotvec.tolist(),
            "translation": h.pose.translation.tolist(),
            **{f.name: getattr(h, f.name) for f in fields(h) if f.name != "pose"},
        }
        for h in initial.hypotheses
    ]
    return {
        "method": initial.method,
        "scale": float(initial.scale),
        "ranked_by": initial.found.by,
        "hypotheses": hypotheses,
        "witness": None if initial.prediction is None else _prediction_to_record(initial.prediction),
    }


def _prediction_to_record(prediction: NetworkPrediction) -> dict[str, Any]:
    return {
        "rotvec": prediction.pose.rotvec.tolist(),
        "translation": prediction.pose.translation.tolist(),
        "features": dict(prediction.features),
        "weights": dict(prediction.weights),
        "sure": prediction.reliable,
    }


def initial_of(record_file: str | Path, pose_file: str | Path) -> InitialPose:
    """The initial pose from the record of :func:`initial_to_record` and its transform file."""
    from ..bids import read_json
    from ..geometry import Rigid, read_itk
    from ..pose.hypothesis import Hypothesis, Ranked
    from ..pose.initial import InitialPose, NetworkPrediction

    record = read_json(record_file)
    hypotheses = tuple(
        Hypothesis(pose=Rigid.from_rotvec(h.pop("rotvec"), h.pop("translation")), **h) for h in record["hypotheses"]
    )
    prediction = None
    if (stored := record["witness"]) is not None:
        pose = Rigid.from_rotvec(stored["rotvec"], stored["translation"])
        prediction = NetworkPrediction(pose, stored["features"], stored["weights"], stored["sure"])
    return InitialPose(
        pose=read_itk(pose_file),
        method=record["method"],
        found=Ranked(hypotheses, record["ranked_by"]),
        scale=record["scale"],
        prediction=prediction,
    )


def refined_of(record_file: str | Path, pose_file: str | Path) -> Refined:
    """The refined pose from the record of :class:`~posepipe.interfaces.pose.RefinePose` and its transform file."""
    from ..bids import read_json
    from ..geometry import read_itk
    from ..refinement.refine import Refined
    from ..settings import WHOLE

    record = read_json(record_file)
    return Refined(
        pose=read_itk(pose_file),
        method=record["method"],
        similarity=record["similarity"],
        warnings=tuple(record["warnings"]),
        template=record.get("template", WHOLE),  # missing in older records
    )


def mask_to_record(mask: BrainMask, image: Volume) -> dict[str, Any]:
    """The metadata of the brain mask of ``image``."""
    from ..imaging.mask import is_skull_stripped

    return {
        "source": mask.source,
        "voxels": mask.voxels,
        "millilitres": mask.millilitres,
        "skull_stripped": is_skull_stripped(image, mask.volume),
        "warnings": list(mask.warnings),
        "weights": dict(mask.weights),
        "found": None if mask.found is None else _found_to_record(mask.found),
    }


def _found_to_record(found: FoundPose) -> dict[str, Any]:
    return {
        "rotation": found.rotation.tolist(),
        "origin": found.origin.tolist(),
        "radius": found.radius,
        "features": dict(found.features),
    }


def mask_of(mask_file: str | Path, record_file: str | Path) -> BrainMask:
    """The brain mask that :class:`~posepipe.interfaces.mask.BrainMask` wrote."""
    from ..bids import read_json
    from ..imaging.inside import load_mask
    from ..imaging.mask import BrainMask

    record = read_json(record_file)
    return BrainMask(
        load_mask(mask_file),
        record["source"],
        tuple(record["warnings"]),
        record["weights"],
        found=found_of(record),
    )


def found_of(record: Mapping[str, Any]) -> FoundPose | None:
    """The masking network's pose from the record of :func:`mask_to_record`; None for other masks."""
    import numpy as np

    from ..imaging.mask import FoundPose

    found = record.get("found")
    if found is None:
        return None
    return FoundPose(np.array(found["rotation"]), np.array(found["origin"]), found["radius"], found["features"])
