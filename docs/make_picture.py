"""Draw docs/pictures/phantom.png: phantoms of three ages, as scanned and as their true pose puts them back.

Run from the root of the checkout: ``python docs/make_picture.py [FILE]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from posepipe import phantom
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume

AGES = (23.0, 30.0, 37.0)
TURNS = ([1.1, -1.6, 0.7], [-0.8, 1.0, 2.2], [2.0, 0.9, -1.0])
HALF = np.array([57.0, 57.0, 57.0])
STEP = 0.5
PLANES = (("axial", 2, 3.0), ("coronal", 1, -6.0), ("sagittal", 0, 7.0))


def plane(image: Volume, axis: int, at: float, middle: np.ndarray) -> np.ndarray:
    """One world-aligned slice through ``middle`` + ``at`` mm along ``axis``, rows upwards."""
    ranges = [np.arange(-h, h + STEP, STEP) for h in HALF]
    ranges[axis] = np.array([at])
    points = np.stack(np.meshgrid(*ranges, indexing="ij")).reshape(3, -1) + middle[:, None]
    inverse = np.linalg.inv(image.affine)
    values = ndimage.map_coordinates(image.data, inverse[:3, :3] @ points + inverse[:3, 3:], order=1)
    return values.reshape([len(r) for r in ranges]).squeeze(axis).T


def main(target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(3, 6, figsize=(10.8, 5.9), facecolor="black")
    for row, (age, turn) in enumerate(zip(AGES, TURNS, strict=True)):
        pose = Rigid.from_rotvec(turn, [8.0, -5.0, 12.0])
        image, _, _ = phantom.subject(age, rng=np.random.default_rng(row), pose=pose)
        back = image.moved(~pose)
        top = np.percentile(image.data[image.data > 0], 99)
        for half, (shown, middle) in enumerate(((image, pose.translation), (back, np.zeros(3)))):
            for column, (name, axis, at) in enumerate(PLANES):
                ax = axes[row, 3 * half + column]
                ax.imshow(plane(shown, axis, at, middle), cmap="gray", vmin=0, vmax=top, origin="lower")
                ax.set_axis_off()
                if row == 0:
                    ax.set_title(name, color="0.75", fontsize=9)
        axes[row, 0].text(0, 0.02, f"{age:g} weeks", color="white", fontsize=10, transform=axes[row, 0].transAxes)
    fig.text(0.25, 0.965, "as scanned", color="white", ha="center", fontsize=12)
    fig.text(0.75, 0.965, "in atlas space", color="white", ha="center", fontsize=12)
    fig.subplots_adjust(0.005, 0.005, 0.995, 0.915, 0.02, 0.02)
    target.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(target, dpi=80, facecolor="black")
    plt.close(fig)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures" / "phantom.png")
