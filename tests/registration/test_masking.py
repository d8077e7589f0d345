"""Which mask an image gets, and what the finder makes of networks that know nothing but brightness."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from posepipe.bench.masks import overlap
from posepipe.errors import MaskError, WeightsError
from posepipe.imaging.moments import Moments
from posepipe.imaging.volume import Volume
from posepipe.models.weights import MASK_NETWORKS, hashes
from posepipe.registration.calibration import load_calibration, uncalibrated, write_calibration
from posepipe.registration.masking import LESS_NARROW, NARROW, THICK_LIMIT, TURNED, BrainFinder, _outline, brain_mask
from posepipe.registration.scan_views import STRAIGHT, Look, Scan, read_back

LIKENESS = load_calibration().likeness
UNCALIBRATED = uncalibrated(MASK_NETWORKS)
DOUBT, DOUBTFUL, SURE_COUNTS = LIKENESS.doubt, LIKENESS.doubtful, LIKENESS.sure_counts

AFFINE = np.diag([2.0, 2, 2, 1])
SHAPE = (40, 42, 44)


def ball(radius: float = 14) -> np.ndarray:
    """Bool (40, 42, 44); radius 14 voxels of 2 mm holds 92 ml."""
    offset = np.moveaxis(np.indices(SHAPE), 0, -1) - np.array([20, 21, 22])
    return np.linalg.norm(offset, axis=-1) < radius


def volume(data: np.ndarray, name: str = "sub-01_T2w.nii.gz") -> Volume:
    return Volume(data.astype(np.float32), AFFINE, name)


NOISE = 10 * np.random.default_rng(0).random(SHAPE)
IMAGE = volume(np.where(ball(), 100, 10) + NOISE)
"""A bright ball in dark surroundings that are nowhere 0."""
EXTRACTED = volume(np.where(ball(), IMAGE.data, 0))
MASK = volume(ball(12), "mask.nii.gz")


@pytest.fixture(scope="module")
def finder(mask_weights) -> BrainFinder:
    return BrainFinder(mask_weights(0.5))


def not_needed() -> BrainFinder:
    pytest.fail("the networks were loaded, and need not be")


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
    assert mask.source == source and mask.weights == {}
    np.testing.assert_array_equal(mask.volume.data, ball(12 if source == "given" else 14))


@pytest.mark.parametrize(("image", "given", "mode"), [(IMAGE, None, "auto"), (EXTRACTED, MASK, "network")])
def test_networks_where_wanted_or_needed(image, given, mode, finder):
    mask = brain_mask(image, given, mode, lambda: finder)
    assert mask.source == "network" and mask.weights == finder.weights and mask.warnings == (UNCALIBRATED,)
    assert mask.volume.same_grid(image) and mask.volume.data.dtype == bool
    assert overlap(mask.volume.data, ball()) > 0.9


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


def test_no_brain_found_names_the_image_and_what_to_do(mask_weights):
    blind = BrainFinder(mask_weights(2.0))
    message = refusal(IMAGE, None, "auto", lambda: blind)
    assert message.startswith("sub-01_T2w.nii.gz: no brain was found")
    assert "-d DERIVATIVES" in message and "--mask-file" in message


def test_masks_of_raw_stacks_are_generous(mask_weights):
    """The same voxels, called thick slices: what is a little less likely than not to be brain is brain there."""
    finder = BrainFinder(mask_weights(0.5))
    rim = np.where(ball(17) & ~ball(), 49.2, IMAGE.data)
    plain = Volume(rim.astype(np.float32), np.diag([2.0, 2, 3.9, 1]), "a.nii.gz")
    thick = Volume(rim.astype(np.float32), np.diag([2.0, 2, 4.0, 1]), "b.nii.gz")
    few, many = (finder.find(v).voxels for v in (plain, thick))
    assert many > 1.02 * few


def likely_where_bright(cube: torch.Tensor, p: float) -> torch.Tensor:
    return torch.where(cube[0] > 50, p, 0.0).expand(4, -1, -1, -1)


@pytest.mark.parametrize(
    ("voxel", "slices", "by_whom", "width", "limit"),
    [(2.0, 2.0, "_edge", NARROW, 0.45), (3.7, 3.7, "_edge", NARROW, 0.65), (2.0, 4.0, "_fine", 1.0, THICK_LIMIT)],
)
def test_the_outline_is_from_a_last_look_by_its_own_network_but_in_raw_stacks(finder, monkeypatch, voxel, slices, by_whom, width, limit):
    """A ball of 92 ml, a fetus's size, one of 580 ml, a newborn's, and 180 ml of thick slices."""
    image = Volume(IMAGE.data, np.diag([voxel, voxel, slices, 1]), "a.nii.gz")
    looks = []
    monkeypatch.setattr("posepipe.registration.masking.read_back", lambda some, scan: looks.append(some) or read_back(some, scan))
    voxels = {}
    for by in (-0.01, 0.01):
        answer = partial(likely_where_bright, p=limit + by)
        monkeypatch.setattr(getattr(finder, by_whom), "all_round", answer)
        try:
            voxels[by] = finder.find(image).voxels
        except MaskError:
            voxels[by] = 0
        wide, last = looks[-1 if by_whom == "_fine" else -2]
        assert last.step == pytest.approx(width * wide.step, rel=0.1)
    assert voxels[0.01] > 10 * voxels[-0.01]


@pytest.mark.parametrize("narrow", [0.2, 0.9])
def test_the_outline_is_the_mean_of_looks_of_two_widths_along_other_axes(finder, monkeypatch, narrow):
    """A voxel is brain where 0.45, the limit for the ball's size, is likely: once with a wider look of just so much, once of too little."""
    voxels = {}
    for by in (-0.01, 0.01):
        likely = {NARROW: narrow, LESS_NARROW: 2 * (0.45 + by) - narrow}

        def answered(*asked, likely=likely):
            look, (width, *axes) = _outline(*asked), asked[3:]
            assert [np.array_equal(a, TURNED) for a in axes] == ([True] if width == LESS_NARROW else [])
            return replace(look, likely=torch.where(look.likely > 0.5, likely[width], 0.0))

        monkeypatch.setattr("posepipe.registration.masking._outline", answered)
        try:
            voxels[by] = finder.find(IMAGE).voxels
        except MaskError:
            voxels[by] = 0
    assert voxels[0.01] > 10 * voxels[-0.01]


