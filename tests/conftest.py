"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from miniature import Miniature, write_miniature
from phantom_heads import average, head, heads, make_head, target

__all__ = ["average", "head", "heads", "make_head", "target"]

# the same examples every time, no time limit an example, no folder of past failures
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

# ITK reads the number of its threads once a process. With more than one, two runs of ANTs differ in the last digits.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: ``POSEPIPE_DATA``, else ``../shared/data`` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("POSEPIPE_DATA") or default)
    if not (folder / "atlases").is_dir():
        pytest.skip(f"no real data at {folder}: set POSEPIPE_DATA to the folder that holds atlases/ and ds-*")
    return folder


@pytest.fixture(scope="session")
def one_thread_no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread of torch (or ``POSEPIPE_TEST_THREADS``), and no cache or atlas of the user's."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("POSEPIPE_TEST_THREADS") or 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TEMPLATEFLOW_HOME", str(tmp_path_factory.mktemp("templateflow")))
        patch.delenv("POSEPIPE_ATLAS_PATH", raising=False)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory, one_thread_no_cache: None) -> Miniature:
    """The folder of real data in miniature, made of phantoms; read only."""
    return write_miniature(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def scan_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """A function that makes a folder with the networks for scans, set by hand: brain is what is brighter than ``share`` of the bright
    voxels of a crop (above 1.5 nothing is), whatever was thought before, and every head is upright. Voxels point to themselves, as of
    a brain of eight voxels' radius."""
    import numpy as np
    import torch

    from posepipe.models import save_network
    from posepipe.models.scans import LocatorNet, OutlineNet, ScanNet

    def make(share: float) -> Path:
        folder, options = tmp_path_factory.mktemp("scan-weights"), {"size": 32, "width": [2, 2, 2, 2]}
        for name, network, image in (
            ("locator", LocatorNet(**options), 0), ("scan", ScanNet(**options), 2), ("outline", OutlineNet(**options), 0),
        ):  # fmt: skip
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.zero_()
                network.fine[0][0].weight[0, image, 1:, 1:, 1:] = 1 / 8  # means of blocks, handed on to the head
                network.fine[1][0].weight[0, 0, 1, 1, 1] = network.up_fine[0].weight[0, 2, 1, 1, 1] = 1
                for layer in (*network.fine, network.up_fine):
                    layer[1].weight[0] = 1
                logits = slice(4, 12) if name == "scan" else slice(0, 8)
                network.head.weight[logits, 0], network.head.bias[logits] = 40, -40 * share
                if name == "locator":
                    network.head.bias[11] = np.log(8 / 6)
            kind = type(network).__name__
            save_network(network, name, folder, architecture=kind, options=options, card="# Test\n", terms="none")
        return folder

    return make


@pytest.fixture(scope="session")
def contrast_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """A function that makes a folder with a contrast network, set by hand: bright becomes dark, more sharply for a larger ``gain``."""
    import torch

    from posepipe.models import save_network
    from posepipe.models.contrast import ContrastNet

    def make(gain: float = 4.0) -> Path:
        folder, options = tmp_path_factory.mktemp("contrast-weights"), {"size": 32, "width": [4, 4, 4, 4, 4]}
        network = ContrastNet(**options)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            network.head.weight[0, -2, 1, 1] = -gain  # of the three slices that it sees, the middle one's middle
            network.head.bias[:] = gain / 2
        save_network(network, "contrast", folder, architecture="ContrastNet", options=options, card="# Test\n", terms="none")
        return folder

    return make


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, with no atlas in it: what is made ready of the templates goes there too."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("POSEPIPE_ATLAS_PATH", raising=False)
        patch.delenv("TEMPLATEFLOW_HOME", raising=False)
        yield folder
