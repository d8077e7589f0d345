"""The measurement of memory: its images, and the formulas fitted to the peaks."""

from __future__ import annotations

import numpy as np
import pytest

from posepipe.bench.memory import _regridded, cases, tables
from posepipe.geometry import Rigid
from posepipe.imaging.volume import Volume


@pytest.mark.parametrize(("spacing", "edge", "field", "shape"), [((2, 2, 6), 1.0, 0.0, (40, 48, 10)), ((2, 2, 2), 1.6, 64.0, (40, 40, 40))])
def test_images_on_finer_grids_lie_where_they_lay(
    spacing: tuple[float, ...], edge: float, field: float, shape: tuple[int, ...]
) -> None:
    affine = Rigid.from_rotvec([0.2, -0.4, 0.3], [5.0, 6.0, 7.0]).matrix @ np.diag([*spacing, 1.0])
    voxels = np.stack(np.meshgrid(*map(np.arange, (20, 24, 10)), indexing="ij"), -1)
    ramp = (voxels @ affine[:3, :3].T + affine[:3, 3])[..., 1] * 1000  # world y, above all noise
    made = _regridded(Volume(ramp.astype(np.float32), affine), edge, field, 1)
    assert made.shape == shape
    at = (20, 20, 5) if not field else (20, 20, 20)
    inside = (made.affine @ [*at, 1])[1] * 1000
    assert made.data[at] == pytest.approx(inside, abs=200)  # noise: 0.2 mm


def test_tables_hold_the_larger_peak_and_a_line_over_all() -> None:
    rows = [
        {"case": case, "image": image, "megavoxels": size, "stage": "Mask", "peak_mb": peak, "seconds": "1"}
        for case, image, size, peak in [("a", "1", "1.0", "900"), ("a", "2", "1.0", "1000"), ("b", "1", "11.0", "1500")]
    ]
    text = tables(rows)
    assert "| a | 1.00 | 1.00 |" in text and "| b | 11.00 | 1.50 |" in text
    assert "| Mask | 3 | 0.950 | 0.0500 |" in text


def test_cases_differ() -> None:
    assert len({case.name for case in cases()}) == len(cases()) == 8
