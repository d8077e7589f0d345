"""The choice of the mask, and the finder with a network that segments by brightness alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from posepipe.bench.scans import overlap
from posepipe.brainmask.choose import brain_mask
from posepipe.brainmask.finder import BrainFinder, pose_of, turns
from posepipe.brainmask.scan import Scan
from posepipe.errors import MaskError, WeightsError
from posepipe.geometry import so3
from posepipe.imaging.volume import Volume
from posepipe.models import save_network
from posepipe.models.calibration import ConfidenceModel, load_calibration, uncalibrated, write_calibration
from posepipe.models.coordinates import CoordinateNet
from posepipe.models.weights import SCAN_NETWORKS, hashes

UNCALIBRATED = uncalibrated(SCAN_NETWORKS)
AFFINE = np.diag([2.0, 2, 2, 1])
SHAPE = (40, 42, 44)
ALWAYS = ConfidenceModel({}, 9.0, 0.5, 0.1)
"""Whatever is seen is a brain."""


def ball(radius: float = 14, center: tuple[float, float, float] = (20, 21, 22), shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Bool (40, 42, 44); radius 14 voxels of 2 mm holds 92 ml."""
    offset = np.moveaxis(np.indices(shape), 0, -1) - np.array(center)
    return np.linalg.norm(offset, axis=-1) < radius


def volume(data: np.ndarray, name: str = "sub-01_T2w.nii.gz") -> Volume:
    return Volume(data.astype(np.float32), AFFINE, name)


NOISE = 10 * np.random.default_rng(0).random(SHAPE)
IMAGE = volume(np.where(ball(), 100, 10) + NOISE)
"""A bright ball in dark surroundings that are nowhere 0."""
EXTRACTED = volume(np.where(ball(), IMAGE.data, 0))
MASK = volume(ball(12), "mask.nii.gz")


@pytest.fixture(scope="module")
def finder(scan_weights) -> BrainFinder:
    made = BrainFinder(scan_weights(0.5))
    made.model = ALWAYS
    return made


def not_needed() -> BrainFinder:
    pytest.fail("the network was loaded, and need not be")


def refusal(*args, **options) -> str:
    with pytest.raises(MaskError) as error:
        brain_mask(*args, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("image", "given", "mode", "source"),
    [
        (EXTRACTED, MASK, "auto", "given"),
        (IMAGE, MASK, "auto", "given"),
        (EXTRACTED, MASK, "given", "given"),
        (EXTRACTED, None, "auto", "nonzero"),
        (EXTRACTED, MASK, "nonzero", "nonzero"),
    ],
)
def test_masks_that_need_no_network(image, given, mode, source):
    mask = brain_mask(image, given, mode, not_needed)
    assert mask.source == source and mask.weights == {} and mask.found is None
    np.testing.assert_array_equal(mask.volume.data, ball(12 if source == "given" else 14))


@pytest.mark.parametrize(("image", "given", "mode"), [(IMAGE, None, "auto"), (EXTRACTED, MASK, "network")])
def test_the_network_where_wanted_or_needed(image, given, mode, finder):
    mask = brain_mask(image, given, mode, lambda: finder)
    assert mask.source == "network" and mask.weights == finder.weights and mask.warnings == (UNCALIBRATED,)
    assert mask.volume.same_grid(image) and mask.volume.data.dtype == bool
    assert overlap(mask.volume.data, ball()) > 0.9


def test_the_mask_is_the_same_whatever_the_unit_and_offset_of_the_intensities(finder):
    """Standard scores, and a magnitude to which something was added: the network is shown the same but for rounding."""
    plain = brain_mask(IMAGE, None, "network", lambda: finder).volume.data
    for data in ((IMAGE.data - IMAGE.data.mean()) / IMAGE.data.std(), IMAGE.data / 1000 + 20, IMAGE.data - 1024):
        other = brain_mask(volume(data), None, "network", lambda: finder).volume.data
        assert overlap(other, plain) > 0.995


def test_a_head_in_exact_zero_goes_to_the_networks(finder):
    """A bright brain, dark bone and skin, and air that is exactly 0."""
    head = volume(np.select([ball(12), ball(15), ball(17)], [IMAGE.data, 5.0, 45.0], 0.0))
    mask = brain_mask(head, None, "auto", lambda: finder)
    assert mask.source == "network" and overlap(mask.volume.data, ball(12)) > 0.9
    wanted = brain_mask(head, None, "nonzero", not_needed)
    np.testing.assert_array_equal(wanted.volume.data, ball(17))
    assert "does not look brain-extracted" in wanted.warnings[0]


def test_what_cannot_be_had_is_refused():
    assert "--mask given" in refusal(EXTRACTED, None, "given", not_needed)
    assert "not exactly empty" in refusal(IMAGE, MASK, "nonzero", not_needed)
    assert "too little" in refusal(EXTRACTED, volume(ball(3)), "auto", not_needed)  # no reason to fall back
    with pytest.raises(ValueError, match="choose auto, given, nonzero or network"):
        brain_mask(EXTRACTED, MASK, "magic")


