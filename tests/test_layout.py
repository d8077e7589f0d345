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
    "bench": "aligner training phantom",
    "cli": "workflows bench",
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


LONGEST_FUNCTION, LONGEST_FILE = 50, 400
"""Lines: of code in a function, its docstring not counted, at most; of a file, fewer than this."""
ROOTS = (PACKAGE, Path(workflows.__file__).parent, Path(__file__).parent)
SOURCES = sorted({path.resolve() for root in ROOTS for path in root.rglob("*.py")})


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from ``def`` to its end, without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return lines - ((first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0)


def test_functions_are_short():
    too_long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > LONGEST_FUNCTION:
                too_long[f"{path.name}: {node.name}"] = code_lines(node)
    assert not too_long


def test_files_are_short():
    assert all(any(path.is_relative_to(root.resolve()) for path in SOURCES) for root in ROOTS)
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {path: lines for path, lines in lengths.items() if lines >= LONGEST_FILE}
