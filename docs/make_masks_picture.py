"""Draw docs/pictures/masks.png: phantoms in made-up surroundings, and the brain masks that the networks find in them.

Run from the root of the checkout: ``python docs/make_masks_picture.py [FILE]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from posepipe import phantom
from posepipe.bench.scans import BACKGROUNDS, overlap, with_synthetic_background
from posepipe.brainmask.finder import BrainFinder
from posepipe.errors import MaskError
from posepipe.geometry import Rigid

AGES = (23.0, 30.0, 37.0)
TITLES = {"rim": "a rim is left", "air": "a head in air", "body": "in a body"}


def main(target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    finder = BrainFinder()
    fig, axes = plt.subplots(len(BACKGROUNDS), 2 * len(AGES), figsize=(12.0, 6.4), facecolor="black")
    for column, age in enumerate(AGES):
        image, brain, _ = phantom.subject(age, rng=np.random.default_rng(column), pose=Rigid.identity())
        for row, kind in enumerate(BACKGROUNDS):
            whole, truth = with_synthetic_background(image, brain.with_data(brain.data > 0), kind, seed=[column, row])
            try:
                found = finder.find(whole).volume.data
            except MaskError:
                found = np.zeros(whole.shape, bool)
            middle = np.argwhere(truth.data).mean(0).round().astype(int)
            for i, axis in enumerate((2, 0)):
                ax = axes[row, 2 * column + i]
                shown, drawn, true = (np.take(x, middle[axis], axis=axis).T for x in (whole.data, found, truth.data))
                ax.imshow(shown, cmap="gray", vmin=0, vmax=np.quantile(whole.data, 0.99), origin="lower")
                ax.contour(true, [0.5], colors="#30c0ff", linewidths=0.7, linestyles="dotted")
                if drawn.any():
                    ax.contour(drawn, [0.5], colors="#ffb020", linewidths=1.0)
                ax.set_axis_off()
            axes[row, 2 * column].set_zorder(1)  # the line reaches into the picture beside it
            axes[row, 2 * column].text(
                0.02, 0.02, f"{age:g} weeks, {TITLES[kind]}: Dice {overlap(found, truth.data):.2f}", color="white", fontsize=8.5,
                transform=axes[row, 2 * column].transAxes, bbox={"facecolor": "black", "alpha": 0.6, "pad": 1, "linewidth": 0},
            )  # fmt: skip
    fig.subplots_adjust(0.003, 0.003, 0.997, 0.997, 0.01, 0.01)
    target.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(target, dpi=75, facecolor="black")
    plt.close(fig)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures" / "masks.png")
