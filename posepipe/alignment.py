"""What is known of one image once it is aligned, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._version import __version__
from .age.curves import AgeEstimate
from .atlas import Template
from .contrast.converter import Converted
from .geometry import Rigid, write_itk
from .imaging.apply import reorient, resample_to_template
from .imaging.mask import BrainMask
from .imaging.volume import Volume, save_volume
from .matching.target import Target
from .models.weights import CONTRAST_NETWORK
from .pose.initial import InitialPose
from .quality.verdict import Quality
from .refinement.refine import Refined

if TYPE_CHECKING:
    from .slices.align import StackAlignment


@dataclass(frozen=True, eq=False)
class Alignment:
    """One image in the frame of one template.

    ``pose`` maps atlas points to image points, RAS mm (DESIGN §2). ``choice_reason`` says why this template; ``seconds`` is time by stage.
    ``guess`` is the estimate of an ``age`` that was not given. ``conversion`` is the image in
    T2-like contrast by which a T1w image was aligned, None where it was aligned as it is. ``slices`` are the poses of the slices of a
    stack, None of an image that is none.
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
    guess: AgeEstimate | None = None
    conversion: Converted | None = None
    slices: StackAlignment | None = None

    @property
    def age_error(self) -> float | None:
        """The standard error (weeks) of an ``age`` that was estimated, None where it was given."""
        return self.guess.error if self.guess else None

    @property
    def converted(self) -> Volume | None:
        """The synthetic T2-like image by which a T1w image was aligned: on the image's grid, 0 outside the mask."""
        return self.conversion.volume if self.conversion else None

    def resampled(self) -> Volume:
        """The image on the template's grid, one cubic interpolation."""
        return resample_to_template(self.image, self.target.volume, self.pose)

    def reoriented(self) -> Volume:
        """The image's own voxels, header turned into the template's frame."""
        return reorient(self.image, self.pose)

    def sidecar(self) -> dict[str, Any]:
        """What is known of the transform, by the keys of DESIGN §1."""
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
        """Write both transforms, the resampled and the reoriented image, the mask and, if there are such, the conversion and the poses of
        the slices as ``folder/stem_…``; returns the paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        space = self.template.space
        kind = self.contrast
        converted = self.converted
        return [
            write_itk(self.pose, folder / f"{stem}_from-{kind}_to-{space}_mode-image_xfm.txt"),
            write_itk(~self.pose, folder / f"{stem}_from-{space}_to-{kind}_mode-image_xfm.txt"),
            save_volume(self.resampled(), folder / f"{stem}_space-{space.replace('+', '_cohort-')}_{kind}.nii.gz"),
            save_volume(self.reoriented(), folder / f"{stem}_desc-reoriented_{kind}.nii.gz"),
            save_volume(self.mask.volume, folder / f"{stem}_desc-brain_mask.nii.gz", dtype=np.uint8),
            *([save_volume(converted, folder / f"{stem}_desc-synth_T2w.nii.gz", dtype=np.int16)] if converted else []),
            *([self.slices.save(folder / f"{stem}_desc-slices_pose.tsv")] if self.slices else []),
        ]


def software_versions(refine: str) -> dict[str, str]:
    """Versions of what computes a pose."""
    from importlib.metadata import version

    names = ["torch", "numpy", "scipy", "nibabel", *(["antspyx"] if refine == "ants" else [])]
    return {"posepipe": __version__, **{n: version(n) for n in names}}


def _without(known: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in known.items() if k != key}
