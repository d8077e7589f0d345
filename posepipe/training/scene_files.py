"""Reading of scenes from BIDS datasets: raw scans with brain masks, or with landmarks (the brain's centre and the eyes)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..bids import AgeReader, InputImage, find_images, read_json
from ..errors import PosepipeError, UsageError
from ..geometry import Rigid
from ..geometry.so3 import Array, exp
from ..imaging.inside import load_mask
from ..imaging.mask import given_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_logged, load_volume
from .scenes import Scene, Scenes, scene_of
from .split import Split, load_scan_poses
from .subjects import Reference

LANDMARKS = "landmarks.tsv"
EYES_TILT_DEGREES = 36.0
"""Angle between the atlas's anterior axis and the direction from the brain's centre to the eyes, which lie below that axis. Measured on
nine scans of one fetus of 31 weeks, each registered from its landmarks (docs/decisions/026-head-landmarks.md)."""


@dataclass(frozen=True)
class Landmarks:
    """Centre of the ``brain`` and of the ``left`` and ``right`` eye (3,), RAS mm."""

    brain: Array
    left: Array
    right: Array

    def pose(self, center: Array, to_canonical: Array, tilt: float = EYES_TILT_DEGREES) -> Rigid:
        """Pose template → image (RAS mm) by the landmarks, of a template with the brain's ``center`` (3,) mm and the rotation
        ``to_canonical`` (3, 3). The x axis is the direction from the left eye to the right; the eyes are ``tilt`` degrees below the
        anterior axis."""
        return Rigid.about(self.canonical(tilt) @ to_canonical, center, self.brain)

    def canonical(self, tilt: float = EYES_TILT_DEGREES) -> Array:
        """Rotation (3, 3) from the canonical frame to the RAS world."""
        return self.head @ exp(np.radians([tilt, 0.0, 0.0]))

    @property
    def head(self) -> Array:
        """The head's axes as columns (3, 3): right; from the brain's centre to the eyes, orthogonal to right; and their cross product."""
        right = self.right - self.left
        right = right / np.linalg.norm(right)
        ahead = (self.left + self.right) / 2 - self.brain
        ahead = ahead - right * (ahead @ right)
        ahead = ahead / np.linalg.norm(ahead)
        return np.stack([right, ahead, np.cross(right, ahead)], 1)


def read_landmarks(folder: Path) -> dict[str, Landmarks]:
    """Participant → landmarks, of the dataset's ``landmarks.tsv`` (columns ``brain_x`` … ``eyeR_z``); none without that file."""
    path = folder / LANDMARKS
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    try:
        return {r["participant_id"]: Landmarks(*(_point(r, of) for of in ("brain", "eyeL", "eyeR"))) for r in rows}
    except (KeyError, ValueError) as error:
        msg = f"{path}: not a table of landmarks ({error!r}); it needs participant_id, brain_x, brain_y, brain_z, and eyeL and eyeR alike"
        raise UsageError(msg) from error


def add_scenes(
    folder: Path, derivatives: Sequence[str | Path], split: Split, reference: Reference | None, say: Callable[[str], None] = print
) -> Scenes:
    """The training scans (by ``split``) of a BIDS dataset as scenes. Masks come from ``derivatives``; without one the mask of the
    ``reference`` atlas is placed by the landmarks. Scans that cannot be used are left out, and reported to ``say``."""
    folder = folder.resolve()
    landmarks, ages, scenes, poses = read_landmarks(folder), AgeReader(folder), [], load_scan_poses()
    for image in find_images(folder, derivatives=derivatives):
        name = image.path.name.partition("_T")[0]
        if (part := split.part(name)) != "train":
            say(f"{name}: left out, kept for {part} by the split")
            continue
        try:
            scenes.append(_scene(name, folder.name, image, landmarks.get(f"sub-{image.subject}"), ages, reference, poses))
        except PosepipeError as error:
            say(f"{name}: left out: {error}")
        else:
            say(f"{name}: scene of {scenes[-1].image.shape} voxels of {scenes[-1].spacing:.1f} mm")
    described = folder / "dataset_description.json"
    stated = read_json(described).get("License") if described.is_file() else None
    return Scenes(tuple(scenes), {folder.name: str(stated or "not stated")})


def _scene(
    name: str, group: str, image: InputImage, marks: Landmarks | None, ages: AgeReader, reference: Reference | None,
    poses: Mapping[str, Array],
) -> Scene:  # fmt: skip
    volume = load_logged(image.path)
    known = next((poses[n] for n in (name, name.partition("_acq")[0]) if n in poses), None)
    if image.mask is not None:
        return scene_of(name, group, volume, given_mask(load_volume(image.mask), volume).volume, known)
    if marks is None or reference is None:
        msg = f"{image.path}: no brain mask, and no landmarks by which the mask of a --reference atlas could be placed"
        raise UsageError(msg)
    template = reference.nearest(ages.age_of(image).weeks)
    if template.mask is None or template.to_canonical is None:
        msg = f"{template.image}: no brain mask, or no rotation to the canonical frame, is known for it; take another --reference"
        raise UsageError(msg)
    mask = load_mask(template.mask)
    pose = marks.pose(moments(mask).center, template.to_canonical)
    return scene_of(name, group, volume, place_mask(mask, volume, pose), marks.canonical(), delineated=False)


def place_mask(mask: Volume, image: Volume, pose: Rigid) -> Volume:
    """The ``mask`` (bool) of a template on the grid of ``image``, placed by ``pose`` (template → image); bool."""
    to_voxel = np.linalg.inv(mask.affine) @ (~pose).matrix @ image.affine
    inside = ndimage.affine_transform(mask.data.astype(np.float32), to_voxel[:3, :3], to_voxel[:3, 3], image.shape, order=1)
    return image.with_data(inside > 0.5)


def _point(row: dict[str, str], of: str) -> Array:
    return np.array([float(row[f"{of}_{axis}"]) for axis in "xyz"])
