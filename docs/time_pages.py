"""How long pages take: the pictures of each image of a finished run made again, and the pages written, on one core.

    python docs/time_pages.py BIDS_DIR OUT_DIR [ATLAS_DIR ...]

Prints seconds of processor time, which other work on the machine does not lengthen much, and of the clock.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from posepipe.atlas import AtlasLibrary
from posepipe.interfaces.finished import finished_images, sessions_of
from posepipe.reports.subject import PageImage, write_subject_page


def main(bids_dir: Path, out_dir: Path, atlas_dirs: list[Path]) -> None:
    library = AtlasLibrary.default(atlas_dirs)
    rows, sizes = [], []
    for subject, session in sessions_of(out_dir):
        images = []
        for done in finished_images(out_dir, bids_dir, subject, session):
            rows.append([-time.process_time(), -time.perf_counter()])
            images.append(PageImage(done.name, done.sidecar, done.views(library), done.outputs(), done.warnings, done.resampled))
            rows[-1] = [rows[-1][0] + time.process_time(), rows[-1][1] + time.perf_counter()]
        if not images:
            continue
        start = np.array([time.process_time(), time.perf_counter()])
        with tempfile.TemporaryDirectory() as folder:
            page = write_subject_page(Path(folder) / "page.html", subject=subject, session=session, images=images, version="x")
            sizes.append(page.stat().st_size / len(images))
        took = (np.array([time.process_time(), time.perf_counter()]) - start) / len(images)
        for row in rows[-len(images) :]:
            row[:] = np.array(row) + took
    seconds = np.array(rows)[1:]  # the first pays for the imports
    print(f"{len(seconds)} images; seconds an image on one core, reading, pictures and page:")
    for name, column in zip(("processor", "clock"), seconds.T, strict=True):
        print(f"  {name}: median {np.median(column):.2f}, largest {column.max():.2f}")
    print(f"kB of a page for each image: median {np.median(sizes) / 1000:.0f}, largest {max(sizes) / 1000:.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]])
