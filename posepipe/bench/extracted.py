"""Benchmark of the check whether the non-zero voxels of an image can be a brain: extracted brains, whole and corrupted, against heads and
bodies with a background of exactly 0.

``python -m posepipe.bench.extracted DATA OUTPUT.csv [test]`` measures the images that are not in the file yet, and prints a table.
Without ``test``: the images on which the limits were chosen (templates, newborns A01–A12, label maps, delineated brains of raw scans).
With ``test``: the fetus and newborns A13–A16. All but whole brains are on a coarse grid. The child and the adult are reported, with no
expected result.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..geometry.so3 import Array
from ..imaging.extracted import Signs, filled, not_a_brain, signs
from ..imaging.mask import has_empty_background
from ..imaging.moments import moments
from ..imaging.volume import Volume, load_volume
from .rows import PartFile

MADE_MM = 2.5
"""Approximate spacing (mm) of corrupted brains and synthetic heads."""
ROOM_MM = 34.0
WEEKS_BETWEEN, LABELS_BETWEEN = 3, 4
"""Every n-th cohort of an atlas, and every n-th label map, is used."""
CEREBELLUM = {"CRL": (3, 7), "FidonSBA": (3, 7), "CHN": (6, 8)}
"""Atlas → labels of cerebellum and brainstem."""
SHELLS = {"thin": (2.5, 2.5, 4.0), "middle": (3.0, 4.0, 8.0), "wide": (4.0, 6.0, 12.0)}
"""Widths (mm) of fluid, bone and scalp about a brain."""
FLOORS = (0.1, 0.25)
"""Voxels of a scan below such a share of its 98th percentile are set to 0."""
CROPS = (1.3, 1.8)
"""Half the side of a crop about the brain, in brain radii."""
EPI_RADIUS_MM = 40.0
Found = tuple[str, str, Volume, Volume]


def brains(data: Path, *, test: bool = False) -> Iterator[Found]:
    """Extracted brains: group, name, image, and brain mask (bool)."""
    first, last = (13, 16) if test else (1, 12)
    for path in sorted(data.glob("ds-neonates/sub-A*/anat/*_T?w.nii.gz")):
        if first <= int(path.name[5:7]) <= last:
            yield _extracted("newborns", path)
    if test:
        yield _extracted("fetus", data / "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz")
        return
    for atlas in sorted(data.glob("atlases/tpl-*")):
        for path in itertools.chain(*(sorted(atlas.glob(f"cohort-*/*_{c}.nii.gz"))[::WEEKS_BETWEEN] for c in ("T2w", "T1w"))):
            image, mask = load_volume(path), load_volume(path.with_name(path.name[:-10] + "desc-brain_mask.nii.gz"))
            yield atlas.name, path.name[:-7], image, mask.with_data(mask.data > 0)
    for path in sorted(data.glob("ds-labels/sub-*/anat/*tissues_dseg.nii.gz"))[::LABELS_BETWEEN]:
        labels = load_volume(path)
        mask = labels.with_data(filled(labels.data > 0))
        yield "label maps", path.name[:-7], labels.with_data(mask.data * np.float32(100)), mask
    for name, image, manual_mask, _ in raw_scans(data):
        if manual_mask is not None:
            yield "drawn in scans", name, image, manual_mask


def _extracted(group: str, path: Path) -> Found:
    image = load_volume(path)
    return group, path.name[:-7], image, image.with_data(filled(image.data != 0))


def raw_scans(data: Path) -> Iterator[tuple[str, Volume, Volume | None, Array]]:
    """Raw scans: name, image, delineated mask (bool) or None, and centre (3,) of the brain in mm."""
    rows = [line.split("\t") for line in (data / "ds-epi/landmarks.tsv").read_text().splitlines()]
    for row in rows[1:]:
        subject, *marks = row
        center = np.array([float(x) for x in marks[:3]])
        yield subject, load_volume(data / f"ds-epi/{subject}/anat/{subject}_acq-epi_T2w.nii.gz"), None, center
    mask_files = [*data.glob("ds-stacks/derivatives/manual_masks/**/*_mask.nii.gz"), *data.glob("ds-scans/derivatives/**/*_mask.nii.gz"),
             *data.glob("ds-simulated/derivatives/**/*_mask.nii.gz")]  # fmt: skip
    for path in sorted(mask_files):
        root = next(p for p in path.parents if p.name.startswith("ds-"))
        stem = path.name.replace("_T2w", "").replace("_desc-brain", "").replace("_mask.nii.gz", "")
        mask = load_volume(path)
        image = load_volume(next(root.glob(f"sub-*/**/{stem}_T2w.nii.gz")))
        yield stem, image, mask.with_data(mask.data > 0), moments(mask).center


def coarser(image: Volume, mask: Volume) -> tuple[Volume, Volume]:
    """The masked brain and its mask at about :data:`MADE_MM`, with a margin."""
    every = [max(1, round(MADE_MM / s)) for s in image.spacing]
    cut = tuple(slice(None, None, e) for e in every)
    pads = [int(ROOM_MM / (s * e)) + 1 for s, e in zip(image.spacing, every, strict=True)]
    box = ndimage.find_objects(mask.data[cut].astype(np.uint8))[0]
    affine = image.affine @ np.diag([*(float(e) for e in every), 1.0])
    affine[:3, 3] += affine[:3, :3] @ [b.start - p for b, p in zip(box, pads, strict=True)]
    inside = np.pad(mask.data[cut][box], [(p, p) for p in pads])
    data = np.pad(image.data[cut][box], [(p, p) for p in pads]) * inside
    return Volume(data, affine, image.source), Volume(inside, affine, image.source)


def corrupted(image: Volume, mask: Volume, unwanted: npt.NDArray[np.bool_] | None) -> Iterator[tuple[str, Volume]]:
    """Corrupted versions of an extracted brain: without cerebellum (``unwanted``, bool), with half or 70 % of its volume, and with a rim
    of other tissue."""
    small, inside = coarser(image, mask)
    if unwanted is not None:
        yield "no cerebellum", coarser(image, mask.with_data(mask.data & ~unwanted))[0]
    index = np.argwhere(inside.data)
    along = index @ small.affine[:3, :3].T
    for axis, share in itertools.product(range(3), (0.5, 0.7)):
        lost = tuple(index[along[:, axis] > np.quantile(along[:, axis], share)].T)
        data = small.data.copy()
        data[lost] = 0
        yield f"{100 * share:.0f} % left", small.with_data(data)
    away, nearest = ndimage.distance_transform_edt(~inside.data, small.spacing, return_indices=True)
    for rim in (2.5, 4.0):
        yield f"rim of {rim:g} mm", small.with_data(small.data[tuple(nearest)] * (away <= rim))


def heads(image: Volume, mask: Volume, seed: int) -> Iterator[tuple[str, Volume]]:
    """Synthetic heads: CSF, dark bone and scalp about a brain, then background of exactly 0; with and without a neck."""
    small, inside = coarser(image, mask)
    top = float(np.quantile(small.data[inside.data], 0.99))
    soft = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=small.shape), 1.5)
    soft /= soft.std()
    far = ndimage.distance_transform_edt(~inside.data, small.spacing)
    about = moments(inside)
    place = np.moveaxis(np.indices(small.shape), 0, -1) @ small.affine[:3, :3].T + small.affine[:3, 3] - about.center
    r = about.radius
    tube = (np.hypot(place[..., 0], place[..., 1] + 0.2 * r) < 0.6 * r) & (place[..., 2] < -0.3 * r)
    for name, shell in SHELLS.items():
        fluid, bone, skin = np.cumsum(shell)
        head = np.where((far > 0) & (far <= fluid), top * (0.9 + 0.04 * soft), small.data)
        head = np.where((far > fluid) & (far <= bone), top * (0.06 + 0.02 * abs(soft)), head)
        head = np.where((far > bone) & (far <= skin), top * (0.42 + 0.09 * soft), head)
        head = np.where(far > skin, 0, head.clip(1, None))
        yield f"head, {name} shell", small.with_data(head)
        yield f"head, {name} shell and neck", small.with_data(np.where(tube & (head == 0), top * (0.4 + 0.1 * soft), head))


def zeroed(image: Volume, center: Array, radius: float) -> Iterator[tuple[str, Volume]]:
    """A raw scan whose darker voxels are set to 0, whole and cropped about the brain."""
    top = float(np.quantile(image.data[image.data > 0][::7], 0.98))
    to_voxel = np.linalg.inv(image.affine)
    at = to_voxel[:3, :3] @ center + to_voxel[:3, 3]
    for floor in FLOORS:
        whole = image.with_data(np.where(image.data > floor * top, image.data, 0))
        yield f"scan, zero below {floor:g}", whole
        for wide in CROPS:
            half = wide * radius / image.spacing
            cut = tuple(slice(max(int(c - h), 0), int(c + h) + 1) for c, h in zip(at, half, strict=True))
            yield f"scan cropped to {wide:g} radii, zero below {floor:g}", whole.with_data(whole.data[cut])


def measure(data: Path, part: PartFile, *, test: bool) -> None:
    """Add to ``part`` a row for each image, unless it has rows."""
    if part.rows:
        return

    def add(part_of: str, kind: str, group: str, name: str, image: Volume) -> None:
        found = signs(image)
        if found is not None:
            row = {"part": part_of, "kind": kind, "group": group, "name": name, **vars(found)}
            part.add(row | {"empty": str(has_empty_background(image))})

    for k, (group, name, image, mask) in enumerate(brains(data, test=test)):
        atlas = group.removeprefix("tpl-")
        brain = image.with_data(image.data * mask.data)
        add("brain", "whole", group, name, brain)
        unwanted = None
        if atlas in CEREBELLUM:
            tissues = load_volume(Path(image.source).with_name(Path(image.source).name[:-10] + "desc-tissues_dseg.nii.gz"))
            unwanted = np.isin(tissues.data, CEREBELLUM[atlas])
        for kind, variant in corrupted(brain, mask, unwanted):
            add("brain", kind, group, name, variant)
        if group in {"newborns", "fetus"} or group.startswith("tpl-"):
            for kind, variant in heads(brain, mask, k):
                add("other", kind, group, name, variant)
    if test:
        return
    for name, image, manual_mask, center in raw_scans(data):
        if has_empty_background(image):  # a simulated stack, which shows the brain alone
            continue
        for kind, variant in zeroed(image, center, EPI_RADIUS_MM if manual_mask is None else moments(manual_mask).radius):
            add("other", kind, "scans", name, variant)
    for path in sorted((data / "ds-negative").rglob("*_T1w.nii.gz")):
        add("older", "whole", "older", path.name[:-7], load_volume(path))


def report(rows: list[dict[str, str]]) -> str:
    """Markdown by kind of image: range of each feature, and number of images taken for extracted brains, by the empty background alone
    and with the features."""
    names = ("millilitres", "fullness", "elongation", "dip")
    lines = [f"| images | n | {' | '.join(names)} | empty background | taken |", "|" + "---|" * (4 + len(names))]
    for part, kind in dict.fromkeys((r["part"], r["kind"]) for r in rows):
        mine = [r for r in rows if (r["part"], r["kind"]) == (part, kind)]
        found = [Signs(*(float(r[name]) for name in names)) for r in mine]
        empty = [r["empty"] == "True" for r in mine]
        taken = sum(e and not not_a_brain(f) for e, f in zip(empty, found, strict=True))
        values = [[getattr(f, name) for f in found] for name in names]
        ranges = [f"{min(v):.{d}f}–{max(v):.{d}f}" for v, d in zip(values, (0, 2, 2, 2), strict=True)]
        lines.append(f"| {part}: {kind} | {len(mine)} | {' | '.join(ranges)} | {sum(empty)} | {taken} |")
    return "\n".join(lines)


if __name__ == "__main__":
    rows = PartFile(Path(sys.argv[2]))
    measure(Path(sys.argv[1]), rows, test="test" in sys.argv[3:])
    print(report(rows.rows))
