"""Pages of phantoms as the app makes them: one for each message that a page must show at the top."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posepipe.bids import read_json, write_json
from posepipe.cli.app import main
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.phantom.demo_data import write_demo


@dataclass(frozen=True)
class Pages:
    """Where the app wrote its outputs, and the command that did."""

    out: Path
    command: tuple[str, ...]

    def page(self, label: str) -> Path:
        """The page of ``01`` or ``02_ses-1``."""
        return self.out / f"sub-{label}.html"

    def main(self, *options: str) -> tuple[int, str]:
        """Exit code and what was printed."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = main([*self.command, *options])
        return code, output.getvalue()


def make_pages(folder: Path) -> Pages:
    """02 of two sessions, 03 T1w and T2w with a synthetic T2w, 05 in the wrong pose, 06 a mask that is cut, 07 no image."""
    demo = write_demo(folder, spacing=2.0)
    bids, masks = demo.bids_dir, demo.masks_dir
    assert masks is not None
    for label, source in (("05", "01_rec-svr"), ("06", "04_rec-svr"), ("07", "01_rec-svr")):
        for name in ("T2w.json", "T2w.nii.gz"):
            _copy(bids / f"sub-{source[:2]}" / "anat" / f"sub-{source}_{name}", bids / f"sub-{label}" / "anat" / f"sub-{label}_{name}")
    (bids / "sub-07" / "anat" / "sub-07_T2w.nii.gz").write_bytes(b"no image at all")
    mask = load_volume(masks / "sub-04" / "anat" / "sub-04_rec-svr_desc-brain_mask.nii.gz", np.uint8)
    below = np.cumsum(mask.data.sum(axis=(1, 2))) < 0.55 * mask.data.sum()
    cut = masks / "sub-06" / "anat" / "sub-06_desc-brain_mask.nii.gz"
    cut.parent.mkdir(parents=True)
    save_volume(mask.with_data(mask.data * below[:, None, None]), cut)
    with (bids / "participants.tsv").open("a") as table:
        table.write("sub-05\t24.3\nsub-06\t33.9\nsub-07\t24.3\n")
    out = folder / "out"
    pages = Pages(out, (
        str(bids), str(out), "participant", "-w", str(folder / "work"), "--atlas", "Phantom", "--atlas-dir", str(demo.atlas_dir),
        "-d", str(masks), "--nprocs", "1",
    ))  # fmt: skip
    code, output = pages.main("--participant-label", "02", "05", "--init", "center", "--refine", "none")
    assert code == 0, output
    code, output = pages.main("--participant-label", "03", "06", "07", "--init", "axes", "--refine", "torch")
    assert code == 1 and "2 failed" not in output, output
    # the T2w of the same head, as if the T1w had been aligned by its conversion
    _copy(bids / "sub-03" / "anat" / "sub-03_T2w.nii.gz", out / "sub-03" / "anat" / "sub-03_desc-synth_T2w.nii.gz")
    (sidecar,) = (out / "sub-03" / "anat").glob("sub-03_from-T1w_*_xfm.json")
    write_json(sidecar, read_json(sidecar) | {"ContrastConversion": "contrast"})
    code, output = pages.main("--reports-only", "--participant-label", "03")
    assert code == 0, output
    return pages


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
