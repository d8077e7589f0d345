"""Brain volumes as a function of age, and volumes outside the range of the atlases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from posepipe.atlas import AtlasLibrary, GrowthCurve, Template, VolumeRange, end_templates
from posepipe.atlas.volumes import brain_millilitres
from posepipe.imaging.volume import Volume, save_volume

WEEKS = tuple(range(22, 41, 2))


def template(week: float, folder: Path = Path()) -> Template:
    return Template("Made", f"{week:g}", float(week), "T2w", folder / f"{week}.nii.gz", folder / f"{week}_mask.nii.gz")


def size(t: Template) -> float:
    """100 ml at 22 weeks, a tenth more each week."""
    return float(100 * 1.1 ** (t.age - 22))


@pytest.fixture
def curve() -> GrowthCurve:
    return GrowthCurve([template(w) for w in reversed(WEEKS)], size)


def test_volume_and_age_are_each_other_s_inverse(curve):
    for week in (22.0, 27.3, 33.0, 40.0):
        assert curve.expected(week) == pytest.approx(100 * 1.1 ** (week - 22))
        assert curve.weeks_of(curve.expected(week)) == pytest.approx(week)
    assert curve.expected(10) == pytest.approx(100) and curve.weeks_of(20) == 22 and curve.weeks_of(9999) == 40


def test_few_masks_are_read():
    read = []
    curve = GrowthCurve([template(w) for w in WEEKS], lambda t: read.append(t.age) or size(t))
    curve.expected(29.0)
    assert sorted(read) == [28, 30]


@pytest.mark.parametrize(("ratio", "doubted"), [(0.64, True), (0.66, False), (1.0, False), (1.49, False), (1.51, True)])
def test_an_age_is_doubted_where_the_volume_is_not_usual(curve, ratio, doubted):
    assert bool(curve.doubt(ratio * curve.expected(30), 30.0)) is doubted


def test_the_doubt_tells_what_the_volume_would_mean(curve):
    output = curve.doubt(250.0, 23.0)
    assert "looks like 23 weeks" in output and "holds 250 ml, 2.27 times" in output and "usual at 27 to 36 weeks" in output
    assert "not usual even at 40 weeks, where Made ends" in curve.doubt(1500.0, 40.0)
    assert "not usual even at 22 weeks, where Made begins" in curve.doubt(30.0, 22.0)


@pytest.mark.parametrize(("millilitres", "word"), [(49, "younger"), (51, ""), (674, ""), (676, "older")])
def test_of_no_age_of_the_atlas(millilitres, word):
    output = VolumeRange(100, "Made+22", 500, "Made+40").outside(millilitres)
    assert (f"the brain is {word}" in output) if word else output == ""


def test_volumes_are_read_from_masks_and_from_images_without_one(tmp_path):
    ball = np.linalg.norm(np.moveaxis(np.indices((40, 40, 40)), 0, -1) - 20, axis=-1) < 15
    grid = Volume(ball.astype(np.float32), np.diag([2.0, 2, 2, 1]))
    image = save_volume(grid.with_data(grid.data * 77), tmp_path / "image.nii.gz")
    percent = save_volume(grid.with_data(np.uint8(100) * ball), tmp_path / "mask.nii.gz")
    held = ball.sum() * 8 / 1000
    small = Template("Made", "30", 30.0, "T2w", image)
    large = Template("Made", "31", 31.0, "T2w", image, percent)
    assert brain_millilitres(small) == pytest.approx(held) and brain_millilitres(large) == pytest.approx(held)
    assert VolumeRange.of(small, [large]).largest == pytest.approx(held)
    gone = Template("Made", "40", 40.0, "T2w", tmp_path / "gone.nii.gz")
    assert VolumeRange.of(small, [gone]) == VolumeRange.of(small)


def test_of_the_real_atlases(data_dir):
    """All cohorts lie within, newborns and the fetus too; infants of three months, the child and the adult do not."""
    library = AtlasLibrary([data_dir / "atlases"])
    ends = end_templates(library, contrast="T2w")
    assert {t.space for t in ends} == {"CRL+21", "CRL+38", "Serag+28", "Serag+44"}
    known = VolumeRange.of(ends[0], ends)
    assert (known.youngest, known.oldest) == ("CRL+21", "Serag+44")
    inside = [t for name in ("CRL", "CHN", "FidonSBA", "Serag") for t in library.templates(name, "T2w")]
    assert all(known.outside(brain_millilitres(t)) == "" for t in inside)
    by_age = {t.age: brain_millilitres(t) for t in library.templates("BCP", "T2w")}
    assert known.outside(by_age[min(by_age)]) == "" and "older" in known.outside(by_age[max(by_age)])
    assert all("older" in known.outside(millilitres) for millilitres in (1088, 1516))  # nonzero voxels of ds-negative
