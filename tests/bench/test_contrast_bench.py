"""Image similarity of conversions: measures with known values, and their table."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bench import contrast
from posepipe.bench.contrast import compared, matched, scaled, similarity_table
from posepipe.cli import bench_contrast


def test_a_copy_is_perfect_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    truth = np.clip(np.add.outer(np.add.outer(np.linspace(0, 0.4, 20), np.linspace(0, 0.4, 20)), np.linspace(0, 0.2, 20)), 0, 1)
    inside = np.ones(truth.shape, bool)
    same, off = compared(truth, truth, inside), compared(truth + 0.1, truth, inside)
    noisy = compared(truth + rng.normal(0, 0.1, truth.shape), truth, inside)
    assert same["mae"] == 0 and same["ssim"] == pytest.approx(1.0)
    assert off["mae"] == pytest.approx(0.1) and off["psnr"] == pytest.approx(20.0)
    assert noisy["ssim"] < 0.6 < off["ssim"] < 1
    assert compared(1 - truth, truth, inside)["ssim"] < 0


def test_outside_the_brain_nothing_counts() -> None:
    truth = np.zeros((9, 9, 9))
    inside = np.zeros(truth.shape, bool)
    inside[3:6, 3:6, 3:6] = True
    image = np.where(inside, 0.0, 0.9)
    assert compared(image, truth, inside)["mae"] == 0


def test_histograms_are_matched_rank_for_rank() -> None:
    rng = np.random.default_rng(1)
    data, like = rng.random((6, 7, 8)), rng.gamma(2.0, size=5000)
    inside = rng.random(data.shape) > 0.2
    out = matched(data, inside, like)
    assert (np.argsort(out[inside]) == np.argsort(data[inside])).all() and not out[~inside].any()
    assert np.median(out[inside]) == pytest.approx(np.median(like), rel=0.05)


def test_brightness_is_scaled_by_quantiles() -> None:
    data = np.linspace(100, 300, 1000)
    inside = np.arange(1000) >= 500
    out = scaled(data, inside)
    assert not out[:500].any() and out[500:].min() == 0 and out.max() == 1
    assert out[749] == pytest.approx(0.5, abs=0.01)


def test_the_table_says_what_the_rows_say() -> None:
    rows = [
        {"subject": s, "way": w, "mae": m, "psnr": "20", "ssim": q, "seconds": "1.5"}
        for s, w, m, q in (("A", "GAN", "0.1", "0.8"), ("B", "GAN", "0.2", "0.6"), ("A", "raw", "0.4", "0.1"))
    ]
    text = similarity_table(rows)
    assert "2 newborns" in text and "| GAN | 0.150 | 20.0 | 0.700 | 0.600 | 1.5 |" in text and "| raw | 0.400 |" in text


def test_the_command_knows_every_way() -> None:
    # listed twice, since the command line is read without loading torch
    assert bench_contrast.WAYS == contrast.WAYS
