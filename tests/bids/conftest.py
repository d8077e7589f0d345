"""Small datasets of empty files, and a record of the folders that are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from posepipe.bids import InputImage
from posepipe.bids.entities import split_name

MakeDataset = Callable[..., Path]


def image_at(root: Path, relative: str, mask: Path | None = None) -> InputImage:
    """The image with this path below ``root``, whether the file is there or not."""
    split = split_name(Path(relative).name)
    assert split is not None
    return InputImage(root / relative, Path(relative), split.entities, split.suffix, mask)


@pytest.fixture
def image_of() -> Callable[..., InputImage]:
    return image_at


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """``make_dataset(*names, folder="ds", description={…}, texts={path: text})``: folders of BIDS names are made."""

    def make(
        *names: str,
        folder: str = "ds",
        description: dict[str, object] | None = None,
        texts: dict[str, str] | None = None,
    ) -> Path:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        content = {"Name": "test", "BIDSVersion": "1.10.0"} if description is None else description
        (root / "dataset_description.json").write_text(json.dumps(content))
        for name in names:
            path = root / (name if "/" in name else _place(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for name, text in (texts or {}).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        return root

    return make


def _place(name: str) -> str:
    split = split_name(name)
    assert split is not None, name
    folders = [f"{key}-{split.entities[key]}" for key in ("sub", "ses") if key in split.entities]
    return "/".join([*folders, "anat", name])


class _Watcher:
    """Paths of folders listed while watching; an audit hook cannot be removed, so there is one for the whole run."""

    def __init__(self) -> None:
        self.listed: list[str] | None = None
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[object, ...]) -> None:
        if self.listed is not None and event in {"os.scandir", "os.listdir"}:
            self.listed.append(str(args[0]))


_watchers: list[_Watcher] = []


@pytest.fixture
def watch_folders() -> Callable[[], Iterator[list[str]]]:
    """A context manager whose value is the list of folders listed within it."""
    if not _watchers:
        _watchers.append(_Watcher())

    @contextmanager
    def watch() -> Iterator[list[str]]:
        watcher = _watchers[0]
        watcher.listed = []
        try:
            yield watcher.listed
        finally:
            watcher.listed = None

    return watch  # type: ignore[return-value]
