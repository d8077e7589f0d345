"""Ages estimated from images: the computation on the curves, and the complete estimation on phantoms of known age."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posepipe import phantom
from posepipe.age import estimator as age_estimator
from posepipe.age.curves import (
    STAGES,
    AgeCurve,
    AgeModel,
    StageModel,
    load_age_model,
    most_likely_age,
    save_age_model,
)
from posepipe.age.estimator import AgeEstimator
from posepipe.atlas import AtlasLibrary, CohortSeries, Template, candidates
from posepipe.brainmask.choose import brain_mask
from posepipe.errors import AtlasError, WeightsError
from posepipe.imaging.volume import Volume, load_volume, save_volume
from posepipe.pose.coordinate_networks import PoseNetworks

GROWTH = 0.03
WEEKS = (24, 26, 28, 30, 32)


def curve(by_score: float, by_size: float, weeks=WEEKS) -> AgeCurve:
    """Curves whose criterion is best at one age, and at another of which the cohort is as large as the brain."""
    at = np.array(weeks, dtype=float)
    return AgeCurve(at, 0.5 - 0.004 * (at - by_score) ** 2, GROWTH * (by_size - at), GROWTH * (by_size + 1 - at))


@given(by_score=st.floats(25, 31), by_size=st.floats(25, 31), similarity=st.floats(0, 50))
def test_estimate_lies_between_what_size_and_similarity_say(by_score, by_size, similarity):
    one = curve(by_score, by_size)
    assert most_likely_age(one, 0) == pytest.approx(by_size, abs=0.06)
    assert most_likely_age(one, np.inf) == pytest.approx(by_score, abs=0.06)
    low, high = sorted((by_score, by_size))
    assert low - 0.06 <= most_likely_age(one, similarity) <= high + 0.06


@given(st.floats(22, 34), st.floats(22, 34), st.floats(0, 5))
def test_estimate_stays_within_the_cohorts(by_score, by_size, similarity):
    assert 24 <= most_likely_age(curve(by_score, by_size), similarity) <= 32


def test_the_masks_sizes_can_be_asked_instead():
    assert most_likely_age(curve(28, 27), 0, by_mask=True) == pytest.approx(28, abs=0.06)


@pytest.mark.parametrize("weeks", [(28,), (26, 30)])
def test_few_cohorts_are_enough_for_an_answer(weeks):
    assert most_likely_age(curve(29, 29, weeks), 1.0) == pytest.approx(28 if len(weeks) == 1 else 29, abs=1.01)


def test_model_is_written_and_read(tmp_path: Path):
    model = AgeModel({"fetal": StageModel(0.8, 1.1), "neonatal": StageModel(0.05, 2.0)}, "of 3 brains")
    assert load_age_model(save_age_model(model, tmp_path / "age.toml")) == model
    assert model.of("neonatal", 30).error == 2.0
    assert (model.of("", 30).error, model.of("", 41).error) == (1.1, 2.0)


@pytest.mark.parametrize("text", ["", "made = 'x'\n[fetal]\nsimilarity = 1\nerror = 1\n", "[fetal\n"])
def test_a_file_that_is_no_model(tmp_path: Path, text: str):
    path = tmp_path / "age.toml"
    path.write_text(text)
    with pytest.raises(WeightsError, match=r"age\.toml: not a model of ages"):
        load_age_model(path)


def test_the_package_has_a_model():
    model = load_age_model()
    assert set(model.stages) == set(STAGES) and model.made
    assert all(stage.similarity >= 0 and 0 < stage.error < 4 for stage in model.stages.values())


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> CohortSeries:
    """Phantom templates every second week."""
    folder, templates = tmp_path_factory.mktemp("cohorts"), []
    for week in range(23, 36, 2):
        labels = phantom.brain_labels(week, 1.5)
        image = save_volume(phantom.render(labels, week), folder / f"{week}.nii.gz", np.int16)
        mask = save_volume(phantom.brain_mask(labels), folder / f"{week}_mask.nii.gz")
        templates.append(Template("Phantom", str(week), float(week), "T2w", image, mask))
    return CohortSeries("fetal", tuple(templates))


@pytest.fixture(scope="module")
def estimator(series: CohortSeries) -> AgeEstimator:
    return AgeEstimator([CohortSeries("neonatal", ()), series], PoseNetworks())


@pytest.mark.slow
@pytest.mark.parametrize("age", [26.0, 31.0])
def test_age_of_a_phantom(estimator, make_head, age):
    head = make_head(3, (20.0, 150.0), age)
    found = estimator.estimate(head.image, head.mask)
    assert abs(found.weeks - age) < 2.5
    assert found == estimator.estimate(head.image, head.mask)
    assert f"estimated from the image: {found.weeks:g} weeks, standard error {found.error:.1f}" in found.warnings[0]
    assert "--age WEEKS" in found.warnings[0] and "Phantom" in found.warnings[0]


def test_a_brain_older_than_all_cohorts_is_said_to_be(series, make_head):
    few = CohortSeries("fetal", series.templates[:3])
    head = make_head(3, (20.0, 150.0), 33.0)
    found = AgeEstimator([few], PoseNetworks()).estimate(head.image, head.mask)
    assert found.weeks == 27 and any("may be older" in w for w in found.warnings)


def test_an_estimate_that_the_volume_speaks_against_is_doubted(estimator, series, make_head):
    """A brain of 26 weeks, and the same twice as large, where all that is known is how large one of 25 weeks is."""
    head = make_head(3, (20.0, 150.0), 26.0)
    sound = estimator.estimate(head.image, head.mask)
    assert sound.agrees and sound.doubt == ""
    one = AgeEstimator([CohortSeries("fetal", series.templates[1:2])], PoseNetworks())
    found = one.estimate(head.image, head.mask)
    assert found.agrees and found.weeks == 25
    side = 2 ** (1 / 3)
    image, mask = (Volume(v.data, np.diag([side, side, side, 1]) @ v.affine, v.source) for v in (head.image, head.mask))
    found = one.estimate(image, mask)
    assert not found.agrees and found.doubt in found.warnings and "where Phantom ends" in found.doubt
    assert f"standard error {found.error:.1f}" in found.warnings[0]


def test_the_error_reaches_as_far_as_the_age_that_the_volume_means(series, make_head, monkeypatch):
    """The similarity alone would have it that a brain of 31 weeks is one of 23."""
    head = make_head(3, (20.0, 150.0), 31.0)
    monkeypatch.setattr(age_estimator, "most_likely_age", lambda *_: 23.0)
    found = AgeEstimator([series], PoseNetworks()).estimate(head.image, head.mask)
    assert found.weeks == 23 and not found.agrees and "the age cannot be determined" in found.doubt
    assert 23 + found.error == pytest.approx(31, abs=2.5)


def test_one_cohort_makes_a_rough_guess(series, make_head):
    head = make_head(3, (20.0, 150.0), 29.0)
    one = AgeEstimator([CohortSeries("fetal", series.templates[2:3])], PoseNetworks())
    found = one.estimate(head.image, head.mask)
    assert found.weeks == 27 and any("rough guess" in w for w in found.warnings)


def test_no_cohort_at_all():
    with pytest.raises(AtlasError, match="--atlas-dir"):
        AgeEstimator([CohortSeries("fetal", ())], PoseNetworks())


@pytest.mark.slow
def test_age_of_the_real_fetus(data_dir: Path):
    image = load_volume(data_dir / "ds-fetal/sub-f234/anat/sub-f234_rec-svr_T2w.nii.gz")
    library = AtlasLibrary([data_dir / "atlases"])
    found = AgeEstimator(candidates(library, contrast="T2w", atlas="CRL"), PoseNetworks())
    assert abs(found.estimate(image, brain_mask(image).volume).weeks - 29) < 3
