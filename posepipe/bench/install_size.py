"""What an installation weighs: MB by dependency. ``python -m posepipe.bench.install_size``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ROOT = "posepipe"


def bare(name: str) -> str:
    """The name of a distribution in one spelling.

    >>> bare("Universal_Pathlib")
    'universal-pathlib'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def required(dist: Distribution) -> list[str]:
    """What ``dist`` requires, without extras; of what is not installed, such as backports, only the name is known."""
    found = []
    for line in dist.requires or ():
        name = _NAME.match(line)
        if name is not None and not re.search(r";.*\bextra\b", line):
            found.append(bare(name[0]))
    return list(dict.fromkeys(found))


def megabytes(dist: Distribution) -> float:
    """10⁶ bytes of the files of ``dist``, compiled Python included; of an editable installation those of its folder."""
    if bare(dist.metadata["Name"]) == ROOT:
        here = Path(__file__).resolve().parents[1]
        return sum(path.stat().st_size for path in here.rglob("*") if path.is_file()) / 1e6
    files = (Path(str(dist.locate_file(path))) for path in dist.files or ())
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


def installed(root: str = ROOT) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The distributions that ``root`` needs, itself included: name → what it requires of them, and name → MB."""
    needs: dict[str, list[str]] = {}
    size: dict[str, float] = {}
    waiting = [bare(root)]
    while waiting:
        name = waiting.pop()
        if name in needs:
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue
        needs[name], size[name] = required(dist), megabytes(dist)
        waiting += needs[name]
    return {name: [other for other in others if other in needs] for name, others in needs.items()}, size


def reached(needs: Mapping[str, Iterable[str]], root: str, without: str = "") -> set[str]:
    """All that ``root`` needs, itself included, if it did not require ``without`` itself; what it requires may still bring it.

    >>> needs = {"p": ["a", "b"], "a": ["c", "d"], "b": ["d"], "c": [], "d": []}
    >>> sorted(reached(needs, "p", without="a")), sorted(reached({**needs, "b": ["a"]}, "p", without="a"))
    (['b', 'd', 'p'], ['a', 'b', 'c', 'd', 'p'])
    """
    found = {root}
    waiting = [name for name in needs[root] if name != without]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needs[name]
    return found


def table(needs: Mapping[str, Sequence[str]], size: Mapping[str, float], root: str = ROOT) -> list[str]:
    """One line for each direct dependency: its own MB, and the MB that an installation would lose without it; the largest first.

    >>> table({"p": ["a"], "a": ["b"], "b": []}, {"p": 1.0, "a": 2.0, "b": 3.0}, "p")[2:]
    ['| a | 2.0 | 5.0 |', '| p itself | 1.0 | |', '| all, 3 packages | 6.0 | |']
    """
    everything = reached(needs, root)
    rows = [(name, size[name], sum(size[gone] for gone in everything - reached(needs, root, name))) for name in needs[root]]
    lines = ["| package | MB | MB less without it |", "|---|---|---|"]
    lines += [f"| {name} | {own:.1f} | {gone:.1f} |" for name, own, gone in sorted(rows, key=lambda row: (-row[2], -row[1]))]
    return [*lines, f"| {root} itself | {size[root]:.1f} | |", f"| all, {len(everything)} packages | {sum(size.values()):.1f} | |"]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table for this environment."""
    argparse.ArgumentParser(description="What an installation of posepipe weighs, by dependency (10⁶ bytes).").parse_args(argv)
    print("\n".join(table(*installed())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