def test_no_brain_found_names_the_image_and_what_to_do(scan_weights):
    blind = BrainFinder(scan_weights(2.0))
    message = refusal(IMAGE, None, "auto", lambda: blind)
    assert message.startswith("sub-01_T2w.nii.gz: no brain was found")
    assert "-d DERIVATIVES" in message and "--mask-file" in message


def test_the_pose_is_that_of_the_grid_the_network_was_shown(finder):
    """To this network every head is upright along the axes of its crop: turned crops say as many poses, the first of them the grid's."""
    found = finder.find(IMAGE).found
    assert found is not None
    middle = IMAGE.affine[:3, :3] @ [20, 21, 22] + IMAGE.affine[:3, 3]
    assert found.origin == pytest.approx(middle, abs=2)
    assert min(np.degrees(so3.geodesic_distance(found.rotation, turn)) for turn in turns(8)) < 0.1
    assert found.features["agree"] < 0.5 and found.features["spread"] > 60


@pytest.mark.parametrize("flip", [False, True])
def test_a_pose_on_a_left_handed_grid_is_that_of_the_head(finder, flip):
    """The same head on a grid whose first axis runs the other way."""
    scan_axes = so3.exp(np.array([0.3, -0.5, 0.2]))
    affine = np.eye(4)
    affine[:3, :3] = scan_axes * 2 * np.array([-1.0 if flip else 1.0, 1, 1])
    image = Volume(IMAGE.data, affine, "a.nii.gz")
    scan = Scan.of(image, torch.device("cpu"))
    (found_,) = finder._candidates(image, scan)
    found = pose_of(image, [replace(found_.detection, rotation=np.eye(3))])
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    # what lies ahead and above on the grid lies ahead and above in the head
    assert found.rotation[:, 1:] == pytest.approx(scan_axes[:, 1:])


def test_what_is_no_brain_is_refused_and_what_may_be_one_is_said_to_be_doubtful(scan_weights):
    made = BrainFinder(scan_weights(0.5))
    for likely, warnings in ((0.05, None), (0.3, 2), (0.7, 1)):
        made.model = replace(ALWAYS, intercept=float(np.log(likely / (1 - likely))))
        if warnings is None:
            with pytest.raises(MaskError, match="no brain was found"):
                made.find(IMAGE)
            continue
        mask = made.find(IMAGE)
        assert len(mask.warnings) == warnings
        assert (warnings == 1) or "a brain with a probability of only 0.30" in mask.warnings[1]


def test_of_two_heads_the_larger_is_taken_and_the_other_reported(finder):
    shape = (100, 42, 44)
    two = ball(14, (20, 21, 22), shape) | ball(12, (75, 21, 22), shape)
    data = np.where(two, 100, 10) + 10 * np.random.default_rng(1).random(shape)
    for order in (1, -1):
        mask = finder.find(volume(data[::order]))
        assert overlap(mask.volume.data, ball(14, (20, 21, 22), shape)[::order]) > 0.9
        (warning,) = [w for w in mask.warnings if "another brain" in w]
        held = float(warning.partition("(")[2].partition(" ml")[0])
        assert held == pytest.approx(58, rel=0.15)


def test_a_brain_is_masked_near_where_it_is_known_to_be(finder):
    middle = IMAGE.affine[:3, :3] @ [20, 21, 22]
    for away in ((0, 0, 0), (14.0, -10, 8)):
        mask = finder.near(IMAGE, middle + away, 28.0)
        assert mask is not None and overlap(mask.data, ball()) > 0.9
    assert finder.near(volume(np.zeros(SHAPE)), middle, 28.0) is None


def test_weights_of_ones_own_are_used_named_and_calibrated(scan_weights, tmp_path):
    folder = scan_weights(0.5)
    made = BrainFinder(folder)
    assert dict(made.weights) == hashes(SCAN_NETWORKS, folder) != hashes(SCAN_NETWORKS, scan_weights(0.3))
    own = replace(load_calibration(), weights=dict(made.weights), brain=ALWAYS)
    write_calibration(own, folder / "calibration.toml")
    assert BrainFinder(folder).find(IMAGE).warnings == ()


@pytest.mark.parametrize("name", SCAN_NETWORKS)
def test_a_network_of_another_kind_is_refused(scan_weights, name):
    folder, options = scan_weights(0.5), {"size": 16, "width": [2, 2, 2, 2]}
    save_network(CoordinateNet(**options), name, folder, architecture="CoordinateNet", options=options, card="# Test\n", terms="none")
    with pytest.raises(WeightsError, match=f"{name} must be a "):
        BrainFinder(folder)
