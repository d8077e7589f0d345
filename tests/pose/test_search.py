"""Search over all rotations: known poses are found for any rotation, grid, corruption and contrast."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from posepipe.bench.perturb import corrupted
from posepipe.geometry import Rigid, so3
from posepipe.imaging.volume import Volume
from posepipe.matching.comparison import Comparison
from posepipe.matching.gauss_newton import fit
from posepipe.matching.target import Target
from posepipe.pose import search as searching
from posepipe.pose.hypothesis import LOW_CRITERION
from posepipe.pose.initial import InitialPose, initial_pose
from posepipe.pose.search import BY_CONTRAST, BY_RATIO, FINALISTS, propose, search


@pytest.fixture(scope="module")
def found(heads, target) -> list[InitialPose]:
    return [initial_pose(h.image, h.mask, target, method="search", compare=Comparison(h.brain, target)) for h in heads]


@pytest.mark.slow
def test_finds_every_pose_in_every_bin_on_grids_of_both_hands(heads, found, target):
    assert {np.sign(np.linalg.det(h.image.affine[:3, :3])) for h in heads} == {-1.0, 1.0}
    assert max(h.pose.angle_degrees for h in heads) > 150
    degrees = [f.pose.degrees_from(h.pose) for h, f in zip(heads, found, strict=True)]
    assert np.mean(degrees) < 2
    assert max(degrees) < 5
    mm = [f.pose.mm_from(h.pose, target.brain.center) for h, f in zip(heads, found, strict=True)]
    assert max(mm) < 2.5


def test_hypotheses_are_sorted_distinct_and_few(found):
    for f in found:
        scores = [h.criterion for h in f.hypotheses]
        assert f.found.by == "criterion" and scores == sorted(scores, reverse=True)
        assert 1 <= len(scores) <= FINALISTS
        apart = [a.pose.degrees_from(b.pose) for a, b in combinations(f.hypotheses, 2)]
        assert not apart or min(apart) > 4.9
        assert all(0 < h.overlap <= 1.001 for h in f.hypotheses)
        assert f.pose is f.hypotheses[0].pose
        assert f.method == "search"


def test_margin_is_the_lead_over_rivals_that_are_far_away(found):
    leads = []
    for f in found:
        rivals = [h.criterion for h in f.hypotheses if h.pose.degrees_from(f.pose) > 30]
        if rivals:
            assert f.found.lead() == pytest.approx(f.best.criterion - max(rivals))
            leads.append(f.found.lead())
        else:
            assert f.found.lead() is None
    assert len(leads) > 3
    assert min(leads) > 0.1  # a clean head leaves no doubt


def test_a_brain_that_looks_the_same_after_half_a_turn_has_no_lead(average, target):
    image, mask = average
    data = image.data + image.data[::-1, ::-1]
    inside = mask.data.astype(bool) & mask.data[::-1, ::-1].astype(bool)
    twofold = Volume((data * inside).astype(np.float32), image.affine, "twofold"), mask.with_data(inside)
    own = Target(*twofold, "twofold")
    turn = Rigid(so3.exp([0.3, 1.2, -0.4]), np.array([5.0, 0, -8]))
    found = initial_pose(twofold[0].moved(turn), twofold[1].moved(turn), own)
    assert found.found.by == "criterion" and 0 <= found.found.lead() < 0.02
    first, second = found.hypotheses[:2]
    assert first.pose.degrees_from(second.pose) > 175
    assert min(h.pose.degrees_from(turn) for h in (first, second)) < 1


@pytest.mark.parametrize("kind", ["cut", "leak", "bias", "noise"])
@pytest.mark.parametrize("seed", [0, 1])
def test_finds_the_pose_of_a_damaged_brain(heads, target, kind, seed):
    h = heads[5 + 4 * seed]
    image, mask = corrupted(h.image, h.mask, kind, 1.0, np.random.default_rng(seed))
    found = search(Comparison.of(image, mask, target)).best
    assert found.pose.degrees_from(h.pose) < 6


def test_a_brain_that_fits_nowhere_is_searched_again(make_head, target, monkeypatch):
    h = make_head(1)
    compare = Comparison.of(*corrupted(h.image, h.mask, "all", 1.0, np.random.default_rng(1)), target)
    twice = search(compare)
    assert twice.best.pose.degrees_from(h.pose) < 8
    assert twice.by == "coarse"
    assert [x.coarse for x in twice.hypotheses] == sorted((x.coarse for x in twice.hypotheses), reverse=True)
    assert all(x.criterion == compare.score(x.pose) for x in twice.hypotheses)
    monkeypatch.setattr(searching, "LOW_CRITERION", 0.0)
    once = search(compare)
    assert once.by == "criterion" and once.best.criterion < LOW_CRITERION
    assert once.best.pose.degrees_from(h.pose) > 90


def test_a_multistart_result_with_a_lower_criterion_is_discarded(head, target, monkeypatch):
    compare = Comparison(head.brain, target)
    right = search(compare)
    turned = compare.poses(Rigid.about(so3.exp([0.0, 0.0, 0.6]) @ head.pose.rotation, target.brain.center, compare.brain.center))
    monkeypatch.setattr(searching, "LOW_CRITERION", 10.0)
    monkeypatch.setattr(searching, "multistart_search", lambda *_: fit(compare.criterion_terms, turned, 0))
    assert [h.criterion for h in search(compare).hypotheses] == [h.criterion for h in right.hypotheses]
    tempting = fit(compare.criterion_terms, turned, 0)
    vars(tempting)["criterion"] = tempting.criterion + 5  # of another kind: it is not to be compared with the criterion of the best
    monkeypatch.setattr(searching, "multistart_search", lambda *_: tempting)
    assert [h.criterion for h in search(compare).hypotheses] == [h.criterion for h in right.hypotheses]
    monkeypatch.setattr(searching, "multistart_search", lambda *_: fit(compare.criterion_terms, compare.poses(right.best.pose), 0))
    assert [h.pose.degrees_from(right.best.pose) for h in search(compare).hypotheses] == pytest.approx([0.0], abs=1e-3)


def test_further_starts_are_requested_in_doubt_only(head, make_head, target):
    asked = []

    def more(compare, pose):
        def starts():
            asked.append(compare)
            return compare.poses(pose)

        return starts

    sound = Comparison(head.brain, target)
    search(sound, more=more(sound, head.pose))
    assert asked == []
    h = make_head(1)
    spoilt = Comparison.of(*corrupted(h.image, h.mask, "all", 1.0, np.random.default_rng(1)), target)
    found = search(spoilt, more=more(spoilt, h.pose))
    assert asked == [spoilt]
    assert found.best.pose.degrees_from(h.pose) < 8


def test_sound_brains_are_not_in_doubt(found):
    assert min(f.best.criterion for f in found) > LOW_CRITERION


def test_a_cut_loses_the_seventh_part_and_the_scale_is_kept(heads, target):
    h = heads[7]
    image, mask = corrupted(h.image, h.mask, "cut", 1.0, np.random.default_rng(3))
    assert mask.data.sum() == pytest.approx(0.85 * h.mask.data.sum(), rel=0.01)
    whole, cut = (search(Comparison.of(i, m, target)).best for i, m in ((h.image, h.mask), (image, mask)))
    assert cut.log_scale == pytest.approx(whole.log_scale, abs=0.05)


@pytest.mark.parametrize("which", [2, 8, 11])
def test_finds_the_pose_in_inverted_contrast(heads, target, which):
    h = heads[which]
    inside = h.mask.data > 0
    negative = h.image.with_data(np.where(inside, float(h.image.data[inside].max()) - h.image.data, 0).astype(np.float32))
    found = search(Comparison.of(negative, h.mask, target)).best
    assert found.pose.degrees_from(h.pose) < 5


@pytest.mark.parametrize("seed", [1, 2])
def test_finds_a_t1w_newborn_in_a_t2w_template(make_head, target, seed):
    h = make_head(seed, (60, 180), contrast="T1w")
    assert search(Comparison(h.brain, target)).best.pose.degrees_from(h.pose) < 5


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_size_is_fitted_where_the_age_is_not_known(heads, target, factor):
    h = heads[9]
    grow = np.diag([factor, factor, factor, 1.0])
    image, mask = (Volume(v.data, grow @ v.affine, v.source) for v in (h.image, h.mask))
    plain = initial_pose(h.image, h.mask, target)
    found = initial_pose(image, mask, target, age_known=False)
    assert found.pose.degrees_from(h.pose) < 5
    assert found.scale == pytest.approx(factor * plain.scale, rel=0.03)
    # the template's centre lands where the grown head has it
    center = target.brain.center
    np.testing.assert_allclose(found.pose.apply(center), factor * h.pose.apply(center), atol=2.5)


def test_proposals_hold_the_pose_and_carry_the_template_centre_to_the_brain(heads, target):
    h = heads[10]
    proposed = propose(h.brain, target, age_known=True)
    assert len(proposed) == BY_CONTRAST + BY_RATIO
    poses = [proposed.rigid(i, h.brain.center, target.brain.center) for i in range(len(proposed))]
    assert min(p.degrees_from(h.pose) for p in poses) < 15  # the bank's own fineness is about 9°
    assert max(p.mm_from(Rigid.identity(), target.brain.center) for p in poses) < 100
    assert all(np.linalg.norm(p.apply(target.brain.center) - h.brain.center) < 0.2 * h.brain.radius for p in poses)


def test_the_same_brain_twice_gives_the_same_bits(heads, target):
    h = heads[6]
    first, again = (initial_pose(h.image, h.mask, target) for _ in range(2))
    np.testing.assert_array_equal(first.pose.matrix, again.pose.matrix)
    assert [a.criterion for a in first.hypotheses] == [b.criterion for b in again.hypotheses]
