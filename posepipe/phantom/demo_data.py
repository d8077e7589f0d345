"""A small synthetic study on disk: an atlas in TemplateFlow's layout, a BIDS dataset, the true pose of each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..files import write_text
from ..geometry import Rigid, random_rotations
from ..imaging.volume import save_volume
from . import brain_labels, brain_mask, render, subject

ATLAS = "Phantom"
BIDS_VERSION = "1.9.0"
LICENCE = "CC0"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Scan:
    """One scan session: participant, session, age (weeks), contrasts, and whether the image shows the whole head."""

    participant: str
    session: str | None
    age: float
    contrasts: tuple[str, ...] = ("T2w",)
    newborn: bool = False
    whole_head: bool = False

    @property
    def stem(self) -> str:
        """File name without its suffix."""
        session = f"_ses-{self.session}" if self.session else ""
        return f"sub-{self.participant}{session}" + ("" if self.newborn else "_rec-svr")

    @property
    def folder(self) -> Path:
        """Folder relative to a dataset's root."""
        return Path(f"sub-{self.participant}", *([f"ses-{self.session}"] if self.session else []), "anat")


@dataclass(frozen=True)
class DemoDataset:
    """Paths of the demonstration. ``masks_dir`` is the value for ``-d``; None if no scan needs a mask."""

    bids_dir: Path
    atlas_dir: Path
    truth_tsv: Path
    masks_dir: Path | None
    scans: tuple[Scan, ...]


def demo_scans(n_subjects: int, rng: np.random.Generator) -> tuple[Scan, ...]:
    """The scans of the first ``n_subjects``: a fetus, a fetus with two sessions, a newborn, a whole head, then more fetuses.

    Raises :class:`~posepipe.errors.UsageError` for a number outside 1–99.
    """
    if not 1 <= n_subjects <= 99:
        msg = f"the demonstration has 1 to 99 subjects, not {n_subjects}"
        raise UsageError(msg)
    scans = [
        Scan("01", None, 24.3),
        Scan("02", "1", 27.1),
        Scan("02", "2", 31.6),
        Scan("03", None, 39.1, ("T1w", "T2w"), newborn=True),
        Scan("04", None, 33.9, whole_head=True),
    ]
    scans += [Scan(f"{i:02d}", None, round(rng.uniform(21.5, 37.5), 1)) for i in range(5, n_subjects + 1)]
    return tuple(s for s in scans if int(s.participant) <= n_subjects)


def write_demo(
    out_dir: str | Path,
    *,
    n_subjects: int = 4,
    seed: int = 0,
    weeks: Iterable[int] | None = None,
    spacing: float = 1.0,
    progress: Progress | None = None,
) -> DemoDataset:
    """Write the demonstration into ``out_dir``: ``bids/``, ``atlas/`` and ``truth.tsv``.

    Args:
        out_dir: created if needed; files in it are replaced.
        n_subjects: 1 to 99; see :func:`demo_scans`.
        seed: the same seed gives the same voxels.
        weeks: cohorts of the atlas; by default the one nearest to each scan's age, which is much quicker to write than
            all of ``range(21, 41)``.
        spacing: voxel edge of atlas and images, mm.
        progress: called with a line of text as each file group is begun.

    Raises :class:`~posepipe.errors.UsageError` for a number of subjects outside 1–99 and for no weeks at all.
    """
    out = Path(out_dir)
    report: Progress = progress or (lambda _: None)
    rng = np.random.default_rng(seed)
    scans = demo_scans(n_subjects, rng)
    cohorts = sorted({round(s.age) for s in scans} if weeks is None else set(weeks))
    if not cohorts:
        msg = "the demonstration's atlas needs at least one week"
        raise UsageError(msg)
    _write_atlas(out / "atlas" / f"tpl-{ATLAS}", cohorts, spacing, report)
    bids = out / "bids"
    _write_tables(bids, scans)
    masks = bids / "derivatives" / "masks" if any(s.whole_head for s in scans) else None
    if masks:
        _write_json(masks / "dataset_description.json", _description("Brain masks of the phantoms", "derivative"))
    rows = []
    for number, scan in enumerate(scans):
        report(f"sub-{scan.participant}: {scan.age:g} weeks, {' and '.join(scan.contrasts)}")
        rows += _write_scan(bids, scan, np.random.SeedSequence([seed, number]), spacing)
    truth = _write_truth(out / "truth.tsv", rows)
    return DemoDataset(bids, out / "atlas", truth, masks, scans)


