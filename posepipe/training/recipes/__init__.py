"""Recipes of the packaged networks, one file each: which ``posepipe-tools train`` command with which options makes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...models.weights import PACKAGED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent


def recipe_names() -> tuple[str, ...]:
    """Networks that have a recipe.

    >>> recipe_names()[:3]
    ('contrast', 'contrast-unpaired', 'correction-net')
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def recipe_stages(name: str) -> list[list[str]]:
    """The training commands with their options that make the packaged network ``name``, in order; each starts from the weights of the
    previous one. Raises :class:`~posepipe.errors.UsageError` for an unknown name.

    >>> [stage[:3] for stage in recipe_stages("pose-net")]
    [['pose', '--name', 'pose-net']]
    """
    if name not in recipe_names():
        msg = f"there is no recipe {name!r}: choose from {', '.join(recipe_names())}"
        raise UsageError(msg)
    stages = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["stages"]
    return [[stage["train"], "--name", name, *_options(stage["options"])] for stage in stages]


def _options(given: dict[str, Any]) -> list[str]:
    options = dict(given)
    if options.get("start") == "packaged":
        options["start"] = str(PACKAGED)
    values = {key: value if isinstance(value, list) else [] if value is True else [value] for key, value in options.items()}
    return [text for key, value in values.items() for text in (f"--{key}", *map(str, value))]
