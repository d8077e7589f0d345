"""Sources to train with: gathered from the demonstration's phantoms by the command line, and blobs at known positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from posepipe.cli.tools import main
from posepipe.models.coordinates import HALF_SIDE
from posepipe.phantom.demo_data import DemoDataset, write_demo
from posepipe.training.sources import SIDE, Sources, SourceVolume

SPLIT = """[validation]
templates = ["Phantom+30"]
[test]
templates = ["Phantom+36"]
subjects = ["sub-01", "sub-02"]
"""


@pytest.fixture(scope="session", autouse=True)
def _apart(one_thread_no_cache: None) -> None:
    """All tests here run so."""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoDataset:
    """Four cohorts, a fetus, a fetus seen twice and a newborn, coarse."""
    return write_demo(tmp_path_factory.mktemp("demo"), n_subjects=3, weeks=(24, 30, 36, 38), spacing=2.0, seed=3)


@dataclass(frozen=True)
class Gathered:
    """What ``train sources`` wrote and what it said."""

    path: Path
    output: str
    sources: Sources


@pytest.fixture(scope="session")
def gathered(demo: DemoDataset, tmp_path_factory: pytest.TempPathFactory) -> Gathered:
    """The phantoms as sources, by the command line; week 36, sub-01 and sub-02 are kept for testing."""
    folder = tmp_path_factory.mktemp("pack")
    (folder / "split.toml").write_text(SPLIT)
    lines: list[str] = []
    command = [
        "train", "sources", "--atlas-dir", str(demo.atlas_dir), "--subjects", str(demo.bids_dir), "--reference", "Phantom",
        "--split", str(folder / "split.toml"), "--terms", "bids=non-commercial research", "-o", str(folder / "pack.npz"),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posepipe.cli.train_command._say", lines.append)
        assert main(command) == 0
    return Gathered(folder / "pack.npz", "\n".join(lines), Sources.load(folder / "pack.npz"))


@pytest.fixture(scope="session")
def sources(gathered: Gathered) -> Sources:
    """Phantoms to train with."""
    return gathered.sources


@dataclass(frozen=True)
class Blob:
    """A soft ball at ``center`` (canonical, radii), as image and as labels, to train and to validate with."""

    center: tuple[float, float, float] = (0.45, -0.2, 0.3)
    ages: tuple[float, ...] = (25.0, 35.0)
    sources: Sources = field(init=False)

    def __post_init__(self) -> None:
        axis = (np.arange(SIDE) + 0.5) / SIDE * 2 * HALF_SIDE - HALF_SIDE
        x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
        square = sum((a - c) ** 2 for a, c in zip((x, y, z), self.center, strict=True))
        mask = (255 * np.exp(-square / (2 * 0.25**2))).round().astype(np.uint8)
        volumes, voxels = [], []
        for part in ("train", "validation"):
            for age in self.ages:
                for kind, value in (("T2w", 200), ("labels", 3)):
                    volumes.append(SourceVolume(f"{part}{age:g}", "blobs", part, age, kind, 0, 30.0))
                    voxels.append(np.where(mask > 0, value, 0).astype(np.uint8))
        object.__setattr__(self, "sources", Sources(tuple(volumes), np.stack(voxels), mask[None], {"blobs": "CC0"}))


@pytest.fixture(scope="session")
def blob() -> Blob:
    """The blob."""
    return Blob()


def centroids(mask: torch.Tensor) -> torch.Tensor:
    """Centres of mass (B, 3), in cube points, of masks (B, 1, S, S, S)."""
    from posepipe.models.coordinates import cube_points

    weight = mask.flatten(1)
    return weight @ cube_points(mask.shape[-1]) / weight.sum(1, keepdim=True)


@pytest.fixture(scope="session", name="centroids")
def _centroids() -> Callable[[torch.Tensor], torch.Tensor]:
    return centroids