def test_the_brain_is_where_a_turned_look_sees_it(finder):
    """A ball beside the middle of what is looked at."""
    scan, about = Scan(torch.as_tensor(IMAGE.data)[None], IMAGE.spacing), Moments(np.array([44.0, 40.0, 40.0]), 145 * np.eye(3), 92.0)
    for axes in (STRAIGHT, TURNED):
        with torch.inference_mode():
            look = _outline(finder._edge, scan, about, 1.0, axes)
        assert np.linalg.norm(look.about.center - [40, 42, 44]) < 1 and look.about.millilitres == pytest.approx(92, rel=0.1)


@pytest.mark.parametrize("side", [0, 1])
def test_a_brain_that_one_look_misses_is_found(finder, monkeypatch, side):
    """To this network only half of the space is there to see, and in the image as it is the brain lies in the other."""
    seen = finder._coarse._module

    def half(x):
        logits = seen(x)
        middle = logits.shape[2] // 2
        logits[:, :, slice(0, middle) if side else slice(middle, None)] = -10
        return logits

    apart = volume(np.concatenate([NOISE, NOISE, IMAGE.data])[:: 1 if side == 0 else -1])
    monkeypatch.setattr(finder._coarse, "_module", half)
    assert 2 * finder.find(apart).voxels > ball().sum()


