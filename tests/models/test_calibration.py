"""The calibration file: its values, the weights that it is valid for, and the behaviour with other weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from posepipe.bench.brains import SIGNS
from posepipe.bench.moving_stacks import FEATURES
from posepipe.errors import WeightsError
from posepipe.models.calibration import (
    PACKAGED,
    NetworkConsensus,
    load_calibration,
    read_calibration,
    uncalibrated,
    write_calibration,
)
from posepipe.models.slices import SliceCoordinateNet
from posepipe.models.weights import POSE_NETWORKS, SCAN_NETWORKS, SLICE_NETWORK, hashes, load_network, save_network
from posepipe.pose.coordinate_networks import PoseNetworks
from posepipe.slices.align import StackAligner

pytestmark = pytest.mark.usefixtures("one_thread_no_cache")


def test_file_and_back(tmp_path):
    calibration = load_calibration()
    assert read_calibration(write_calibration(calibration, tmp_path / "calibration.toml")) == calibration
    assert [p.name for p in tmp_path.iterdir()] == ["calibration.toml"]


@pytest.mark.parametrize("text", ["", "[weights]\n", "not toml", None])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "calibration.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(WeightsError, match=r"calibration\.toml: not a calibration"):
        read_calibration(path)


@pytest.mark.parametrize("part", ["brain", "confidence"])
def test_features_of_another_version_are_reported(tmp_path, part):
    path = write_calibration(load_calibration(), tmp_path / "calibration.toml")
    text = path.read_text().replace(f"[{part}.features]\n", f"[{part}.features]\nlikeness = {{ coefficient = 1, mean = 0, scale = 1 }}\n")
    path.write_text(text)
    with pytest.raises(WeightsError, match=r"not a calibration of this version .*likeness.* remove this file"):
        read_calibration(path)


def test_the_package_is_calibrated_with_its_own_weights():
    calibration = load_calibration()
    assert calibration.weights == hashes((*SCAN_NETWORKS, *POSE_NETWORKS, SLICE_NETWORK))
    assert calibration.slices is not None and set(calibration.slices.terms) == set(FEATURES)
    assert set(calibration.brain.terms) == set(SIGNS) and 0 < calibration.brain.fail < calibration.brain.review
    assert all("by hand" not in made for made in calibration.made.values())


def test_slices_have_a_confidence_only_by_the_weights_it_was_fitted_with(tmp_path):
    def save(network, options):
        made = {"architecture": "SliceCoordinateNet", "options": options, "card": "# Test", "terms": "none"}
        save_network(network, SLICE_NETWORK, tmp_path, **made)

    packaged = load_network(SLICE_NETWORK)
    save(packaged.module, packaged.options)
    assert StackAligner()._model == StackAligner(tmp_path)._model == load_calibration().slices is not None
    save(SliceCoordinateNet(16, (2, 2, 2, 2)), {"size": 16, "width": [2, 2, 2, 2]})
    assert StackAligner(tmp_path)._model is None
    save(packaged.module, packaged.options)
    without = replace(load_calibration(), slices=None, made={k: v for k, v in load_calibration().made.items() if k != "slices"})
    assert read_calibration(write_calibration(without, tmp_path / PACKAGED.name)) == without
    assert StackAligner(tmp_path)._model is None


def test_a_folder_s_own_comes_first(tmp_path):
    assert load_calibration(tmp_path) == load_calibration()
    own = replace(load_calibration(), consensus=NetworkConsensus(0.5, 0.1))
    write_calibration(own, tmp_path / PACKAGED.name)
    assert load_calibration(tmp_path) == own


def test_other_weights_are_reported_by_name():
    calibration = load_calibration()
    assert calibration.others(hashes(POSE_NETWORKS)) == ()
    assert calibration.others({"pose-fine": "ab", "pose-coarse": calibration.weights["pose-coarse"]}) == ("pose-fine",)
    assert calibration.others({"pose-net": "ab"}) == ()  # nothing hangs on those
    assert uncalibrated(("a", "b")).startswith("the weights of a, b are not those")


@pytest.mark.parametrize(("votes", "error", "sure"), [(0.75, 0.02, True), (0.74, 0.02, False), (0.75, 0.0201, False)])
def test_sureness_needs_votes_and_a_small_error(votes, error, sure):
    assert NetworkConsensus(0.75, 0.02).of({"votes": votes, "expected_error": error}) is sure


def test_networks_of_other_weights_never_meet_the_consensus(tmp_path):
    certain = {"votes": 1.0, "expected_error": 0.0}
    assert PoseNetworks().reliable(certain)
    loaded = load_network("pose-coarse")
    with torch.no_grad():
        loaded.module.head.bias += 0.01
    made = {"architecture": "CoordinateNet", "options": loaded.options, "card": "# Test\n", "terms": "none"}
    save_network(loaded.module, "pose-coarse", tmp_path, **made)
    assert not PoseNetworks(tmp_path).reliable(certain)
    own = replace(load_calibration(), weights=hashes(POSE_NETWORKS, tmp_path))
    write_calibration(own, tmp_path / PACKAGED.name)
    assert PoseNetworks(tmp_path).reliable(certain)
