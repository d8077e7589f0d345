"""A run of both levels on the demonstration: exactly the expected files, and a dataset that the BIDS validator accepts."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from posepipe.cli.app import main
from posepipe.phantom.demo_data import write_demo

SHARED = [
    ".bidsignore", "dataset_description.json", "failures.tsv", "logs/CITATION.bib", "logs/CITATION.html", "logs/CITATION.md",
    "logs/description.lock", "logs/running.lock", "logs/runs/RUN/resources.json", "logs/runs/RUN/resources.tsv",
]  # fmt: skip
GROUP = ["group_pose.html", "group_pose.json", "group_pose.tsv", "logs/thumbnails.json"]


def image_files(folder: str, stem: str, contrast: str, cohort: int) -> list[str]:
    """What one image leaves in its anat folder; ``stem`` with all its entities."""
    mask = f"{stem}_desc-brain_mask" if contrast == "T2w" else f"{stem}_mod-{contrast}_desc-brain_mask"
    names = [
        *(f"{stem}_from-{a}_to-{b}_mode-image_xfm.{kind}"
          for a, b in ((contrast, f"Phantom+{cohort}"), (f"Phantom+{cohort}", contrast)) for kind in ("txt", "json")),
        *(f"{name}.{kind}" for kind in ("nii.gz", "json") for name in (
            f"{stem}_space-Phantom_cohort-{cohort}_{contrast}", f"{stem}_desc-reoriented_{contrast}", mask)),
    ]  # fmt: skip
    return [f"{folder}/anat/{name}" for name in names]


IMAGES = [
    *image_files("sub-01", "sub-01_rec-svr", "T2w", 24),
    *image_files("sub-02/ses-1", "sub-02_ses-1_rec-svr", "T2w", 27),
    *image_files("sub-02/ses-2", "sub-02_ses-2_rec-svr", "T2w", 32),
    *image_files("sub-03", "sub-03", "T1w", 39),
    *image_files("sub-03", "sub-03", "T2w", 39),
    *image_files("sub-04", "sub-04_rec-svr", "T2w", 34),
]
UNITS = ["sub-01", "sub-02/ses-1", "sub-02/ses-2", "sub-03", "sub-04"]
PAGES = [unit.replace("/", "_") + ".html" for unit in UNITS]


@dataclass(frozen=True)
class Run:
    """The output folder, and its files after each level; ``codes`` are the exit codes."""

    out: Path
    after_participant: list[str]
    after_group: list[str]
    codes: tuple[int, int]


def tree(folder: Path) -> list[str]:
    """Every file, the id of a run replaced by ``RUN``."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            parts = list(path.relative_to(folder).parts)
            for folder_of_runs in {"log", "runs"} & set(parts):
                parts[parts.index(folder_of_runs) + 1] = "RUN"
            found.append("/".join(parts))
    return sorted(found)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tree")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "home"))
        demo = write_demo(folder, spacing=2.0)
        places = [str(demo.bids_dir), str(folder / "out")]
        options = ["-w", str(folder / "work"), "--atlas-dir", str(demo.atlas_dir), "--atlas", "Phantom", "--nprocs", "1"]
        options += ["-d", str(demo.masks_dir), "--init", "axes", "--refine", "none"]
        one = main([*places, "participant", *options])
        before = tree(folder / "out")
        two = main([*places, "group", "--nprocs", "1"])
    return Run(folder / "out", before, tree(folder / "out"), (one, two))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, contrast_weights: Callable[[], Path]) -> tuple[int, Path]:
    """Exit code and output folder of a run over one newborn, whose T1w image is converted."""
    folder = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "home"))
        demo = write_demo(folder, spacing=2.0)
        options = ["-w", str(folder / "work"), "--atlas-dir", str(demo.atlas_dir), "--atlas", "Phantom", "--nprocs", "1"]
        options += ["--init", "center", "--refine", "none", "--participant-label", "03"]
        options += ["--convert", "always", "--weights", str(contrast_weights())]
        return main([str(demo.bids_dir), str(folder / "out"), "participant", *options]), folder / "out"


@pytest.mark.slow
def test_participant_level_writes_exactly_these_files(run: Run):
    logs = [f"{unit}/log/RUN/posepipe.toml" for unit in UNITS]
    assert run.codes[0] == 0
    assert run.after_participant == sorted([*SHARED, *PAGES, *IMAGES, *logs])


def test_group_level_adds_exactly_these_files(run: Run):
    assert run.codes[1] == 0
    assert sorted({*run.after_group} - {*run.after_participant}) == sorted(GROUP)
    assert {*run.after_participant} <= {*run.after_group}


@pytest.mark.slow
def test_a_converted_image_leaves_two_more(converted: tuple[int, Path]):
    code, out = converted
    synth = [f"sub-03/anat/sub-03_desc-synth_T2w.{kind}" for kind in ("nii.gz", "json")]
    own = [path for path in IMAGES if path.startswith("sub-03")]
    assert code == 0 and tree(out) == sorted([*SHARED, "sub-03.html", "sub-03/log/RUN/posepipe.toml", *own, *synth])


def test_description_tells_what_it_was_made_with(run: Run):
    description = json.loads((run.out / "dataset_description.json").read_text())
    (ours,) = description["GeneratedBy"]
    assert (ours["Name"], description["DatasetType"]) == ("posepipe", "derivative")
    assert description["SourceDatasets"][0]["URL"].endswith("/bids")
    assert "tpl-Phantom_cohort-39_T1w.nii.gz" in ours["AtlasFiles"] and "tpl-Phantom_cohort-24_desc-brain_mask.nii.gz" in ours["AtlasFiles"]
    assert all(len(digest) == 64 for digest in ours["AtlasFiles"].values())
    citation = (run.out / "logs" / "CITATION.md").read_text(encoding="utf-8")
    assert "principal axes of the brain mask" in citation and "was not refined further" in citation
    assert "search over all rotations" not in citation and "Avants" not in citation
    assert "T1w images were aligned" in citation and "Brain masks that came with the images" in citation


@pytest.mark.slow
def test_the_output_passes_the_bids_validator(run: Run, converted: tuple[int, Path], tmp_path: Path):
    if importlib.util.find_spec("bids_validator_deno") is None:
        pytest.skip("bids-validator-deno is not installed: pip install bids-validator-deno")
    program = Path(sys.executable).with_name("bids-validator-deno")
    report = tmp_path / "report.json"
    for out in (run.out, converted[1]):
        command = [str(program), str(out), "--format", "json", "--outfile", str(report)]
        output = subprocess.run(command, capture_output=True, text=True, check=False)
        issues = json.loads(report.read_text())["issues"]["issues"]
        errors = [(issue["code"], issue.get("subCode"), issue.get("location")) for issue in issues if issue["severity"] == "error"]
        assert not errors, errors
        assert output.returncode == 0
