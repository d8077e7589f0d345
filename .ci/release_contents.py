"""Checks what a source archive and a wheel hold: the licences, all data files of the checkout, and nothing that is not tracked.

    python .ci/release_contents.py FOLDER VERSION
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

LICENCES = ("LICENSE", "LICENSE-weights")
PACKAGED = {"posepipe": "posepipe", "workflows": "posepipe/workflows", "atlases": "posepipe/atlases"}


def main(folder: str, version: str) -> int:
    """Print what lacks, or a line with the sizes; 1 if anything lacks."""
    root = Path(__file__).resolve().parents[1]
    (wheel,), (archive,) = Path(folder).glob(f"posepipe-{version}-*.whl"), Path(folder).glob(f"posepipe-{version}.tar.gz")
    inside = zipfile.ZipFile(wheel).namelist()
    about = {path.rpartition("/")[2] for path in inside if ".dist-info/" in path}
    lacking = [f"{wheel.name}: {name}" for name in LICENCES if name not in about]
    for source, target in PACKAGED.items():
        files = [p for p in (root / source).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        names = {f"{target}/{path.relative_to(root / source).as_posix()}" for path in files}
        lacking += [f"{wheel.name}: {name}" for name in sorted(names - set(inside))]
    with tarfile.open(archive) as packed:
        top = {name.partition("/")[2] for name in packed.getnames()}
    lacking += [f"{archive.name}: {name}" for name in (*LICENCES, "README.md", "setup.cfg", "pyproject.toml") if name not in top]
    strange = [name for name in inside if not name.startswith(("posepipe/", f"posepipe-{version}.dist-info/"))]
    lacking += [f"{wheel.name}: {name} does not belong there" for name in strange]
    metadata = zipfile.ZipFile(wheel).read(f"posepipe-{version}.dist-info/METADATA").decode()
    if "Project-URL: Source," not in metadata:
        print("note: setup.cfg names no Source among project_urls: CodeURL is left out of what an installed wheel writes", file=sys.stderr)
    print("\n".join(lacking) or f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {archive.name}: {archive.stat().st_size / 1e6:.1f} MB")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
