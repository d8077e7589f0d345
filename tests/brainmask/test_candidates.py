"""Which of several places becomes the mask, how its outline settles, and the features of a brain, with networks
that give fixed answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from posepipe.brainmask.detection import BrainProbability, Candidate, Detection
from posepipe.brainmask.finder import ROUNDS, BrainFinder, brain_features
from posepipe.brainmask.scan import Frame, Scan
from posepipe.geometry import so3
from posepipe.imaging.mask import FoundPose
from posepipe.imaging.moments import Moments
from posepipe.imaging.volume import Volume
from posepipe.models.calibration import ConfidenceModel
from posepipe.pose.coordinate_networks import Placement

SHAPE = (90, 50, 50)
IMAGE = Volume(np.random.default_rng(0).random(SHAPE).astype(np.float32) + 10, np.diag([3.0, 3, 3, 1]), "a_T2w.nii.gz")


def ball(frame: Frame, center: Sequence[float], radius: float) -> torch.Tensor:
    far = (frame.points(torch.device("cpu")) - torch.tensor(center, dtype=torch.float32)).norm(dim=-1)
    return torch.sigmoid(2 * (radius - far))


@dataclass
class FixedNetworks:
    """Networks that see ``brains`` (centre, radius in mm, expected error), and a speck of 9 mm radius 60 mm above each; ``places``: what
    the overview says; ``asked``: the centres of the crops that were outlined."""

    brains: list[tuple[tuple[float, float, float], float, float]]
    places: tuple[Candidate, ...]
    asked: list[np.ndarray] = field(default_factory=list)
    size: int = 32

    def overview(self, scan: Scan, step: float) -> tuple[Candidate, ...]:
        return self.places

    def outline(self, scan: Scan, center: np.ndarray, half: float) -> BrainProbability:
        self.asked.append(center)
        frame = Frame.about(center, half, 48)
        p = torch.zeros(48, 48, 48)
        for at, radius, _ in self.brains:
            p = torch.maximum(p, torch.maximum(ball(frame, at, radius), ball(frame, (at[0], at[1], at[2] + 1.15 * radius), 4)))
        return BrainProbability(p, frame)

    def detect(self, scan: Scan, frames: Sequence[Frame], before: BrainProbability) -> list[Detection | None]:
        about = before.about()
        assert about is not None
        error = min(self.brains, key=lambda one: float(np.linalg.norm(np.array(one[0]) - about.center)))[2]
        features = {"sure": 0.9, "expected_error": error, "residual": 0.1}
        return [Detection(before, about, np.eye(3), about.center, about.radius, features) for _ in frames]


LEFT, RIGHT = (60.0, 75.0, 70.0), (205.0, 75.0, 70.0)
ERROR = ConfidenceModel({"expected_error": (-1.0, float(np.log(0.1)), 0.5)}, 0.0, 0.9, 0.01)
"""Even odds at an error of 0.1."""


def place(center: Sequence[float], radius: float = 30.0, share: float = 0.8) -> Candidate:
    return Candidate(np.array(center), radius, share)


@pytest.fixture(scope="module")
def finder() -> BrainFinder:
    return BrainFinder()


def set_networks(finder: BrainFinder, brains: list, places: tuple[Candidate, ...], model: ConfidenceModel = ERROR) -> FixedNetworks:
    networks = FixedNetworks(brains, places)
    finder._networks, finder.model = networks, model  # type: ignore[assignment]
    return networks


@pytest.mark.parametrize("order", [1, -1])
def test_of_doubtful_places_the_likeliest_is_masked_and_of_brains_the_largest(finder: BrainFinder, order: int) -> None:
    brains = [(LEFT, 27.0, 0.05), (RIGHT, 33.0, 0.08)]  # the smaller is the likelier
    set_networks(finder, brains, (place(LEFT), place(RIGHT))[::order])
    doubtful = finder.find(IMAGE)
    assert np.argwhere(doubtful.volume.data).mean(0)[0] * 3 == pytest.approx(60, abs=3) and "only 0." in " ".join(doubtful.warnings)
    set_networks(finder, brains, (place(LEFT), place(RIGHT))[::order], ConfidenceModel(ERROR.terms, 0.0, 0.5, 0.01))
    sure = finder.find(IMAGE)
    assert np.argwhere(sure.volume.data).mean(0)[0] * 3 == pytest.approx(205, abs=3)
    assert sum("another brain" in warning for warning in sure.warnings) == 1


def test_an_outline_settles_on_the_brain_and_is_of_one_piece(finder: BrainFinder) -> None:
    networks = set_networks(finder, [(LEFT, 30.0, 0.05)], (place((70.0, 75, 70)),))
    (one,) = finder._candidates(IMAGE, Scan.of(IMAGE, torch.device("cpu")))
    assert len(networks.asked) == ROUNDS
    away = [float(np.linalg.norm(center - LEFT)) for center in networks.asked]
    assert away[0] == pytest.approx(10) and max(away[1:]) < 4
    assert one.about.center == pytest.approx(LEFT, abs=1) and one.about.radius == pytest.approx(30, abs=1.5)
    speck = ball(one.outline.frame, (LEFT[0], LEFT[1], LEFT[2] + 34.5), 4) > 0.9
    assert bool(speck.any()) and float(one.outline.p[speck].max()) == 0


def test_near_a_known_place_the_outline_is_taken_twice(finder: BrainFinder) -> None:
    networks = set_networks(finder, [(LEFT, 30.0, 0.05)], ())
    mask = finder.near(IMAGE, np.array([72.0, 75, 70]), 30.0)
    assert mask is not None and len(networks.asked) == 2 and np.argwhere(mask.data).mean(0) * 3 == pytest.approx(LEFT, abs=2)


def test_places_that_settle_on_one_brain_are_one(finder: BrainFinder) -> None:
    set_networks(finder, [(LEFT, 30.0, 0.05)], (place(LEFT), place((72.0, 75, 70)), place(LEFT, share=0.05)))
    assert len(finder._candidates(IMAGE, Scan.of(IMAGE, torch.device("cpu")))) == 1


def test_features_of_whether_something_is_a_brain() -> None:
    frame = Frame(np.zeros(3), 1.0, (2, 1, 1), np.eye(3))
    about, own = (Moments(np.zeros(3), radius**2 / 5 * np.eye(3), 200.0) for radius in (40.0, 20.0))
    outline = BrainProbability(torch.tensor([0.6, 0.9]).reshape(2, 1, 1), frame)
    seen = Detection(outline, own, np.eye(3), np.zeros(3), 50.0, {"expected_error": 0.06, "sure": 0.9, "residual": 0.1})
    masked = Placement(so3.exp(np.array([0.0, 0.3, 0.0])), np.zeros(3), 1.0, np.zeros(3), 40.0, {"expected_error": 0.02})
    features = brain_features(place((0, 0, 0), share=0.7), outline, about, seen, FoundPose(np.eye(3), np.zeros(3), 50.0, {}), masked)
    assert features == pytest.approx({
        "share": 0.7, "sharp": (0.36 + 0.81) / 1.5, "size": np.log(50 / 40), "expected_error": np.log(0.06), "masked_error": np.log(0.02),
        "apart": np.log1p(np.degrees(0.3)),
    })  # fmt: skip
