"""The settings of a run: one frozen object, built once from the command line and passed down."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

INIT_CHOICES = ("auto", "deep", "posenet", "search", "axes", "center")
REFINE_CHOICES = ("ants", "torch", "none")
MASK_CHOICES = ("auto", "given", "nonzero", "network")
CONTRAST_CHOICES = ("auto", "T1w", "T2w")
CONVERT_CHOICES = ("auto", "always", "never")
SLICES_CHOICES = ("auto", "on", "off")
SESSION_CHOICES = ("independent", "consistent")
DEVICE_CHOICES = ("auto", "cpu", "cuda")
AGE_POLICIES = ("error", "nearest")
ESTIMATE, ESTIMATED = "estimate", "estimated"
"""The value of ``--age`` that requests an estimate from the image, and the ``AgeSource`` of an estimated age."""
WHOLE, WITHOUT_CSF = "whole", "without extra-axial CSF"
"""The part of the template that a pose was refined against: values of ``RefineTemplate`` in records and sidecars."""
BY_SLICES = "slices"
"""Value of ``RefineMethod`` for a pose that is the mean of the poses of the slices."""
XFM_FORMATS = {"itk": ".txt", "fsl": ".mat", "lta": ".lta", "x5": ".x5", "niftyreg": ".niftyreg.txt", "mirtk": ".dof"}
"""Formats of transforms (:mod:`posepipe.imaging.transform_files`) → extension of their files."""
LABEL_MAPS = ("tissues", "regions")
"""Label maps that a template may have."""
LEVELS = ("participant", "group")
TRANSFORMS, HEADER, FULL = "transforms", "header", "full"
OUTPUT_LEVELS = (TRANSFORMS, HEADER, FULL)
"""What is written of an image: transforms alone; the reoriented image too; the resampled image, the mask and a conversion too."""
AUTO = "auto"
"""The value of ``--atlas`` that chooses one atlas by age, contrast and what is on the machine."""


@dataclass(frozen=True)
class Settings:
    """The settings of one run. All defaults are defined here.

    Names are those of the command-line options. ``nprocs`` None: all cores of this machine; ``omp_nthreads`` (for one image)
    None: one. ``run_id`` names the run's log folders.
    """

    bids_dir: Path
    out_dir: Path
    work_dir: Path
    run_id: str
    command: str = ""
    analysis_level: str = "participant"
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    derivatives: tuple[str, ...] = ()
    skip_bids_validation: bool = False
    atlas: tuple[str, ...] = (AUTO,)
    atlas_dir: tuple[Path, ...] = ()
    age: float | str | None = None
    age_column: str | None = None
    age_policy: str = "error"
    contrast: str = "auto"
    convert: str = "auto"
    mask: str = "auto"
    slices: str = "auto"
    session_pose: str = "independent"
    init: str = "auto"
    refine: str = "ants"
    xfm_formats: tuple[str, ...] = ("itk",)
    level: str = FULL
    labels: bool = False
    nprocs: int | None = None
    omp_nthreads: int | None = None
    mem_gb: float | None = None
    weights: Path | None = None
    device: str = "auto"
    nipype_plugin: str | None = None
    plugin_args: Path | None = None
    config_file: Path | None = None
    stop_on_first_crash: bool = False
    dry_run: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    write_graph: bool = False
    random_seed: int = 0
    ratings: Path | None = None
    blind: tuple[str, ...] = ()
    verbose: int = 0

    def to_toml(self, versions: Mapping[str, str]) -> str:
        """These settings as TOML that ``--config-file`` takes, with the command and ``versions`` in tables beside them.

        >>> s = Settings(Path("/d"), Path("/o"), Path("/w"), "r1", participant_label=("01",))
        >>> [line for line in s.to_toml({}).splitlines() if "participant" in line]
        ['participant-label = ["01"]']
        """
        apart = {"bids_dir", "out_dir", "analysis_level", "run_id", "command", "config_file"}
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        lines = [f"{name.replace('_', '-')} = {_toml(value)}" for name, value in given.items() if value is not None]
        run = {name: getattr(self, name) for name in ("command", "run_id", "bids_dir", "out_dir", "config_file")}
        lines += ["", "[run]", *(f"{key} = {_toml(value)}" for key, value in run.items() if value is not None)]
        lines += ["", "[versions]", *(f"{_toml(key)} = {_toml(value)}" for key, value in versions.items())]
        return "\n".join(lines) + "\n"


def command_line(program: str, argv: list[str]) -> str:
    """The command line, quoted for a shell."""
    return shlex.join([program, *argv])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    text = str(value)
    escaped = "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text)
    return f'"{escaped}"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