def _write_atlas(folder: Path, cohorts: list[int], spacing: float, report: Progress) -> None:
    report(f"atlas: {len(cohorts)} cohorts, {cohorts[0]} to {cohorts[-1]} weeks")
    for week in cohorts:
        labels = brain_labels(week, spacing)
        stem = folder / f"cohort-{week}" / f"tpl-{ATLAS}_cohort-{week}"
        for contrast in ("T1w", "T2w"):
            save_volume(render(labels, week, contrast), f"{stem}_{contrast}.nii.gz", np.int16)
        save_volume(brain_mask(labels), f"{stem}_desc-brain_mask.nii.gz")
        save_volume(labels, f"{stem}_desc-tissues_dseg.nii.gz")
    description = {
        "Identifier": ATLAS,
        "Name": "Synthetic fetal and newborn brain",
        "BIDSVersion": BIDS_VERSION,
        "Species": "Homo sapiens (synthetic)",
        "License": LICENCE,
        "Authors": ["posepipe"],
        "cohort": {str(w): {"age": [float(w), float(w)], "units": "weeks"} for w in cohorts},
    }
    _write_json(folder / "template_description.json", description)
    lines = [
        "# Ages are postmenstrual (gestational) weeks.",
        f"title = {json.dumps(description['Name'])}",
        'stage = "fetal"',
        f"licence = {json.dumps(LICENCE)}",
    ]
    for week in cohorts:
        lines += ["", f"[cohorts.{week}]", f"age = {float(week)}"]
    write_text(folder / "atlas.toml", "\n".join(lines) + "\n")


def _write_scan(bids: Path, scan: Scan, sequence: np.random.SeedSequence, spacing: float) -> list[list[str]]:
    """The images of one session, which share the head and the grid. Returns their rows of the truth table."""
    start = np.random.default_rng(sequence)
    # rotations above 60°, so that no image is close to the atlas's pose by chance
    turns = random_rotations(64, start)
    angles = [Rigid(t, np.zeros(3)).angle_degrees for t in turns]
    turn = turns[next(i for i, angle in enumerate(angles) if angle > 60)]
    pose = Rigid(turn, start.uniform(-25, 25, 3))
    seed = int(start.integers(2**31))
    rows = []
    for contrast in scan.contrasts:
        image, mask, _ = subject(
            scan.age,
            rng=np.random.default_rng(seed),
            pose=pose,
            contrast=contrast,
            spacing=spacing,
            surroundings=scan.whole_head,
        )
        name = f"{scan.stem}_{contrast}"
        save_volume(image, bids / scan.folder / f"{name}.nii.gz", np.int16)
        _write_json(bids / scan.folder / f"{name}.json", {"SkullStripped": not scan.whole_head})
        if scan.whole_head:
            stem = bids / "derivatives" / "masks" / scan.folder / f"{scan.stem}_desc-brain_mask"
            save_volume(mask, f"{stem}.nii.gz")
            source = f"bids:raw:{(scan.folder / name).as_posix()}.nii.gz"
            _write_json(Path(f"{stem}.json"), {"Type": "Brain", "Sources": [source]})
        numbers = [*pose.rotvec, *pose.translation]
        file = (scan.folder / f"{name}.nii.gz").as_posix()
        rows.append([file, f"{scan.age:g}", f"{pose.angle_degrees:.3f}", *[f"{v:.6f}" for v in numbers]])
    return rows


def _write_tables(bids: Path, scans: tuple[Scan, ...]) -> None:
    """All files of the dataset except the images."""
    _write_json(bids / "dataset_description.json", _description("Phantom heads in unknown poses", "raw"))
    write_text(
        bids / "README",
        "Synthetic fetal and newborn brain images, generated from formulas: no person was scanned.\n\n"
        "Every head is turned at random; the true poses are in truth.tsv beside this dataset.\n",
    )
    ages: dict[str, list[Scan]] = {}
    for scan in scans:
        ages.setdefault(scan.participant, []).append(scan)
    lines = ["participant_id\tga_weeks"]
    for participant, visits in ages.items():
        sessions = [v for v in visits if v.session]
        lines.append(f"sub-{participant}\t" + ("n/a" if sessions else f"{visits[0].age:g}"))
        if sessions:
            base = bids / f"sub-{participant}" / f"sub-{participant}_sessions"
            table = ["session_id\tpma_weeks", *[f"ses-{v.session}\t{v.age:g}" for v in sessions]]
            write_text(base.with_suffix(".tsv"), "\n".join(table) + "\n")
            _write_json(base.with_suffix(".json"), {"pma_weeks": _AGE})
    write_text(bids / "participants.tsv", "\n".join(lines) + "\n")
    _write_json(bids / "participants.json", {"ga_weeks": _AGE})


_AGE = {"Description": "Age at the scan, counted from the last menstrual period", "Units": "weeks"}


def _write_truth(path: Path, rows: list[list[str]]) -> Path:
    """One row per image: the pose, x_image = R x_atlas + t, as a rotation vector (rad) and a translation (mm), RAS."""
    head = ["file", "age_weeks", "angle_degrees", "rx", "ry", "rz", "tx", "ty", "tz"]
    return write_text(path, "\n".join("\t".join(row) for row in [head, *rows]) + "\n")


def _description(name: str, kind: str) -> dict[str, Any]:
    out: dict[str, Any] = {"Name": name, "BIDSVersion": BIDS_VERSION, "DatasetType": kind, "License": LICENCE}
    if kind == "derivative":
        return out | {"GeneratedBy": [{"Name": "posepipe phantom"}], "DatasetLinks": {"raw": "../.."}}
    return out | {"Authors": ["posepipe"]}


def _write_json(path: Path, content: dict[str, Any]) -> Path:
    return write_text(path, json.dumps(content, indent=2) + "\n")