def test_a_brain_that_only_one_look_hints_at_is_found(finder, monkeypatch):
    """The network sees an eighth of the space, and is not sure of that: on average over the looks there is hardly anything."""
    seen, asked = finder._coarse._module, []

    def eighth(x):
        asked.append(1)
        logits = seen(x).clamp(max=0.5)
        a, b, c = (n // 2 for n in logits.shape[2:])
        hidden = torch.ones_like(logits, dtype=torch.bool)
        hidden[:, :, a:, b:, c:] = False
        return logits.masked_fill(hidden, -10)

    low = volume(np.random.default_rng(1).choice(NOISE.ravel(), tuple(2 * n for n in SHAPE)))
    low.data[: SHAPE[0], : SHAPE[1], : SHAPE[2]] = IMAGE.data
    monkeypatch.setattr(finder._coarse, "_module", eighth)
    assert finder.find(volume(low.data[:, :, ::-1])).voxels > 0.9 * ball().sum()
    assert len(asked) == 4
    monkeypatch.setattr(finder._coarse, "_module", lambda x: torch.full_like(x, -10))
    with pytest.raises(MaskError, match="no brain was found"):  # what is bright is too small
        finder.find(volume(100.0 * ball(3)))


def test_a_brain_that_no_look_hints_at_is_found_in_the_middle(finder, monkeypatch):
    monkeypatch.setattr(finder._coarse, "_module", lambda x: torch.full_like(x, -10))
    assert overlap(finder.find(IMAGE).volume.data, ball()) > 0.9


@pytest.mark.parametrize(("least", "found"), [(-1e9, True), (1e9, False)])
def test_what_is_seen_badly_may_be_a_brain_by_its_outline(mask_weights, monkeypatch, least, found):
    finder = BrainFinder(mask_weights(0.5))
    monkeypatch.setattr(finder._fine, "least", 1e9)
    monkeypatch.setattr(finder._edge, "least", least)
    if found:
        assert overlap(finder.find(IMAGE).volume.data, ball()) > 0.9
        return
    with pytest.raises(MaskError, match="no brain was found"):
        finder.find(IMAGE)


@pytest.mark.parametrize(("lacks", "doubts"), [(0.0, 0), (0.01, 1), (DOUBTFUL - 0.01, 1), (DOUBTFUL + 0.01, None), (np.inf, None)])
def test_what_may_be_a_brain_is_masked_and_said_to_be_doubtful(mask_weights, monkeypatch, lacks, doubts):
    finder = BrainFinder(mask_weights(0.5))
    monkeypatch.setattr(finder._fine, "least", 1e9)
    monkeypatch.setattr(finder._edge, "least", 20.0)
    monkeypatch.setattr(finder, "_likeness", lambda *_: 20.0 - lacks)
    if doubts is None:
        with pytest.raises(MaskError, match="no brain was found"):
            finder.find(IMAGE)
        return
    mask = finder.find(IMAGE)
    assert overlap(mask.volume.data, ball()) > 0.9
    told = [warning for warning in mask.warnings if warning != UNCALIBRATED]
    assert len(told) == doubts and all("doubt that what they masked is a brain" in one for one in told)


@pytest.fixture
def two_balls(mask_weights, monkeypatch):
    """A finder, an image of two balls, the smaller of them, and how like a brain the larger and the smaller are to be."""
    finder = BrainFinder(mask_weights(0.5))
    none = np.zeros(SHAPE, bool)
    both, small = np.concatenate([ball(), ball(9)]), np.concatenate([none, ball(9)])

    def liked(large: float, less: float) -> BrainFinder:
        monkeypatch.setattr(finder, "_likeness", lambda image, scan, look, least: large if look.about.millilitres > 50 else less)
        return finder

    return volume(np.where(both, 100, 10)), small, liked


def test_of_what_may_be_a_brain_the_likeliest_is_masked(two_balls, monkeypatch):
    """The networks are a little surer of the smaller ball, though of neither sure enough."""
    image, small, liked = two_balls
    finder = liked(19.0, 19.5)
    monkeypatch.setattr(finder._fine, "least", 1e9)
    monkeypatch.setattr(finder._edge, "least", 20.0)
    assert overlap(finder.find(image).volume.data, small) > 0.8


@pytest.mark.parametrize(("beyond", "first"), [(DOUBT, True), (DOUBT - 0.01, False)])
def test_where_the_first_is_sure_to_be_a_brain_no_other_place_is_looked_at(two_balls, monkeypatch, beyond, first):
    image, small, liked = two_balls
    finder, places = liked(20.0 + beyond, 21.0), []
    monkeypatch.setattr(finder._fine, "least", 20.0)
    settled = finder._settled
    monkeypatch.setattr(finder, "_settled", lambda scan, center, radius: places.append(center) or settled(scan, center, radius))
    assert (overlap(finder.find(image).volume.data, small) < 0.1) is first
    assert len(places) == (1 if first else 2)


def test_of_networks_that_do_not_say_how_like_a_brain_is_enough_the_likeliest_counts(two_balls):
    image, small, liked = two_balls
    assert overlap(liked(19.0, 19.5).find(image).volume.data, small) > 0.8


@pytest.mark.parametrize(("least", "margin", "sure"), [(20.0, DOUBT, True), (20.0, DOUBT - 0.01, False), (-np.inf, 0.0, True)])
def test_what_is_near_to_no_brain_is_not_sure_to_be_one(mask_weights, monkeypatch, least, margin, sure):
    finder = BrainFinder(mask_weights(0.5))
    monkeypatch.setattr(finder._fine, "least", least)
    monkeypatch.setattr(finder, "_likeness", lambda *_: 20.0 + margin)
    found = finder.find(IMAGE)
    assert found.sure is sure and found.warnings == (UNCALIBRATED,)


def test_how_like_a_brain_must_be_what_is_one_goes_with_the_weights(finder, mask_weights):
    packaged = BrainFinder()
    assert (packaged._fine.least, packaged._edge.least) == (LIKENESS.least["mask-fine"], LIKENESS.least["mask-edge"])
    assert finder._fine.least == finder._edge.least == -np.inf
    assert finder.find(IMAGE).warnings == (UNCALIBRATED,)
    folder = mask_weights(0.5)
    own = {**load_calibration().weights, **finder.weights}
    write_calibration(replace(load_calibration(), weights=own), folder / "calibration.toml")
    calibrated = BrainFinder(folder)
    assert calibrated._fine.least == LIKENESS.least["mask-fine"] and calibrated._strange == ()


def test_the_outline_of_nothing_is_not_like_a_brain(mask_weights, monkeypatch):
    finder = BrainFinder(mask_weights(0.5))
    monkeypatch.setattr(finder._edge, "all_round", lambda cube: torch.zeros((4, *cube.shape[2:])))
    with torch.inference_mode():
        scan, look = seen(finder, IMAGE)
        _, last = finder._outlined(scan, look)
        assert last.about is look.about and last.sure == 0
        assert finder._likeness(IMAGE, scan, last, 0.0) == -np.inf


def seen(finder: BrainFinder, image: Volume) -> tuple[Scan, Look]:
    """A look at the ball of ``image``."""
    scan = Scan(torch.as_tensor(image.data)[None], image.spacing)
    look = finder._settled(scan, np.array([20, 21, 22]) * image.spacing, 15 * float(image.spacing[0]))
    assert look is not None
    return scan, look


def test_an_outline_is_drawn_again_about_what_it_shows(finder):
    """Told of a ball half as large again and a third of its radius off, the outline settles on the true one."""
    with torch.inference_mode():
        scan, look = seen(finder, IMAGE)
        wrong = Moments(look.about.center + np.array([9.0, 0, 0]), 1.5**2 * look.about.covariance, 1.5**3 * look.about.millilitres)
        looks = finder._outlined(scan, replace(look, about=wrong))
    assert len(looks) > 2
    assert np.linalg.norm(looks[-1].about.center - look.about.center) < 0.5
    assert looks[-1].about.radius == pytest.approx(look.about.radius, rel=0.03)
    with torch.inference_mode():
        assert len(finder._outlined(scan, look)) == 2  # nothing to settle


def test_no_brain_holds_more_than_a_litre(finder):
    with torch.inference_mode():
        scan, look = seen(finder, IMAGE)
        much = replace(look, about=replace(look.about, millilitres=1001.0))
        assert finder._likeness(IMAGE, scan, look, 0.0) > finder._likeness(IMAGE, scan, much, 0.0) == -np.inf


def test_where_in_doubt_a_brain_is_judged_from_four_sides(mask_weights, monkeypatch):
    finder, asked = BrainFinder(mask_weights(0.5)), []

    def strangeness(image, mask):
        assert np.array_equal(image.data > 50, mask.data)  # turned together
        asked.append(tuple(np.round(np.argwhere(mask.data).mean(0)).astype(int)))
        return len(asked)

    monkeypatch.setattr(finder, "_strangeness", strangeness)
    with torch.inference_mode():
        scan, look = seen(finder, IMAGE)
        likely = torch.nn.functional.pad(torch.as_tensor(ball()).float(), (0, 0, 1, 1, 2, 2))  # to a cube, voxel by voxel
        look = replace(look, likely=likely, center=np.array([39.0, 41, 43]), step=2.0, sure=1.0)
        assert finder._likeness(IMAGE, scan, look, SURE_COUNTS - 1 - 1.01 * DOUBT) == SURE_COUNTS - 1
        assert finder._likeness(IMAGE, scan, look, SURE_COUNTS - 2 + DOUBTFUL + 1.01 * DOUBT) == SURE_COUNTS - 2
        assert asked == 2 * [(20, 21, 22)]
        # near to what is enough, and to what is doubtful at best
        for least in (SURE_COUNTS - 1, SURE_COUNTS - 1 + DOUBTFUL):
            asked.clear()
            assert finder._likeness(IMAGE, scan, look, least) == SURE_COUNTS - 2.5
    assert asked == [(20, 21, 22), (19, 20, 22), (19, 21, 21), (20, 20, 21)]


def test_a_brain_cut_by_the_border_is_told(finder):
    _, warning = finder.find(volume(IMAGE.data[18:])).warnings
    assert "reaches the left edge" in warning and "part of the brain may lie outside" in warning


def test_weights_are_those_of_the_folder(mask_weights, tmp_path):
    folder = mask_weights(0.4)
    finder = BrainFinder(folder)
    assert dict(finder.weights) == hashes(MASK_NETWORKS, folder)
    assert hashes(MASK_NETWORKS, folder) != hashes(MASK_NETWORKS, mask_weights(0.3))
    with pytest.raises(WeightsError, match="not a weights folder"):
        BrainFinder(tmp_path)
