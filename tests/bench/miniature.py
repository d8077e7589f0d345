"""A miniature of the folder of real data, made of phantoms: the layout that the benches read, with exactly known truth."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posepipe.atlas.manifest import load_canonical
from posepipe.atlas.sidecars import write_fetched
from posepipe.geometry import Rigid
from posepipe.geometry.so3 import Array, exp
from posepipe.imaging.volume import Volume, save_volume
from posepipe.phantom import brain_labels, brain_mask, render, subject
from posepipe.training.scene_files import EYES_TILT_DEGREES
from posepipe.training.split import load_scan_poses

ATLAS_MM, NEWBORN_MM, SCAN_MM = 2.5, 2.5, (3.0, 3.0, 3.5)
COHORTS = {
    "CRL": range(22, 39), "FidonSBA": (22, 26, 28, 29, 30, 34), "CHN": (23, 25, 26, 27, 30, 33, 34), "Serag": range(28, 45),
    "BCP": ("00", "03"),
}  # fmt: skip
NEWBORNS = {"sub-A04": 41, "sub-A12": 40, "sub-A13": 42}
"""Of which the first trains, the second validates and the third is kept for testing (posepipe/training/split.toml)."""
WEEKS_31 = 31.0
ROOM = 40
"""Voxels of dim noise on one side of a scan's first axis: 120 mm, room for a piece without the brain."""
TURNS = {"sub-E01": (0.3, -0.2, 0.5), "sub-E02": (-0.2, 0.4, -0.3)}
"""Rotation vectors of the whole-uterus scans, both of one fold."""


@dataclass(frozen=True)
class Truth:
    """Where the brains of the miniature are: rotation (3, 3) of the canonical frame to RAS mm, by the scan's name; mask (bool) of each."""

    rotations: dict[str, Array]
    masks: dict[str, Volume]


@dataclass(frozen=True)
class Miniature:
    """The ``folder`` and what is true of it."""

    folder: Path
    truth: Truth

    def part(self, folder: Path, *names: str, atlases: Iterable[str] = ()) -> Path:
        """A smaller one in ``folder``: datasets or files of these ``names``, and of atlases ``NAME/COHORT``."""
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (self.folder / name).is_dir() else shutil.copy)(self.folder / name, folder / name)
        for name in atlases:
            atlas, _, cohort = name.partition("/")
            inside = f"atlases/tpl-{atlas}/cohort-{cohort}"
            shutil.copytree(self.folder / inside, folder / inside)
        return folder


def write_miniature(folder: Path) -> Miniature:
    """Atlases that lie as those of their name do, newborns and a fetus in their template's pose, scans in noise."""
    for atlas, cohorts in COHORTS.items():
        for cohort in cohorts:
            _write_cohort(folder, atlas, str(cohort))
    truth = Truth({}, {})
    _write_still(folder)
    for number, (name, turn) in enumerate(TURNS.items()):
        _write_scan(folder / "ds-epi", f"{name}/anat/{name}_acq-epi", exp(np.array(turn)), truth, number, name)
    poses = load_scan_poses()
    for dataset, subject_id, stem in (("ds-scans", "sub-T1", "sub-T1"), *(("ds-stacks", "sub-01", f"sub-01_run-{k}") for k in (1, 2))):
        inside = f"{subject_id}/anat/{stem}"
        number = len(truth.masks)
        mask = _write_scan(folder / dataset, inside, poses[stem], truth, number, stem, stack=dataset == "ds-stacks")
        named = f"{inside}_T2w" if dataset == "ds-stacks" else inside
        save_volume(mask, folder / f"{dataset}/derivatives/manual_masks/{named}_desc-brain_mask.nii.gz")
    _write_tables(folder, truth)
    return Miniature(folder, truth)


def upright(atlas: str, cohort: str) -> Rigid:
    """Canonical frame → world of the template."""
    return Rigid(load_canonical()[atlas, cohort].rotation.T, np.zeros(3))


def _write_cohort(folder: Path, atlas: str, cohort: str) -> None:
    weeks = {"00": 42.0, "03": 44.0}.get(cohort) or float(cohort)
    stem = folder / f"atlases/tpl-{atlas}/cohort-{cohort}/tpl-{atlas}_cohort-{cohort}"
    labels, lying = brain_labels(weeks, ATLAS_MM), upright(atlas, cohort)
    images = [
        save_volume(render(labels, weeks, contrast).moved(lying), f"{stem}_{contrast}.nii.gz", np.int16)
        for contrast in (("T1w", "T2w") if atlas in {"Serag", "BCP"} else ("T2w",))
    ]
    save_volume(brain_mask(labels).moved(lying), f"{stem}_desc-brain_mask.nii.gz")
    if atlas != "BCP":
        save_volume(labels.moved(lying), f"{stem}_desc-tissues_dseg.nii.gz")
    write_fetched(images)  # their rotation to the canonical frame is taken to be the known one


