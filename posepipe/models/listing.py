"""``weights.toml``: the list of the networks in a weights folder, with architecture, options, file, SHA-256, card and terms of use."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTING = "weights.toml"
_HEADER = (
    "# The networks in this folder, one table each: architecture, options of its constructor, file, SHA-256, card, terms of use.\n"
    "# Written by posepipe.models.save_network.\n"
)
_TEXTS = ("architecture", "file", "sha256", "card", "terms")


@dataclass(frozen=True)
class Entry:
    """One network of the list: class and ``options`` of its constructor, files in the list's folder, SHA-256, and terms of use."""

    name: str
    architecture: str
    options: Mapping[str, Any]
    file: str
    sha256: str
    card: str
    terms: str


def check_name(name: str, where: str) -> None:
    """Raise :class:`~posepipe.errors.WeightsError`, with a message that begins with ``where``, unless ``name`` is valid for a network and
    its files."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        msg = f"{where}: {name!r} cannot name a network; use letters, digits, - and _"
        raise WeightsError(msg)


def read_listing(folder: Path) -> dict[str, Entry]:
    """Name → entry of the list in ``folder``.

    Raises :class:`~posepipe.errors.WeightsError` if there is no list, or if it is not valid.
    """
    path = folder / LISTING
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{folder}: not a weights folder (no {LISTING}); name the folder that posepipe-tools train wrote"
        raise WeightsError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as TOML ({error}); repair it, or save the networks again"
        raise WeightsError(msg) from error
    return {name: _entry(path, name, table) for name, table in tables.items()}


def listing_text(entries: Mapping[str, Entry]) -> str:
    """The list as TOML, by name.

    >>> print(listing_text({"a": Entry("a", "PoseNet", {"size": 48}, "a.safetensors", "0" * 64, "a.md", "MIT")}).split("\\n\\n")[1])
    [a]
    architecture = "PoseNet"
    file = "a.safetensors"
    sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    card = "a.md"
    terms = "MIT"
    [a.options]
    size = 48
    """
    lines = [_HEADER]
    for name in sorted(entries):
        entry = entries[name]
        lines += [f"[{name}]", *(f"{key} = {_toml(getattr(entry, key))}" for key in _TEXTS)]
        lines += [f"[{name}.options]", *(f"{key} = {_toml(value)}" for key, value in entry.options.items()), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _entry(path: Path, name: str, table: Any) -> Entry:
    where = f"{path}: [{name}]"
    check_name(name, str(path))
    table = table if isinstance(table, dict) else {}
    texts = {key: table[key] for key in _TEXTS if isinstance(table.get(key), str)}
    if len(texts) < len(_TEXTS):
        missing = ", ".join(key for key in _TEXTS if key not in texts)
        msg = f"{where} needs {missing} as text; repair it, or save the network again"
        raise WeightsError(msg)
    options = table.get("options")
    if not isinstance(options, dict):
        msg = f"{where}: options must be a table of the constructor's arguments; repair it, or save the network again"
        raise WeightsError(msg)
    for key in ("file", "card"):
        # a list from another source must not refer to files outside its folder
        if texts[key] != Path(texts[key]).name or not texts[key]:
            msg = f"{where}: {key} must be the name of a file in the same folder, not {texts[key]!r}"
            raise WeightsError(msg)
    return Entry(name=name, options=options, **texts)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str):
        escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{escaped}"'
    msg = f"the option value {value!r} cannot be written in {LISTING}; options are text, numbers, true or false, and lists of them"
    raise WeightsError(msg)
