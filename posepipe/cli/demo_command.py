"""``posepipe-tools demo``: a synthetic dataset, aligned and compared with the truth; needs no download."""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..paths import absolute_path
from ..settings import INIT_CHOICES, REFINE_CHOICES
from .parser import whole_number
from .threads import library_threads

if TYPE_CHECKING:
    from ..geometry import Rigid
    from ..phantom.demo_data import DemoDataset

LOST_DEGREES = 15.0
"""Pose error above which a pose counts as lost: conventional registration would not recover from it."""
_STOPPED = 128
"""Exit codes above this are of a run that was ended by a signal."""


@dataclass(frozen=True)
class PoseError:
    """Error of the pose of one image relative to the truth; None: there is no pose."""

    image: str
    turned: float
    degrees: float | None
    mm: float | None

    @property
    def is_lost(self) -> bool:
        """Whether there is no pose, or one with an error above :data:`LOST_DEGREES`."""
        return self.degrees is None or self.degrees > LOST_DEGREES


def add_arguments(subparsers: Any) -> None:
    """Add the ``demo`` command to the subparsers of ``posepipe-tools``."""
    parser = subparsers.add_parser(
        "demo",
        help="make a synthetic dataset and its atlas, and align it",
        description="Phantom brains of fetuses and a newborn, turned at random, and their atlas: written, aligned by "
        "the BIDS App (both levels), and compared with the true poses.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("out_dir", type=absolute_path, metavar="OUT_DIR", help="folder for all of it, made if it is not there")
    parser.add_argument("--n-subjects", type=int, default=4, metavar="N", help="participants, 1 to 99 (default: 4)")
    parser.add_argument("--spacing", type=float, default=1.0, metavar="MM", help="voxel size (default: 1.0)")
    parser.add_argument("--random-seed", type=int, default=0, metavar="N", help="seed of the phantoms (default: 0)")
    parser.add_argument("--init", choices=INIT_CHOICES, help="how poses are found, as for posepipe")
    parser.add_argument("--refine", choices=REFINE_CHOICES, help="how they are refined, as for posepipe")
    parser.add_argument("--nprocs", type=whole_number, metavar="N", help="cores to use (default: all)")


def run(args: argparse.Namespace) -> int:
    """Do what the parsed ``args`` ask; 1 if an image has no pose or one that is more than 15° off.

    Raises :class:`~posepipe.errors.PosepipeError`.
    """
    with library_threads(1):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from ..phantom.demo_data import write_demo

    out = args.out_dir
    print(f"writing phantoms to {out}", flush=True)
    demo = write_demo(
        out, n_subjects=args.n_subjects, seed=args.random_seed, spacing=args.spacing, progress=lambda t: print(f"  {t}")
    )
    code = _run_app(demo, out, vars(args))
    if code > _STOPPED:
        return code
    errors = pose_errors(demo, out / "posepipe")
    print("\n" + table(errors))
    print(f"\nreport: {out / 'posepipe' / 'group_pose.html'}")
    return 1 if code or any(error.is_lost for error in errors) else 0


def _run_app(demo: DemoDataset, out: Path, given: dict[str, Any]) -> int:
    """Run both levels; the higher of their exit codes."""
    from .app import main

    folders = [str(demo.bids_dir), str(out / "posepipe")]
    options = ["--atlas-dir", str(demo.atlas_dir), "--atlas", "Phantom", "-w", str(out / "work")]
    if demo.masks_dir is not None:
        options += ["-d", str(demo.masks_dir)]
    for name in ("init", "refine", "nprocs"):
        if name in given:
            options += [f"--{name}", str(given[name])]
    codes = []
    for command in ([*folders, "participant", *options], [*folders, "group"]):
        print("\nposepipe " + " ".join(command) + "\n", flush=True)
        codes.append(main(command))
        if codes[-1] > _STOPPED:
            break
    return max(codes)


def pose_errors(demo: DemoDataset, out_dir: Path) -> list[PoseError]:
    """The error of every pose against ``truth.tsv``; of several poses of one image, the first is taken."""
    from ..geometry import Rigid, read_itk
    from ..interfaces.finished import finished_images, sessions_of

    found: dict[str, Rigid] = {}
    for subject, session in sessions_of(out_dir):
        for image in finished_images(out_dir, demo.bids_dir, subject, session):
            found.setdefault(image.name, read_itk(image.names.forward))
    errors = []
    with demo.truth_tsv.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            numbers = [float(row[key]) for key in ("rx", "ry", "rz", "tx", "ty", "tz")]
            truth = Rigid.from_rotvec(numbers[:3], numbers[3:])
            pose = found.get(row["file"])
            degrees, mm = (None, None) if pose is None else (pose.degrees_from(truth), pose.mm_from(truth))
            errors.append(PoseError(row["file"], truth.angle_degrees, degrees, mm))
    return errors


def table(errors: list[PoseError]) -> str:
    """The errors as lines of text."""
    width = max((len(error.image) for error in errors), default=5)
    lines = [f"{'image':<{width}}  turned by  error"]
    for error in errors:
        found = "no pose" if error.degrees is None else f"{error.degrees:5.2f}°  {error.mm:5.2f} mm"
        lines.append(f"{error.image:<{width}}  {error.turned:8.1f}°  {found}" + ("  LOST" if error.is_lost else ""))
    return "\n".join(lines)
