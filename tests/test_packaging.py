"""The installed package has the files of the checkout, and the project's files agree with one another."""

from __future__ import annotations

import ast
import configparser
import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import posepipe
from posepipe.models.listing import read_listing
from posepipe.models.weights import PACKAGED

ROOT = Path(__file__).resolve().parents[1]
PLACES = {"posepipe": "posepipe", "workflows": "posepipe.workflows", "atlases": "posepipe.atlases"}
"""Folder → package, as ``package_dir`` of setup.cfg has it."""
IMPORT_NAMES = {"antspyx": "ants", "pillow": "PIL", "pybids": "bids", "scikit-learn": "sklearn"}
"""Distributions whose import name differs by more than a dash."""
COMPARED_TOOLS = {"SimpleITK", "picsl_greedy", "fireants"}
"""Tools that ``bench speed`` compares posepipe with where they are installed; posepipe itself does not use them."""

@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def listed(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def package_folders() -> dict[str, Path]:
    """Every package of the checkout and its folder."""
    found = {}
    for folder, package in PLACES.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder).parts
            found[".".join((package, *inside))] = init.parent
    return found


def sources() -> list[Path]:
    return [path for folder in PLACES for path in (ROOT / folder).rglob("*.py")]


def test_every_package_is_installed(config):
    assert sorted(listed(config["options"]["packages"])) == sorted(package_folders())


def test_every_module_is_in_a_package():
    folders = set(package_folders().values())
    assert {path.parent for path in sources()} <= folders


def test_every_data_file_is_installed(config):
    patterns = {package: listed(text) for package, text in config["options.package_data"].items()}
    packages = package_folders()
    missing = []
    for folder in PLACES:
        for path in (ROOT / folder).rglob("*"):
            if path.is_dir() or path.suffix in {".py", ".pyc"}:
                continue
            owner = max((p for p in packages if path.is_relative_to(packages[p])), key=len)
            name = path.relative_to(packages[owner]).as_posix()
            if not any(fnmatch(name, pattern) for pattern in patterns.get(owner, [])):
                missing.append(path.relative_to(ROOT).as_posix())
    assert not missing


def third_party_imports() -> dict[str, str]:
    """Top names of other projects that are imported anywhere, late imports too, and a file that does."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in {"posepipe", "tomllib"}:
                    found[top] = path.relative_to(ROOT).as_posix()
    return found


def test_what_is_imported_is_required_and_what_is_required_is_imported(config):
    names = [re.match(r"[\w.-]+", line)[0].lower() for line in listed(config["options"]["install_requires"])]
    required = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}
    assert required == set(third_party_imports()) - COMPARED_TOOLS


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {posepipe.__version__}\n" in citation
    assert f"\n## {posepipe.__version__} " in (ROOT / "CHANGES.md").read_text(encoding="utf-8")


def test_the_readme_s_test_command_is_what_ci_runs():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (command,) = [line for block in blocks for line in block.splitlines() if "pytest" in line]
    ci = ROOT / ".ci" / "run"
    assert f"\n{command}\n" in ci.read_text(encoding="utf-8")
    assert os.access(ci, os.X_OK)


def test_links_and_pictures_of_the_readme_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


def test_the_terms_of_the_weights_come_along(config):
    assert listed(config["metadata"]["license_files"]) == ["LICENSE", "LICENSE-weights"]
    told = " ".join((ROOT / "LICENSE-weights").read_text(encoding="utf-8").split())
    networks = read_listing(PACKAGED)
    assert networks and all(network.terms in told and re.search(rf"\b{re.escape(name)}\b", told) for name, network in networks.items())
    assert "research only" in config["metadata"]["license"]  # no "License ::" classifier: none says this
    assert not [line for line in listed(config["metadata"]["classifiers"]) if line.startswith("License ::")]


def test_the_pythons_that_are_named_are_those_that_are_tested(config):
    named = [line.rpartition(" ")[2] for line in listed(config["metadata"]["classifiers"]) if re.search(r":: 3\.\d+$", line)]
    assert config["options"]["python_requires"] == f">={named[0]}"
    matrix = (ROOT / ".ci" / "matrix").read_text(encoding="utf-8")
    cells = re.search(r" cells=\((.*)\)", matrix)[1].split()
    assert [cell for cell in cells if cell.endswith("-newest")] == [f"py{version.replace('.', '')}-newest" for version in named]


def test_the_citation_file_is_complete():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    keys = set(re.findall(r"^([\w-]+):", text, re.M))
    assert {"cff-version", "message", "type", "title", "abstract", "authors", "version", "license", "keywords", "references"} <= keys
    assert len(re.findall(r"^  - type: ", text, re.M)) == len(re.findall(r"^    doi: 10\.\d{4,}/\S+$", text, re.M)) >= 3
