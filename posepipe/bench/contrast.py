"""Benchmark of contrast conversion on T1-weighted newborns: its effect on the pose, and the similarity of converted to real T2w images.

Figure 8 of the paper. The same brains with the same motion are aligned as they are (``T1w``), after conversion by the network trained on
pairs (``GAN``) or without pairs (``cycleGAN``), as the real T2w image (``T2w``), and without conversion to a T1w template (``T1w on
T1w``).
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..atlas import AtlasLibrary
from ..contrast.converter import BRIGHT, DARK, LIGHT, Converter
from ..files import replacing
from ..geometry.so3 import Array
from ..imaging.mask import nonzero_mask
from ..imaging.volume import Volume, load_volume
from ..models import available
from ..training.split import load_split
from .classical import Case, cases
from .methods import BenchmarkRunner, networks_key
from .rows import PartFile
from .trials import LAST_BINS, TrialGenerator, parse_corruption
from .volume import COLUMNS

CONVERTERS = {"GAN": "contrast", "cycleGAN": "contrast-unpaired"}
"""Way → name of the network."""
WAYS = ("T1w", *CONVERTERS, "T2w", "T1w on T1w")
METHODS = (
    "posenet-t2", "posenet-t2+torch", "correction-t2", "posenet", "posenet+torch", "correction", "deep", "deep+torch", "search",
    "search+torch", "auto+torch",
)  # fmt: skip
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def contrast_subjects(data: Path, names: list[str] | None = None) -> list[str]:
    """Newborns with both contrasts in the test part of the split; with ``names`` those whose name starts with one of these."""
    split = load_split()
    subjects = [case.name.removesuffix("-T1w") for case in cases(data, ("newborn-T1w",))]
    return [s for s in subjects if (s.startswith(tuple(names)) if names else split.part(s) == "test")]


class ContrastBench:
    """Measures one subject of ``data`` after another; networks stay in memory. ``ways``: ways whose networks are in the weights folder or
    the package."""

    def __init__(self, data: Path, weights: Path | None = None) -> None:
        self._data, self._weights = data, weights
        there = available(weights)
        self._converters = {way: Converter(weights, name=name) for way, name in CONVERTERS.items() if name in there}
        self.ways = tuple(way for way in WAYS if way not in CONVERTERS or way in self._converters)
        self.runner = BenchmarkRunner(weights)

    def part_path(self, folder: Path, subject: str, way: str | None = None) -> Path:
        """Path of the rows of the poses of ``subject`` by one way, or, without ``way``, of its similarities; it depends on the weights of
        the networks."""
        used = self._converters if way is None else {way: self._converters[way]} if way in self._converters else {}
        keys = {f"{name}-{k}": v for name, c in used.items() for k, v in c.sha256.items()}
        stem = "likeness" if way is None else f"poses_{way.replace(' ', '-')}"
        return folder / "parts" / f"{stem}_{subject}_{networks_key(self.runner.networks.sha256 | keys)}.csv"

    def poses(self, subject: str, way: str, part: PartFile, *, methods: tuple[str, ...], trials: int, seed: int = 0) -> None:
        """Add the rows of ``subject`` by one way, ``trials`` in each bin, that ``part`` does not hold yet. The column ``group`` is the
        way. The time includes the conversion. The motions are the same for all ways."""
        done = {(r["trial"], r["method"]) for r in part.rows}
        generator: TrialGenerator | None = None
        for number in range(trials * len(LAST_BINS)):
            wanted = tuple(m for m in methods if (str(number), m) not in done)
            if not wanted:
                continue
            generator = generator or TrialGenerator(self._case(subject, way))
            trial, which = generator.trial(number, parse_corruption("none"), seed)
            begun = time.perf_counter()
            if way in self._converters:
                trial = replace(trial, image=self._converters[way].convert(trial.image, trial.mask).volume)
            spent = time.perf_counter() - begun
            center = trial.target.brain.center
            for outcome in self.runner.run(trial, wanted):
                pose, quality = outcome.refined.pose, outcome.quality
                values = (
                    way, subject, float(trial.age or 0), "none", number, which, outcome.method,
                    float(pose.degrees_from(trial.truth)), float(pose.mm_from(trial.truth, center)), float(outcome.seconds + spent),
                    quality.qc, quality.confidence,
                )  # fmt: skip
                part.add(dict(zip(COLUMNS, values, strict=True)))

    def _case(self, subject: str, way: str) -> Case:
        """The case of ``subject`` for one way. Its name is the same for all ways, since the name seeds the motions."""
        contrast = "T2w" if way == "T2w" else "T1w"
        found = next(c for c in cases(self._data, (f"newborn-{contrast}",)) if c.name == f"{subject}-{contrast}")
        if way == "T1w on T1w":
            library = AtlasLibrary([self._data / "atlases"])
            found = replace(found, template=library.template("Serag", found.template.cohort, "T1w"))
        return replace(found, name=subject)

    def similarity(self, subject: str, part: PartFile) -> dict[str, Volume]:
        """Add to ``part`` the similarity to the real T2w image of each converted image and of trivial substitutes. Returns the converted
        images and both originals, scaled to 0–1, for visual checks."""
        folder = self._data / "ds-neonates" / subject / "anat"
        first, second = (load_volume(folder / f"{subject}_{contrast}.nii.gz") for contrast in ("T1w", "T2w"))
        inside = nonzero_mask(first).volume.data & nonzero_mask(second).volume.data
        mask = first.with_data(inside)
        truth = scaled(second.data, inside)
        template = self._case(subject, "T1w").template
        like = load_volume(template.image)
        converted_images: dict[str, tuple[Array, float]] = {}
        for way, converter in self._converters.items():
            begun = time.perf_counter()
            converted = converter.convert(first, mask).volume.data
            # the converter's output is on the same scale up to this factor
            converted_images[way] = converted / BRIGHT, time.perf_counter() - begun
        t1 = scaled(first.data, inside)
        values = scaled(like.data, like.data > 0)[like.data > 0]
        converted_images["T1w as it is"] = t1, 0.0
        converted_images["T1w inverted"] = (1 - t1) * inside, 0.0
        converted_images["T1w, histogram of the T2w template"] = matched(t1, inside, values), 0.0
        converted_images["T1w inverted, histogram of the T2w template"] = matched(1 - t1, inside, values), 0.0
        done = {r["way"] for r in part.rows}
        for way, (image, seconds) in converted_images.items():
            if way not in done:
                part.add({"subject": subject, "way": way, **compared(image, truth, inside), "seconds": seconds})
        return {"T1w": first.with_data(t1), **{w: first.with_data(i) for w, (i, _) in converted_images.items() if w in self._converters},
                "T2w": first.with_data(truth)}  # fmt: skip


def scaled(data: Array, inside: npt.NDArray[np.bool_]) -> Array:
    """``data`` scaled to 0–1 between the quantiles that the conversion uses, inside the brain; 0 outside."""
    low, high = np.quantile(data[inside], [DARK, LIGHT])
    out: Array = np.clip((data - low) / max(float(high - low), 1e-6), 0, 1) * inside
    return out


def matched(data: Array, inside: npt.NDArray[np.bool_], like: Array) -> Array:
    """``data`` after histogram matching: its values ``inside`` replaced, rank by rank, by those of ``like`` (N,).

    >>> matched(np.array([3., 9., 6., 0.]), np.array([True, True, True, False]), np.array([1., 2., 3.]))
    array([1., 3., 2., 0.])
    """
    out = np.zeros_like(data)
    values = data[inside]
    rank = np.empty(len(values))
    rank[np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
    out[inside] = np.interp(rank, (np.arange(len(like)) + 0.5) / len(like), np.sort(like))
    return out


def compared(image: Array, truth: Array, inside: npt.NDArray[np.bool_]) -> dict[str, float]:
    """MAE, PSNR (dB) and mean SSIM (Gaussian window, 1.5 voxels) of ``image`` against ``truth`` (X, Y, Z), both 0–1, inside the brain."""
    difference = (image - truth)[inside]
    return {
        "mae": float(np.abs(difference).mean()),
        "psnr": float(-10 * np.log10(max(float((difference**2).mean()), 1e-12))),
        "ssim": float(_ssim(image, truth)[inside].mean()),
    }


def _ssim(a: Array, b: Array) -> Array:
    """Structural similarity at each voxel (Wang et al. 2004)."""
    def mean(x: Array) -> Array:
        out: Array = ndimage.gaussian_filter(x, SSIM_SIGMA)
        return out

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    out: Array = ((2 * ma * mb + SSIM_C1) * (2 * cov + SSIM_C2)) / ((ma**2 + mb**2 + SSIM_C1) * (va + vb + SSIM_C2))
    return out


def similarity_table(rows: list[dict[str, str]]) -> str:
    """Markdown: means over subjects, and the lowest SSIM of a subject."""
    subjects = {r["subject"] for r in rows}
    lines = [f"**similarity to the real T2w image**: {len(subjects)} newborns, inside the brain, intensities 0–1", "",
             "| image | MAE | PSNR dB | SSIM | worst SSIM | s |", "|---|---|---|---|---|---|"]  # fmt: skip
    for way in dict.fromkeys(r["way"] for r in rows):
        mine = [r for r in rows if r["way"] == way]
        mae, psnr, ssim, seconds = (np.array([float(r[k]) for r in mine]) for k in ("mae", "psnr", "ssim", "seconds"))
        lines.append(
            f"| {way} | {mae.mean():.3f} | {psnr.mean():.1f} | {ssim.mean():.3f} | {ssim.min():.3f} | {np.median(seconds):.1f} |"
        )
    return "\n".join(lines)


def montage(images: dict[str, Volume], output: Path) -> Path:
    """Montage of the images of one subject: one row an image, three orthogonal planes through the middle (PNG). For visual checks only:
    it must not be published."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 2.5 * len(images)), layout="constrained", facecolor="black")
    FigureCanvasAgg(figure)
    for row, (way, volume) in zip(figure.subplots(len(images), 3, squeeze=False), images.items(), strict=True):
        for axis, axes in enumerate(row):
            axes.imshow(np.take(volume.data, volume.shape[axis] // 2, axis=axis).T, cmap="gray", vmin=0, vmax=1, origin="lower")
            axes.axis("off")
        row[0].set_title(way, color="white", loc="left")
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=80, format="png")
    return output
