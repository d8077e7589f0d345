"""An output dataset as the participant level leaves it, written directly: sidecars, and images on request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posepipe.bids import Failures, InputImage
from posepipe.bids.entities import split_name
from posepipe.geometry import Rigid, write_itk
from posepipe.imaging.volume import Volume, save_volume


@dataclass(frozen=True)
class Output:
    """One image with a pose; ``more`` replaces or adds keys of the forward sidecar."""

    subject: str
    session: str | None = None
    contrast: str = "T2w"
    age: float = 29.0
    qc: str = "pass"
    ncc: float = 0.9
    dice: float = 0.95
    confidence: float | None = None
    angle: float = 40.0
    reasons: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def folder(self) -> Path:
        return Path(f"sub-{self.subject}", *([f"ses-{self.session}"] if self.session else []), "anat")

    @property
    def image(self) -> str:
        """Path of the input."""
        return (self.folder / f"{self.stem}_{self.contrast}.nii.gz").as_posix()

    @property
    def forward(self) -> Path:
        """Sidecar of the forward transform, below the output dataset."""
        return self.folder / f"{self.stem}_from-{self.contrast}_to-CRL+29_mode-image_xfm.json"

    @property
    def resampled(self) -> Path:
        return self.folder / f"{self.stem}_space-CRL_cohort-29_{self.contrast}.json"

    @property
    def page(self) -> str:
        return f"{self.stem}.html"

    def sidecar(self) -> dict[str, Any]:
        pose = Rigid.from_rotvec([np.radians(self.angle), 0.0, 0.0], [1.0, 2.0, 3.0])
        return {
            "Sources": [f"bids:raw:{self.image}"],
            "Age": self.age,
            "AgeSource": "participants.tsv:ga_weeks",
            "Atlas": "CRL",
            "Cohort": "29",
            "Contrast": self.contrast,
            "Mask": "given",
            "InitMethod": "search",
            "RefineMethod": "ants",
            "RotationMatrix": pose.rotation.tolist(),
            "RotationVector": pose.rotvec.tolist(),
            "RotationAngleDegrees": pose.angle_degrees,
            "TranslationMM": pose.translation.tolist(),
            "Similarity": {
                "NCC": {"before": self.ncc - 0.1, "after": self.ncc},
                "Dice": {"before": self.dice - 0.1, "after": self.dice},
            },
            "Confidence": self.confidence,
            "QC": self.qc,
            "QCReasons": list(self.reasons),
            "Seconds": {"Mask": 0.5, "InitialPose": 1.5},
            "Weights": {},
            "SoftwareVersions": {"posepipe": "0.1.0"},
            **self.more,
        }


def write_output(out_dir: Path, output: Output, *, page: bool = True, images: bool = False) -> None:
    """Write the sidecars of ``output``, a page with its name in it, and small images."""
    folder = out_dir / output.folder
    folder.mkdir(parents=True, exist_ok=True)
    forward = out_dir / output.forward
    forward.write_text(json.dumps(output.sidecar()))
    files = {"tpl-CRL_cohort-29_T2w.nii.gz": "0a" * 32}
    resampled = {"TemplateContrast": output.contrast, "Warnings": [], "TemplateFiles": files}
    (out_dir / output.resampled).write_text(json.dumps(resampled))
    backward = folder / f"{output.stem}_from-CRL+29_to-{output.contrast}_mode-image_xfm.json"
    backward.write_text(json.dumps({"InverseOf": forward.name}))
    if page:
        (out_dir / output.page).write_text(f"<!DOCTYPE html><title>{output.stem}</title><p>page of {output.stem}</p>")
    if images:
        _write_images(out_dir, output)


def _write_images(out_dir: Path, output: Output) -> None:
    """A block that is brighter on the subject's right, in the image's own pose, with its mask."""
    pose = Rigid(np.array(output.sidecar()["RotationMatrix"]), np.array(output.sidecar()["TranslationMM"]))
    data = np.zeros((24, 28, 20), np.float32)
    data[4:20, 4:24, 5:15] = 50
    data[12:20, 4:24, 5:15] = 100
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-46, -54, -38]
    template = Volume(data, affine)
    folder = out_dir / output.folder
    save_volume(template, (out_dir / output.resampled).with_suffix(".nii.gz"))
    mask = template.with_data((data > 0).astype(np.uint8)).moved(pose)
    extra = "" if output.contrast == "T2w" else f"_mod-{output.contrast}"
    save_volume(mask, folder / f"{output.stem}{extra}_desc-brain_mask.nii.gz")
    write_itk(pose, (out_dir / output.forward).with_suffix(".txt"))


def write_failure(out_dir: Path, image: str, error: str = "MaskError: the mask is empty") -> None:
    """Note that ``image`` (path below its dataset) failed."""
    split = split_name(Path(image).name)
    assert split is not None
    Failures(out_dir).record(InputImage(out_dir / image, Path(image), split.entities, split.suffix), "mask", error)


def rating(image: str, decision: str = "accept", quality: int | None = 4, **more: Any) -> dict[str, Any]:
    """One entry of a rating file; ``image`` is a name such as ``sub-01_T2w``."""
    split = split_name(image)
    assert split is not None
    given = {
        "subject": split.entities["sub"], "session": split.entities.get("ses"), "image": image, "decision": decision,
        "quality": quality, "artefacts": [], "comment": "", "rated": "2026-11-01T10:00:00Z",
    }  # fmt: skip
    return given | more


def write_ratings(path: Path, rater: str, ratings: list[dict[str, Any]]) -> Path:
    """A file as a page exports it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"posepipe_ratings": 1, "rater": rater, "exported": "2026-11-02T10:00:00Z", "ratings": ratings}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
