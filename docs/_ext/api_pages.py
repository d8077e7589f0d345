"""Writes a page of the Python reference for each folder and module of posepipe, from what is there when the site is built.

Pages go to ``docs/reference/api``, which git ignores. A module's docstring comes first, then its public members that have docstrings.
References to names of posepipe that do not exist are warnings; those to names that exist and have no docstring are text without a link.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.ext.napoleon import Config, GoogleDocstring, NumpyDocstring

import posepipe
from posepipe import workflows
from posepipe.bench.constants import numeric_constants

LEFT_OUT = {"_version", "workflows", "atlases"}
"""Modules of the package without a page of their own: the version; Nipype's workflows come as a folder of their own; atlases hold data."""


def underlined(title: str, sign: str) -> str:
    """A heading of reStructuredText."""
    return f"{title}\n{sign * len(title)}\n\n"


def module(name: str) -> str:
    """What documents one module."""
    return f".. automodule:: {name}\n\n"


def page(name: str, folder: Path | None) -> str:
    """The page of the package ``name`` in ``folder``, or of the module ``name`` where there is no folder."""
    text = underlined(name, "=") + module(name)
    if folder is not None:
        found = sorted((m.name, m.ispkg) for m in pkgutil.iter_modules([str(folder)]))
        for inner, is_package in found:
            if not inner.startswith("_"):
                text += underlined(f"{name}.{inner}", "-") + module(f"{name}.{inner}")
            if is_package:
                for m in pkgutil.iter_modules([str(folder / inner)]):
                    text += underlined(f"{name}.{inner}.{m.name}", "-") + module(f"{name}.{inner}.{m.name}")
    return text


def pages() -> dict[str, str]:
    """File name without its ending → text, for the whole package."""
    root = Path(posepipe.__file__).parent
    found = {
        m.name: page(f"posepipe.{m.name}", root / m.name if m.ispkg else None)
        for m in pkgutil.iter_modules([str(root)])
        if m.name not in LEFT_OUT
    }
    found["workflows"] = page("posepipe.workflows", Path(workflows.__file__).parent)
    return found


def write_pages(folder: Path, texts: dict[str, str]) -> None:
    """Make ``folder`` hold these pages and no other. One that is as it was is left alone, so that it need not be read again."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def constants_page() -> str:
    """A table of the numbers that stages hold: module, name, value, and what the docstring says of it."""
    text = underlined("Constants", "=")
    text += "Numbers in the modules of the stages: what they are, their units, and on which data they were set where that is known.\n\n"
    for name, of_module in groupby(numeric_constants(), lambda one: one.module):
        text += underlined(f"posepipe.{name}", "-")
        text += ".. list-table::\n   :header-rows: 1\n   :widths: 26 16 58\n\n   * - constant\n     - value\n     - meaning\n"
        for one in of_module:
            # names of the module itself cannot be resolved from another page
            meaning = re.sub(r":\w+:`(?!~?posepipe\.)([^`]+)`", r"``\1``", "\n       ".join(one.doc.splitlines()))
            text += f"   * - ``{one.name}``\n     - ``{one.value}``\n     - {meaning}\n"
        text += "\n"
    return text


def write(app: Any) -> None:
    """Write the pages."""
    texts = {f"{name}.rst": text for name, text in pages().items()}
    write_pages(Path(app.srcdir) / "reference" / "api", {**texts, "constants.rst": constants_page()})


def modules() -> Iterator[ModuleType]:
    """Every module of posepipe, imported."""
    for package in (posepipe, workflows):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith("posepipe.atlases"):
                yield importlib.import_module(found.name)


def import_what_only_types_need(app: Any) -> None:
    """Run the imports under ``if TYPE_CHECKING``: annotations can then be read, and lead to the class that is meant."""
    for module in list(modules()):
        for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                block = ast.Module(body=[n for n in node.body if isinstance(n, (ast.Import, ast.ImportFrom))], type_ignores=[])
                exec(compile(block, str(module.__file__), "exec"), vars(module))


def real_name(name: str) -> str | None:
    """The name under which what ``name`` leads to was defined; None where it leads nowhere."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return name if part in inspect.get_annotations(found) else None
            found = getattr(found, part)
        if inspect.isclass(found) or inspect.isfunction(found):
            return f"{found.__module__}.{found.__qualname__}"
        return name
    return None


def resolve(app: Any, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """A reference to a name that is imported elsewhere leads to where it is defined. One to what has no docstring, or is not posepipe's, is
    text. One to a name that cannot be imported is left to Sphinx, which warns."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    inside = [node.get("py:module"), node.get("py:class")]
    scopes = [".".join(part for part in parts if part) for parts in (inside, inside[:1], ["builtins"], ["typing"])]
    real = next(filter(None, map(real_name, [name, *(f"{scope}.{name}" for scope in scopes if scope)])), None)
    if real is None:
        return None
    domain = env.get_domain("py")
    if real != name and real in domain.objects:
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", real, node, contnode)
    return contnode


SECTIONS = Config(napoleon_custom_sections=["Inputs", "Outputs"])
"""Sections of docstrings; those of workflows have two more."""


def read_sections(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn sections such as ``Args:`` into reStructuredText. Not of data and attributes: there a colon is no more than a colon."""
    if what in {"module", "class", "exception", "function", "method"}:
        for style in (NumpyDocstring, GoogleDocstring):
            lines[:] = style(lines, SECTIONS, app, what, name, obj, options).lines()


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write)
    app.connect("builder-inited", import_what_only_types_need)
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True}
