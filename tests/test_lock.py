"""requirements.lock: all dependencies, each with one version and its hashes, and their use in the Dockerfile and CI."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"


def locked() -> dict[str, tuple[str, list[str]]]:
    """Name → version and hashes."""
    found = {}
    for entry in re.split(r"\n(?=\S)", LOCK.read_text(encoding="utf-8").strip()):
        if not entry.startswith("#"):
            name, version = entry.split()[0].split("==")
            found[canonicalize_name(name)] = version, re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
    return found


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    made = configparser.ConfigParser()
    made.read(ROOT / "setup.cfg")
    return made


def test_what_posepipe_needs_is_locked_in_a_version_that_will_do(config: configparser.ConfigParser) -> None:
    versions = locked()
    needed = [Requirement(line) for line in config["options"]["install_requires"].strip().splitlines()]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"python_version": "3.11", "extra": ""})]
    assert len(needed) > 15
    for one in needed:
        version, hashes = versions[canonicalize_name(one.name)]
        assert one.specifier.contains(version, prereleases=True), one
        assert hashes, one


def test_nothing_is_without_a_hash_or_of_an_open_version() -> None:
    assert all(hashes and re.fullmatch(r"[0-9][0-9A-Za-z.+]*", version) for version, hashes in locked().values())


def test_torch_is_the_build_that_is_tested() -> None:
    tested = re.search(r"pip install torch==(\S+)", (ROOT / ".ci/run").read_text(encoding="utf-8"))
    assert tested and locked()["torch"][0] == f"{tested[1]}+cpu"
    assert not [name for name in locked() if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_container_is_built_from_it_as_another_user_than_root_and_is_given_all_it_copies() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--no-deps --require-hashes" in text and "-r /src/requirements.lock" in text
    last = text[text.rindex("FROM "):]
    assert "\nUSER posepipe" in last and 'ENTRYPOINT ["posepipe"]' in last and "pip install" not in last
    sent = {line[1:].strip() for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    assert {"requirements.lock", "setup.cfg", "pyproject.toml", "posepipe", "workflows", "atlases"} <= sent
