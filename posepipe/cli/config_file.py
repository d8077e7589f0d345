"""``--config-file``: options in a TOML file, with their names on the command line."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import parse_json

# written by posepipe into its own record of a run, which is a config file too
_RECORDS = {"run", "versions"}
_NOT_IN_FILE = {"help", "version", "config_file", "bids_dir", "out_dir", "analysis_level"}


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file. Raises :class:`~posepipe.errors.UsageError` if it is missing or not TOML."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); give a file that can"
        raise UsageError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not valid TOML ({error}); repair it"
        raise UsageError(msg) from error


def read_config(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Options from the TOML file ``path``, checked as ``parser`` would check them.

    Raises :class:`~posepipe.errors.UsageError` for an unknown option and for a value that it cannot have.
    """
    options = {action.dest: action for action in parser._actions if action.dest not in _NOT_IN_FILE}
    values: dict[str, Any] = {}
    for key, value in read_toml(path).items():
        if key in _RECORDS and isinstance(value, dict):
            continue
        name = key.replace("-", "_")
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1)
            hint = f"; did you mean {near[0].replace('_', '-')}?" if near else ""
            msg = f"{path}: unknown option {key!r}{hint}"
            raise UsageError(msg)
        values[name] = _convert(options[name], value, f"{path}: {key}")
    return values


def _convert(action: argparse.Action, value: Any, where: str) -> Any:
    """``value`` as the option would hold it."""
    if isinstance(action, argparse._StoreTrueAction):
        if not isinstance(value, bool):
            msg = f"{where} is true or false, not {value!r}"
            raise UsageError(msg)
        return value
    if isinstance(action, argparse._CountAction):
        return _one(action, value, where, kind=int)
    if action.nargs == "+" or isinstance(action, argparse._AppendAction):
        return [_one(action, v, where) for v in (value if isinstance(value, list) else [value])]
    return _one(action, value, where)


def _one(action: argparse.Action, value: Any, where: str, kind: Any = None) -> Any:
    if isinstance(value, (bool, dict, list)):
        msg = f"{where} cannot be {value!r}"
        raise UsageError(msg)
    kind = kind or action.type or str
    try:
        converted = kind(str(value))
    except (argparse.ArgumentTypeError, ValueError) as error:
        msg = f"{where}: {error}"
        raise UsageError(msg) from error
    if action.choices is not None and converted not in action.choices:
        msg = f"{where} is one of {', '.join(map(str, action.choices))}, not {value!r}"
        raise UsageError(msg)
    return converted


def read_plugin_args(path: Path) -> dict[str, Any]:
    """Arguments of a Nipype plugin, from a TOML or JSON file.

    Raises :class:`~posepipe.errors.UsageError` for a file that is neither.
    """
    if path.suffix != ".json":
        return read_toml(path)
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as JSON ({error})"
        raise UsageError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: expected an object of plugin arguments"
        raise UsageError(msg)
    return content
