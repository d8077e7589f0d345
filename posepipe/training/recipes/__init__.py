"""Recipes of the packaged networks, one file each: which ``posepipe-tools train`` command with which options makes it."""

from __future__ import annotations

import sys
from pathlib import Path

from ...errors import UsageError
from ...models.weights import PACKAGED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent


def recipe_names() -> tuple[str, ...]:
    """Networks that have a recipe.

    >>> recipe_names()
    ('locator', 'scan')
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def recipe_arguments(name: str) -> list[str]:
    """The command and its options that make the packaged network ``name``. Raises :class:`~posepipe.errors.UsageError` for another name.

    >>> recipe_arguments("locator")[:5]
    ['scan', '--network', 'locator', '--steps', '2400']
    """
    if name not in recipe_names():
        msg = f"there is no recipe {name!r}: choose from {', '.join(recipe_names())}"
        raise UsageError(msg)
    recipe = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    options = dict(recipe["options"])
    if options.get("start") == "packaged":
        options["start"] = str(PACKAGED)
    values = {key: value if isinstance(value, list) else [value] for key, value in options.items()}
    return [recipe["train"], *(text for key, value in values.items() for text in (f"--{key}", *map(str, value)))]
