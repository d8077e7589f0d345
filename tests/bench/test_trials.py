"""Trials with known truth: the true pose aligns the template with the image, also for a rotated template of a wrong age."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posepipe.atlas import AtlasLibrary, CanonicalRotation, Template
from posepipe.atlas.sidecars import file_sha256
from posepipe.bench.classical import Case, canonical_pose
from posepipe.bench.methods import Trial
from posepipe.bench.perturb import COMBINED, STRENGTHS
from posepipe.bench.trials import LAST_BINS, TrialGenerator, parse_corruption
from posepipe.bench.volume import volume_cases
from posepipe.geometry import Rigid, so3
from posepipe.imaging.volume import load_volume, save_volume
from posepipe.matching.brain import Brain
from posepipe.matching.similarity import similarity
from posepipe.matching.target import SPACING
from posepipe.phantom.demo_data import write_demo

OWN = Rigid.from_rotvec([0.5, -0.9, 0.4], [10.0, -5.0, 20.0])
"""How the case's image lies against its template, week 30."""
YOUNGER = so3.exp([-0.3, 0.4, 1.0])
"""How the template of week 27 lies turned in its own file."""


@pytest.fixture(scope="module")
def generator(one_thread_no_cache: None, tmp_path_factory: pytest.TempPathFactory) -> TrialGenerator:
    """A phantom's template of week 30, turned, as a subject; the template of week 27 is turned on disk."""
    folder = tmp_path_factory.mktemp("demo")
    demo = write_demo(folder, n_subjects=1, weeks=(27, 30), spacing=2.5, seed=3)
    turns = {"27": YOUNGER.T, "30": np.eye(3)}
    younger, _ = AtlasLibrary([demo.atlas_dir]).templates("Phantom", "T2w")
    for path in (younger.image, younger.mask):
        assert path is not None
        save_volume(load_volume(path).moved(Rigid(YOUNGER, np.zeros(3))), path)
    images = frozenset(file_sha256(path) for path in demo.atlas_dir.rglob("*_T?w.nii.gz"))
    canonical = {("Phantom", cohort): CanonicalRotation(turn, images) for cohort, turn in turns.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posepipe.atlas.library.load_canonical", lambda: canonical)
        _, own = AtlasLibrary([demo.atlas_dir]).templates("Phantom", "T2w")
        image = save_volume(load_volume(own.image).moved(OWN), folder / "image.nii.gz")
        assert own.mask is not None
        mask = save_volume(load_volume(own.mask).moved(OWN), folder / "mask.nii.gz")
        return TrialGenerator(Case("turned", "templates", image, mask, own, OWN))


def laid_on(trial: Trial, *poses: Rigid) -> list[dict[str, float]]:
    """How alike template and image are at each of ``poses``."""
    brain = Brain.prepare(trial.image, trial.mask, SPACING)
    return [similarity(brain, trial.target.brain, pose) for pose in poses]


def assert_best_at_the_truth(trial: Trial, dice: float) -> None:
    """Image and template overlap by ``dice`` at the truth, and are more alike there than 12° and 6 mm either way of it."""
    center, ways = trial.target.brain.center, (*np.eye(3), *-np.eye(3))
    near = [Rigid.about(so3.exp(0.21 * way), center) for way in ways] + [Rigid(np.eye(3), 6.0 * way) for way in ways]
    truth, *others = laid_on(trial, trial.truth, *(trial.truth @ other for other in near))
    assert truth["Dice"] > dice
    assert truth["NCC"] > max(other["NCC"] for other in others) + 0.05


@pytest.mark.parametrize("number", [1, 3, 6])
def test_the_true_pose_aligns_the_template_with_the_image_and_is_in_its_bin(generator: TrialGenerator, number: int) -> None:
    trial, which = generator.trial(number, parse_corruption("none"), 0)
    low, high = LAST_BINS[which]
    assert which == number and low <= trial.truth.angle_degrees <= high
    assert_best_at_the_truth(trial, 0.95)


def test_the_truth_of_a_wrong_age_is_that_of_the_other_template(generator: TrialGenerator) -> None:
    right, _ = generator.trial(2, parse_corruption("none"), 0)
    trial, _ = generator.trial(2, parse_corruption("age"), 0)
    assert (trial.age, right.age) == (27.0, 30.0)
    assert trial.target.name != right.target.name
    assert trial.truth.degrees_from(right.truth @ Rigid(YOUNGER.T, np.zeros(3))) < 1e-6
    assert_best_at_the_truth(trial, 0.8)
    np.testing.assert_array_equal(trial.image.data, right.image.data)


def test_a_seed_and_a_trial_fix_the_turn_whatever_the_corruption(generator: TrialGenerator) -> None:
    first, again, other, later, cut = (
        generator.trial(number, parse_corruption(corruption), seed)[0].truth.matrix
        for number, corruption, seed in ((0, "none", 0), (0, "none", 0), (0, "none", 1), (7, "none", 0), (0, "cut", 0))
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, cut)
    assert np.abs(first - other).max() > 0.01 and np.abs(first - later).max() > 0.01


def test_canonical_rotations_carry_directions_from_template_to_subject(generator: TrialGenerator) -> None:
    """A direction in the template and the one it goes to in the subject are the same in the canonical frame."""
    template: Template = replace(generator.case.template, to_canonical=so3.exp([0.2, -0.7, 0.1]))
    subject = replace(template, to_canonical=so3.exp([-1.0, 0.3, 0.6]))
    direction = np.array([0.6, 0.0, 0.8])
    carried = canonical_pose(template, subject).apply(direction)
    assert template.to_canonical is not None and subject.to_canonical is not None
    np.testing.assert_allclose(subject.to_canonical @ carried, template.to_canonical @ direction, atol=1e-9)


def test_corruption_of_strength_1_is_as_large_as_the_documentation_says() -> None:
    """docs/results/bench.md: shares of the volume, of the contrast and of the mean, millimetres, and weeks."""
    assert STRENGTHS == {"cut": 0.15, "leak": 0.15, "bias": 0.3, "noise": 0.15, "slices": 4.0, "invert": 1.0}
    assert COMBINED == ("bias", "leak", "cut", "noise")
    assert parse_corruption("age").weeks_off == 3.0


@pytest.mark.data
@pytest.mark.parametrize("contrast", ["T1w", "T2w"])
def test_newborns_that_train_or_validate_are_not_tested_on(data_dir: Path, contrast: str) -> None:
    names = [case.name for case in volume_cases(data_dir, (f"newborn-{contrast}",))]
    assert names == [f"sub-A{i}-{contrast}" for i in (13, 14, 15, 16)]
