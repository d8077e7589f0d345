"""The result of aligning one image, and its output files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._version import __version__
from .age.curves import AgeEstimate
from .atlas import Template, label_maps
from .contrast.converter import Converted
from .geometry import Rigid, write_itk
from .imaging.apply import reorient, resample_to_template
from .imaging.mask import BrainMask
from .imaging.restore import labels_on_image, restore
from .imaging.volume import Volume, load_volume, save_volume
from .matching.target import Target
from .models.weights import CONTRAST_NETWORK
from .pose.initial import InitialPose
from .quality.verdict import Quality
from .refinement.refine import Refined

if TYPE_CHECKING:
    from .slices.align import StackAlignment


@dataclass(frozen=True, eq=False)
class Alignment:
    """One image aligned to one template.

    ``pose`` maps atlas points to image points, RAS mm. ``choice_reason`` says why this template was chosen; ``seconds`` maps
    each stage to its duration. ``age_estimate`` is set if the ``age`` was estimated from the image. ``conversion`` is the T2-like image
    that replaced a T1w image in the alignment, None if there was none. ``slices`` are the poses of the slices of a stack, None for a
    volume.
    """

    pose: Rigid
    template: Template
    target: Target
    choice_reason: str
    age: float | None
    contrast: str
    image: Volume
    mask: BrainMask
    initial: InitialPose
    refined: Refined
    quality: Quality
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    age_estimate: AgeEstimate | None = None
    conversion: Converted | None = None
    slices: StackAlignment | None = None

    @property
    def age_error(self) -> float | None:
        """Standard error (weeks) of an estimated ``age``, None if the age was given."""
        return self.age_estimate.error if self.age_estimate else None

    @property
    def converted(self) -> Volume | None:
        """The synthetic T2-like image that replaced a T1w image in the alignment: on the image's grid, 0 outside the mask."""
        return self.conversion.volume if self.conversion else None

    def resampled(self) -> Volume:
        """The image on the template's grid, one cubic interpolation."""
        return resample_to_template(self.image, self.target.volume, self.pose)

    def reoriented(self) -> Volume:
        """The image's own voxels, with an affine in the template's frame; no interpolation."""
        return reorient(self.image, self.pose)

    def restore(self, volume: Volume, order: int | None = None) -> Volume:
        """``volume``, made of the reoriented image or on the template's grid, back on the image's own grid; see
        :func:`~posepipe.imaging.restore.restore`."""
        return restore(volume, self.image, self.pose, order)

    def labels(self) -> dict[str, Volume]:
        """The template's label maps (tissues, regions) on the image's grid, by kind: turned and shifted only, no segmentation."""
        return {m.kind: labels_on_image(load_volume(m.path, None), self.image, self.pose) for m in label_maps(self.template)}

    def sidecar(self) -> dict[str, Any]:
        """Contents of the forward transform's JSON sidecar, with the keys of docs/reference/outputs.md."""
        return {
            "Age": self.age,
            **({} if self.age_error is None else {"AgeStandardError": self.age_error}),
            "Atlas": self.template.atlas,
            "Cohort": self.template.cohort,
            "Contrast": self.contrast,
            **({"ContrastConversion": CONTRAST_NETWORK} if self.conversion else {}),
            "Mask": self.mask.source,
            "InitMethod": self.initial.method,
            "RefineMethod": self.refined.method,
            "RefineTemplate": self.refined.template,
            **({"Slices": _without(self.slices.about(), "Weights")} if self.slices else {}),
            "RotationMatrix": self.pose.rotation.tolist(),
            "RotationVector": self.pose.rotvec.tolist(),
            "RotationAngleDegrees": self.pose.angle_degrees,
            "TranslationMM": self.pose.translation.tolist(),
            "Similarity": self.refined.similarity,
            "Confidence": self.quality.confidence,
            "QC": self.quality.qc,
            "QCReasons": list(self.quality.reasons),
            **({"Warnings": notes} if (notes := [*self.image.notes, *self.target.notes]) else {}),
            "Seconds": self.seconds,
            "Weights": {
                **self.mask.weights,
                **(self.conversion.weights if self.conversion else {}),
                **(self.initial.prediction.weights if self.initial.prediction else {}),
                **(self.slices.weights if self.slices else {}),
            },
            "SoftwareVersions": software_versions(self.refined.method),
        }

    def save(self, folder: str | Path, stem: str) -> list[Path]:
        """Write both transforms, the resampled and the reoriented image, the mask and, if present, the conversion and the table of slice
        poses as ``folder/stem_…``; returns the paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        converted = self.converted
        kinds = (*(("synth",) if converted else ()), *(("slices",) if self.slices else ()))
        files = file_names(folder, stem, self.template.space, self.contrast, kinds)
        return [
            write_itk(self.pose, files["forward"]),
            write_itk(~self.pose, files["backward"]),
            save_volume(self.resampled(), files["resampled"]),
            save_volume(self.reoriented(), files["reoriented"]),
            save_volume(self.mask.volume, files["mask"], dtype=np.uint8),
            *([save_volume(converted, files["synth"], dtype=np.int16)] if converted else []),
            *([self.slices.save(files["slices"])] if self.slices else []),
        ]


def file_names(folder: Path, stem: str, space: str, contrast: str, more: Iterable[str] = ()) -> dict[str, Path]:
    """Files of one image that is in no BIDS dataset, by kind, in the order in which they are written.

    ``space`` is the template's, such as ``CRL+29``; ``more`` names those that not every image has: ``synth``, ``slices``.

    >>> {kind: path.name for kind, path in file_names(Path("out"), "a", "CRL+29", "T2w").items()}["resampled"]
    'a_space-CRL_cohort-29_T2w.nii.gz'
    """
    names = {
        "forward": f"from-{contrast}_to-{space}_mode-image_xfm.txt",
        "backward": f"from-{space}_to-{contrast}_mode-image_xfm.txt",
        "resampled": f"space-{space.replace('+', '_cohort-')}_{contrast}.nii.gz",
        "reoriented": f"desc-reoriented_{contrast}.nii.gz",
        "mask": "desc-brain_mask.nii.gz",
    }
    rare = {"synth": "desc-synth_T2w.nii.gz", "slices": "desc-slices_pose.tsv"}
    names |= {kind: rare[kind] for kind in rare if kind in more}
    return {kind: folder / f"{stem}_{name}" for kind, name in names.items()}


def software_versions(refine: str) -> dict[str, str]:
    """Versions of posepipe and of the packages that compute a pose."""
    from importlib.metadata import version

    names = ["torch", "numpy", "scipy", "nibabel", *(["antspyx"] if refine == "ants" else [])]
    return {"posepipe": __version__, **{n: version(n) for n in names}}


def _without(known: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in known.items() if k != key}
