"""Module constants: a list of those that stages hold, and constants at other values for a while, which ablations are made of."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

STAGES = (
    "age", "atlas", "bids", "brainmask", "contrast", "imaging", "matching", "models", "pose", "quality", "refinement", "slices",
)  # fmt: skip
"""Folders of the package whose constants can change a result."""


@dataclass(frozen=True)
class Constant:
    """One statement ``NAME = number``, or several names and numbers: the ``module``, what is assigned, and its docstring."""

    module: str
    name: str
    value: str
    doc: str


def numeric_constants() -> list[Constant]:
    """All module-level numbers of :data:`STAGES`, in the order of folders, modules and lines."""
    root = Path(__file__).parents[1]
    found = []
    for folder in STAGES:
        for path in sorted((root / folder).glob("*.py")):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            for node, after in pairwise(body):
                if isinstance(node, ast.Assign) and _is_number(node.value):
                    doc = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
                    name, value = (ast.unparse(part).strip("()") for part in (node.targets[0], node.value))
                    found.append(Constant(f"{folder}.{path.stem}", name, value, inspect.cleandoc(str(doc))))
    return found


def _is_number(value: ast.expr) -> bool:
    try:
        known = ast.literal_eval(value)
    except ValueError:
        return False
    values = known if isinstance(known, tuple) else (known,)
    return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


@contextmanager
def constants_set(values: Mapping[str, Any]) -> Iterator[None]:
    """Set constants to ``values`` for a while: ``"pose.hypothesis.LOW_CRITERION"`` → value, in the module that defines the constant and
    in all loaded modules that import it by name. Default arguments and what was computed from a constant at import keep the old value.

    Raises :class:`AttributeError` for a constant that does not exist.
    """
    before: list[tuple[ModuleType, str, Any]] = []
    try:
        for path, value in values.items():
            home, _, name = path.rpartition(".")
            for module in _modules_with(f"posepipe.{home}", name):
                before.append((module, name, getattr(module, name)))
                setattr(module, name, value)
        yield
    finally:
        for module, name, value in reversed(before):
            setattr(module, name, value)


def _modules_with(home: str, name: str) -> list[ModuleType]:
    """The module ``home``, which defines ``name``, and loaded modules of posepipe that import it from there."""
    defining = import_module(home)
    getattr(defining, name)
    others = [m for key, m in list(sys.modules.items()) if key.startswith("posepipe.") and m is not defining and name in vars(m)]
    return [defining, *(m for m in others if _imports(m, home, name))]


def _imports(module: ModuleType, home: str, name: str) -> bool:
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name == a.name for a in node.names):
            package = (module.__package__ or "").split(".")
            base = package[: len(package) + 1 - node.level] if node.level else []
            if ".".join([*base, *(node.module or "").split(".")]) == home:
                return True
    return False
