"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples every time, no time limit an example, no folder of past failures
settings.register_profile("suite", deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: ``POSEPIPE_DATA``, else ``../shared/data`` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("POSEPIPE_DATA", default))
    if not (folder / "atlases").is_dir():
        pytest.skip(f"no real data at {folder}: set POSEPIPE_DATA to the folder that holds atlases/ and ds-*")
    return folder


@pytest.fixture(scope="session")
def one_thread_no_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread of torch, and no cache or atlas of the user's."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TEMPLATEFLOW_HOME", str(tmp_path_factory.mktemp("templateflow")))
        patch.delenv("POSEPIPE_ATLAS_PATH", raising=False)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mask_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """A function that makes a folder of mask networks that give every voxel of every image the same ``logit`` of being brain."""
    import torch

    from posepipe.models import save_network
    from posepipe.models.masks import MaskNet
    from posepipe.models.weights import MASK_NETWORKS

    def make(logit: float) -> Path:
        folder, options = tmp_path_factory.mktemp("mask-weights"), {"size": 32, "width": [2, 2, 2, 2]}
        network = MaskNet(**options)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        torch.nn.init.constant_(network.head.bias, logit)
        for name in MASK_NETWORKS:
            save_network(network, name, folder, architecture="MaskNet", options=options, card="# Test\n", terms="none")
        return folder

    return make
