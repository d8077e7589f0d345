"""Files are written atomically, and always by the same functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from posepipe.workflows import base as workflows

import posepipe
from posepipe.cli import tools
from posepipe.files import copy_file, remove_leftovers, replacing, write_bytes, write_text

PACKAGE = Path(posepipe.__file__).parent
SOURCES = [*PACKAGE.rglob("*.py"), *Path(workflows.__file__).parent.glob("*.py")]
_WRITES = re.compile(r"\.write_(?:text|bytes)\(|savefig\(|\.savez|copyfile\(|nib\.save\(|\.to_filename\(|torch\.save\(|open\([^)]*\"w")


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.nii.gz"
    assert write_text(path, "old") == path
    with replacing(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert write_bytes(tmp_path / "b", b"\xff").read_bytes() == b"\xff"
    assert copy_file(path, tmp_path / "c").read_text(encoding="utf-8") == "new"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.nii.gz", "b", "c", "new"]


def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.json", "old")
    with pytest.raises(ValueError, match="on purpose"), replacing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise ValueError("on purpose")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_names_on_the_way_are_hidden_of_the_same_kind_and_nobody_elses(tmp_path: Path) -> None:
    """Two writers in one process, as threads and machines with equal process ids are, do not meet."""
    path = tmp_path / "sub-01_mode-image_xfm.json"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        for temporary in (one, other):
            assert temporary.parent == tmp_path and temporary.name.startswith(".") and temporary.suffixes[-1] == ".json"
            temporary.write_text("{}", encoding="utf-8")
        assert not list(tmp_path.glob("*_xfm.json"))  # what readers look for


def test_leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    with replacing(path) as temporary:
        left = temporary.with_name(temporary.name)
        temporary.write_bytes(b"whole")
    left.write_bytes(b"half")
    others = [write_text(tmp_path / name, "x") for name in (".a.nii.gz", "a.tmp.nii.gz", ".b.0123456789ab.tmp.nii.gz")]
    remove_leftovers(path)
    assert not left.exists() and path.read_bytes() == b"whole" and all(other.exists() for other in others)


def test_nothing_is_written_in_another_way() -> None:
    found = []
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        # a download that broke off is kept on purpose, and checked when it is whole
        found += [
            f"{source}: {line.strip()}" for line in text.splitlines()
            if _WRITES.search(line) and "temporary" not in line and "self.part.open(" not in line
        ]  # fmt: skip
        if source.name != "files.py":
            found += [f"{source}: getpid" for _ in re.findall(r"getpid\(", text)]
    assert not found, "\n".join(found)


def test_measurements_write_to_folders_that_are_named() -> None:
    """Nothing is written into the installed package."""
    parser = tools.build_parser()
    for table in ("age", "calibration", "stacks"):
        command = ["bench", table, "data", "-o", "out"]
        assert parser.parse_args([*command, "--install", "here"]).install == Path.cwd() / "here"
        assert parser.parse_args(command).install is None
        with pytest.raises(SystemExit):
            parser.parse_args([*command, "--install"])
    for source in SOURCES:
        assert not re.search(r"(?:write|save)_\w+\([^)\n]*PACKAGED[^.\n]*\)", source.read_text(encoding="utf-8")), source


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    path = write_text(tmp_path / "a.txt", "old" * 9000)
    with path.open(encoding="utf-8") as reader:
        assert reader.read(3) == "old"
        write_text(path, "new")
        assert reader.read() == "old" * 8999
    assert path.read_text(encoding="utf-8") == "new"