def _write_still(folder: Path) -> None:
    """Brain-extracted images that lie as their template does; label maps; and brains of nobody here."""
    for number, (name, weeks) in enumerate(NEWBORNS.items()):
        for contrast in ("T2w", "T1w"):
            _extracted(folder / f"ds-neonates/{name}/anat/{name}_{contrast}.nii.gz", weeks, upright("Serag", str(weeks)), number, contrast)
    _extracted(folder / "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz", 29, upright("CRL", "29"), 90)
    _extracted(folder / "ds-negative/sub-child/anat/sub-child_T1w.nii.gz", 44, Rigid.identity(), 91, "T1w")
    save_volume(brain_labels(36, ATLAS_MM), folder / "ds-labels/sub-B01/anat/sub-B01_desc-tissues_dseg.nii.gz")
    rows = ["participant_id\tpma_weeks", *(f"{name}\t{weeks}" for name, weeks in NEWBORNS.items())]
    (folder / "ds-neonates/participants.tsv").write_text("\n".join(rows) + "\n")
    (folder / "ds-labels/participants.tsv").write_text("participant_id\tpma_weeks\nsub-B01\t36\n")


def _extracted(path: Path, weeks: float, pose: Rigid, seed: int, contrast: str = "T2w") -> None:
    # noise would not be 0 outside
    rng = np.random.default_rng(seed)
    image, mask, _ = subject(weeks, rng=rng, pose=pose, contrast=contrast, spacing=NEWBORN_MM, noise=0.01, directions=np.eye(3))
    save_volume(image.with_data(image.data * (mask.data > 0)), path, np.int16)


def _write_scan(
    dataset: Path, inside: str, rotation: Array, truth: Truth, seed: int, name: str, *, stack: bool = False
) -> Volume:
    """A bright brain in dim noise, with much room on one side; of a stack less. Returns its mask."""
    rng = np.random.default_rng([31, seed])
    pose = Rigid(rotation, rng.uniform(-10, 10, 3))
    spacing = (1.5, 1.5, 4.0) if stack else SCAN_MM
    image, mask, _ = subject(WEEKS_31, rng=rng, pose=pose, spacing=spacing, directions=np.eye(3))
    pads = [(4, 4 if stack else ROOM), (4, 4), (2, 2)]
    bright = float(np.quantile(image.data[mask.data > 0], 0.9))
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [float(low) for low, _ in pads]
    brain = np.pad(mask.data > 0, pads)
    data = np.where(brain, np.pad(image.data, pads), rng.rayleigh(0.02 * bright, brain.shape) + 1)
    save_volume(Volume(data.astype(np.float32), affine), dataset / f"{inside}_T2w.nii.gz", np.int16)
    truth.rotations[name], truth.masks[name] = rotation, Volume(brain, affine)
    return Volume(brain.astype(np.uint8), affine)


def _write_tables(folder: Path, truth: Truth) -> None:
    axes = [f"{of}_{axis}" for of in ("brain", "eyeL", "eyeR") for axis in "xyz"]
    marks, weeks = ["participant_id\t" + "\t".join(axes)], ["participant_id\tga_weeks"]
    for name in TURNS:
        mask = truth.masks[name]
        center = (np.argwhere(mask.data) @ mask.affine[:3, :3].T + mask.affine[:3, 3]).mean(0)
        head = truth.rotations[name] @ exp(np.radians([-EYES_TILT_DEGREES, 0.0, 0.0]))
        points = [center, *(center + head @ [side * 22.0, 48.0, 0.0] for side in (-1, 1))]
        marks.append("\t".join([name, *(f"{v:.3f}" for v in np.concatenate(points))]))
        weeks.append(f"{name}\t{WEEKS_31:g}")
    (folder / "ds-epi/landmarks.tsv").write_text("\n".join(marks) + "\n")
    (folder / "ds-epi/participants.tsv").write_text("\n".join(weeks) + "\n")
    for dataset in ("ds-epi", "ds-scans", "ds-stacks"):
        (folder / dataset / "dataset_description.json").write_text('{"Name": "Phantoms", "BIDSVersion": "1.9.0", "License": "CC0"}\n')
        drawn = folder / dataset / "derivatives/manual_masks"
        if drawn.is_dir():
            about = '{"Name": "Masks", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "hand"}]}\n'
            (drawn / "dataset_description.json").write_text(about)
