"""Real anatomy to train on: every template and subject once, upright in the canonical frame, as small volumes of bytes.

A *picture* is a volume of bytes on a cube of :data:`SIDE` voxels that reaches ``HALF_SIDE`` brain radii either way of the mask's
centre: an image (1–255 within the mask) or a label map, in which voxels left of the midplane have :data:`LEFT` added, so that the
two halves can be given the same contrast or different ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..atlas import AtlasLibrary, Template
from ..errors import UsageError
from ..geometry.so3 import Array
from ..imaging.mask import given_mask, nonzero_mask
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from ..models.coordinates import HALF_SIDE
from .split import Split

SIDE = 80
LEFT = 128
FORMAT = 1


@dataclass(frozen=True)
class Picture:
    """What one volume is: ``kind`` is ``labels``, ``T2w`` or ``T1w``; ``group`` an atlas or data set; ``mask`` its row among the masks."""

    name: str
    group: str
    part: str
    age: float
    kind: str
    mask: int
    radius_mm: float


@dataclass(frozen=True, eq=False)
class Sources:
    """``pictures[i]`` describes ``voxels[i]`` (D, D, D) uint8; ``masks`` (M, D, D, D) uint8, 255 inside."""

    pictures: tuple[Picture, ...]
    voxels: np.ndarray
    masks: np.ndarray

    def pick(self, *, part: str = "train", leave_out: tuple[str, ...] = (), kinds: tuple[str, ...] = ("labels", "T2w", "T1w")) -> Array:
        """Rows of the pictures of ``part`` and ``kinds``, without the groups in ``leave_out``."""
        keep = [
            i
            for i, p in enumerate(self.pictures)
            if p.part == part and p.kind in kinds and p.group not in leave_out
        ]
        if not keep:
            msg = f"no picture to use: part {part}, kinds {', '.join(kinds)}, without {', '.join(leave_out) or 'nothing'}"
            raise UsageError(msg)
        return np.array(keep)

    def save(self, path: str | Path) -> Path:
        """One compressed file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"format": FORMAT, "pictures": [asdict(p) for p in self.pictures]})
        np.savez_compressed(path, voxels=self.voxels, masks=self.masks, about=np.array(about))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Sources:
        """Raises :class:`~posepipe.errors.UsageError` for anything but a file of :meth:`save`."""
        try:
            with np.load(path) as file:
                about = json.loads(str(file["about"]))
                if about["format"] != FORMAT:
                    msg = f"{path}: made by another version of posepipe; make it again with `posepipe-tools train sources`"
                    raise UsageError(msg)
                return cls(tuple(Picture(**p) for p in about["pictures"]), file["voxels"], file["masks"])
        except (OSError, KeyError, ValueError) as error:
            msg = f"{path}: not a file of training sources ({error}); make one with `posepipe-tools train sources`"
            raise UsageError(msg) from error


class Collector:
    """Gathers pictures; :meth:`sources` hands them over."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._pictures: list[Picture] = []
        self._voxels: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []

    def add(
        self, name: str, group: str, age: float, mask: Volume, to_canonical: Array, images: dict[str, Volume], labels: dict[str, Volume]
    ) -> None:
        """One brain: ``to_canonical`` (3, 3) turns its RAS world upright; ``images`` by contrast and any number of ``labels`` on the
        grid of ``mask``. Brains kept for testing are passed over."""
        part = self._split.part(name)
        if part == "test":
            return
        about = moments(mask)
        frame = Frame(to_canonical, about.center, about.radius)
        inside = frame.resample(mask.with_data(mask.data.astype(np.float32)), smooth=True)
        row = len(self._masks)
        self._masks.append((255 * inside).round().astype(np.uint8))
        hard = inside > 0.5
        for kind, volume in images.items():
            low, high = np.percentile(volume.data[mask.data > 0], [0.5, 99.5])
            scaled = np.clip((volume.data - low) / max(high - low, 1e-6), 0, 1)
            picture = frame.resample(volume.with_data(np.where(mask.data > 0, scaled, 0).astype(np.float32)), smooth=True)
            picture = np.clip(picture / np.maximum(inside, 0.3), 0, 1)
            self._append(Picture(name, group, part, age, kind, row, about.radius), 1 + 254 * picture, inside > 0.02)
        for volume in labels.values():
            values = np.unique(volume.data)
            index = np.searchsorted(values, volume.data).astype(np.float32)
            picture = frame.resample(volume.with_data(index), smooth=False)
            half = np.arange(SIDE)[:, None, None] < SIDE / 2
            picture = picture + LEFT * half
            self._append(Picture(name, group, part, age, "labels", row, about.radius), picture, hard)

    def _append(self, picture: Picture, values: np.ndarray, inside: np.ndarray) -> None:
        self._pictures.append(picture)
        self._voxels.append(np.where(inside, values, 0).round().astype(np.uint8))

    def sources(self) -> Sources:
        """Everything gathered so far."""
        return Sources(tuple(self._pictures), np.stack(self._voxels), np.stack(self._masks))


@dataclass(frozen=True, eq=False)
class Frame:
    """Canonical coordinates of one brain: ``p = R (x − center) / radius``, x in RAS mm."""

    rotation: Array
    center: Array
    radius: float

    def resample(self, volume: Volume, *, smooth: bool) -> np.ndarray:
        """``volume`` on the canonical cube (SIDE, SIDE, SIDE); blurred and trilinear with ``smooth``, else nearest."""
        step = 2 * HALF_SIDE / SIDE
        first = -HALF_SIDE + step / 2
        to_voxel = np.linalg.inv(volume.affine)
        matrix = to_voxel[:3, :3] @ (self.rotation.T * self.radius * step)
        start = self.rotation.T @ np.full(3, first) * self.radius + self.center
        offset = to_voxel[:3, :3] @ start + to_voxel[:3, 3]
        data = volume.data
        if smooth:
            wide = self.radius * step / volume.spacing
            data = ndimage.gaussian_filter(data, 0.42 * np.sqrt(np.maximum(wide**2 - 1, 0)))
        return ndimage.affine_transform(data, matrix, offset, (SIDE,) * 3, order=1 if smooth else 0)


def add_templates(collector: Collector, library: AtlasLibrary, names: tuple[str, ...]) -> None:
    """Every cohort of the atlases ``names`` whose rotation to the canonical frame is known."""
    for name in names:
        cohorts: dict[str, list[Template]] = {}
        for contrast in library.contrasts(name):
            for template in library.templates(name, contrast):
                cohorts.setdefault(template.cohort, []).append(template)
        for templates in cohorts.values():
            first = templates[0]
            if first.to_canonical is None:
                continue
            images = {t.contrast: load_volume(t.image) for t in templates}
            reference = next(iter(images.values()))
            mask = given_mask(load_volume(first.mask), reference).volume if first.mask else nonzero_mask(reference).volume
            labels = {"tissues": load_volume(first.tissues)} if first.tissues else {}
            collector.add(first.space, name, first.age, mask, first.to_canonical, images, labels)


def subject_ages(folder: Path) -> Iterator[tuple[str, float]]:
    """(participant, weeks) of a BIDS folder's ``participants.tsv``."""
    table = folder / "participants.tsv"
    if not table.is_file():
        msg = f"{table}: no such file; training subjects need their ages there"
        raise UsageError(msg)
    for line in table.read_text().splitlines()[1:]:
        name, age = line.split("\t")[:2]
        yield name, float(age)
