"""The folders of the package and what each may import (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import posepipe
from posepipe import workflows

PACKAGE = Path(posepipe.__file__).parent
BELOW: dict[str, str] = {
    "errors": "",
    "files": "errors",
    "paths": "errors",
    "references": "",
    "settings": "",
    "geometry": "errors files",
    "imaging": "geometry settings",
    "phantom": "imaging",
    "atlas": "imaging paths references",
    "models": "geometry",
    "matching": "imaging atlas models",
    "pose": "matching",
    "refinement": "matching settings",
    "contrast": "matching",
    "brainmask": "pose settings",
    "age": "pose",
    "quality": "pose refinement contrast",
    "bids": "geometry paths settings",
    "slices": "brainmask age quality bids",
    "plan": "bids atlas",
    "aligner": "slices quality alignment plan",
    "alignment": "slices quality contrast age refinement",
    "reports": "bids imaging settings",
    "training": "quality bids",
    "interfaces": "aligner reports",
    "workflows": "interfaces",
    "bench": "aligner training",
    "cli": "workflows bench phantom",
}
"""Folder or module → what it depends on directly; it may import these, their own dependencies, and itself."""


def dependencies(name: str) -> set[str]:
    """All that ``name`` may import."""
    direct = set(BELOW[name].split())
    return direct | {low for one in direct for low in dependencies(one)}


def imports() -> list[tuple[str, str, str]]:
    """File, its folder or module, and each folder or module of posepipe that it imports."""
    found = []
    for root, prefix in ((PACKAGE, "posepipe"), (Path(workflows.__file__).parent, "posepipe.workflows")):
        for path in root.rglob("*.py"):
            parts = [*prefix.split("."), *path.relative_to(root).with_suffix("").parts]
            package = parts[:-1]  # of a module, and of an __init__ alike
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom):
                    base = package[: len(package) + 1 - node.level] if node.level else []
                    names = [*base, *(node.module or "").split(".")] if node.module else base
                    whole = [".".join(names)] if node.module and len(names) > 1 else [".".join([*names, a.name]) for a in node.names]
                elif isinstance(node, ast.Import):
                    whole = [a.name for a in node.names]
                else:
                    continue
                found += [(str(path), parts[1], name.split(".")[1]) for name in whole if name.startswith("posepipe.")]
    return found


IMPORTS = imports()


def test_every_folder_has_its_place():
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert modules - {"__init__", "_version", "workflows", "atlases"} == set(BELOW) - {"workflows"}
    assert {name for _, name, _ in IMPORTS} - {"__init__"} <= set(BELOW)


@pytest.mark.parametrize("name", BELOW)
def test_a_folder_imports_only_its_dependencies(name):
    allowed = {name, "_version", *dependencies(name)}
    wrong = sorted({(Path(file).name, other) for file, mine, other in IMPORTS if mine == name and other not in allowed})
    assert not wrong


def test_nothing_below_the_interfaces_imports_nipype():
    users = {"interfaces", "workflows", "cli", "bench"}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in users:
            assert "nipype" not in {name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for name in _roots(node)}, path


def _roots(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [(node.module or "").split(".")[0]]
    return [a.name.split(".")[0] for a in node.names] if isinstance(node, ast.Import) else []
