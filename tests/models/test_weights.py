"""Weights folders: saved networks are loaded again, and faults are reported."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from posepipe.errors import PosepipeError, WeightsError
from posepipe.models import available, load_network, save_network, weights
from posepipe.models.calibration import NAME as CALIBRATION
from posepipe.models.correction import CorrectionNet
from posepipe.models.listing import LISTING, Entry, listing_text, read_listing
from posepipe.models.posenet import PoseNet

OPTIONS = {"size": 16, "width": 0.25}


@pytest.fixture(autouse=True)
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package's own, empty at first."""
    folder = tmp_path / "packaged"
    folder.mkdir()
    (folder / LISTING).write_text(listing_text({}), encoding="utf-8")
    monkeypatch.setattr(weights, "PACKAGED", folder)
    return folder


@pytest.fixture
def net() -> PoseNet:
    """A network that has seen batches, so that its running statistics are not those it began with."""
    torch.manual_seed(0)
    network = PoseNet(**OPTIONS)
    for scale in (1.0, 30.0, 0.1):
        network(scale * torch.randn(4, 1, 16, 16, 16))
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def save(module: nn.Module, folder: Path, name: str = "pose", **changes) -> Path:
    arguments = {"architecture": "PoseNet", "options": OPTIONS, "card": "# Pose\n\nFor tests.", "terms": "MIT"} | changes
    return save_network(module, name, folder, **arguments)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_round_trip(net, folder):
    path = save(net, folder)
    loaded = load_network("pose", weights_dir=folder)
    assert (loaded.name, loaded.options, loaded.path) == ("pose", OPTIONS, path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not loaded.module.training
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    ours, back = dict(net.named_parameters()), dict(loaded.module.named_parameters())
    for key, value in ours.items():
        # half an ulp: 2^-11 of the value, or 2^-25 below 6e-5
        assert bool(((back[key] - value).abs() <= value.abs() * 2**-11 + 2**-25).all()), key
    for (key, a), (_, b) in zip(net.named_buffers(), loaded.module.named_buffers(), strict=True):
        assert torch.equal(a, b), key
    assert int(loaded.module.get_buffer("trunk.layers.2.num_batches_tracked")) == 3
    cube = torch.randn(3, 1, 16, 16, 16)
    torch.testing.assert_close(loaded.module(cube), net.eval()(cube), atol=5e-3, rtol=0)


def test_files_are_half_precision_and_beside_a_card(net, folder):
    path = save(net, folder)
    n = sum(p.numel() for p in net.parameters())
    assert 2 * n < path.stat().st_size < 2.2 * n + 20_000
    assert (folder / "pose.md").read_text(encoding="utf-8") == "# Pose\n\nFor tests.\n"
    assert sorted(p.name for p in folder.iterdir()) == ["pose.md", "pose.safetensors", LISTING]


def test_the_same_weights_give_the_same_file(net, folder, tmp_path):
    assert save(net, folder).read_bytes() == save(net, tmp_path / "again").read_bytes()


def test_running_statistics_outside_float16_survive(net, folder):
    net.trunk.layers[2].running_var.copy_(torch.tensor([1e6, 1e-9]))
    save(net, folder)
    back = load_network("pose", weights_dir=folder).module.trunk.layers[2].running_var
    assert back.tolist() == pytest.approx([1e6, 1e-9])


def test_networks_are_added_and_replaced(net, folder):
    save(net, folder)
    save(CorrectionNet(**OPTIONS), folder, "correct", architecture="CorrectionNet", terms='"quoted" \\ – 28°')
    first = load_network("pose", weights_dir=folder).sha256
    with torch.no_grad():
        net.rotation.dense.bias.add_(1)
    save(net, folder)
    assert available(folder) == ("correct", "pose")
    assert load_network("pose", weights_dir=folder).sha256 != first
    assert read_listing(folder)["correct"].terms == '"quoted" \\ – 28°'
    assert isinstance(load_network("correct", weights_dir=folder).module, CorrectionNet)


def test_the_folder_named_comes_first_and_the_rest_from_the_package(net, folder, packaged):
    save(net, packaged)
    save(net, packaged, "other")
    assert load_network("pose").path == packaged / "pose.safetensors"
    save(PoseNet(16, 0.5), folder, options={"size": 16, "width": 0.5})
    assert available() == available(folder) == ("other", "pose")
    ours = load_network("pose", weights_dir=folder)
    assert (ours.path, ours.options["width"]) == (folder / "pose.safetensors", 0.5)
    assert load_network("other", weights_dir=folder).path == packaged / "other.safetensors"


def test_a_bad_file_in_the_folder_named_is_not_passed_over(net, folder, packaged):
    save(net, packaged)
    save(net, folder).unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        load_network("pose", weights_dir=folder)


@pytest.mark.parametrize("where", [10, 2000, -1])
def test_a_changed_byte_is_found(net, folder, where):
    path = save(net, folder)
    blob = bytearray(path.read_bytes())
    blob[where] ^= 1
    path.write_bytes(blob)
    with pytest.raises(WeightsError, match=r"pose\.safetensors: not the file that .*weights\.toml lists"):
        load_network("pose", weights_dir=folder)


def test_a_file_cut_short_is_found_even_where_the_list_agrees(net, folder):
    path = save(net, folder)
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-100])
    edit(folder / LISTING, old, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_network("pose", weights_dir=folder)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("width = 0.25", "width = 0.5", "size mismatch"),
        ("width = 0.25", "depth = 3", "unexpected keyword argument 'depth'"),
        ("size = 16", "size = 17", "not 17"),
        ('"PoseNet"', '"CorrectionNet"', "not the weights of CorrectionNet"),
        ('"PoseNet"', '"FutureNet"', "knows no network class 'FutureNet'"),
        ('terms = "MIT"', "terms = 3", "needs terms"),
        ('sha256 = "', 'hash = "', "needs sha256"),
        ("[pose.options]", "[pose.settings]", "options must be a table"),
        ('file = "pose', 'file = "../pose', "name of a file in the same folder"),
        ("[pose]", "[pose", "cannot be read as TOML"),
        ("[pose]\n", 'extra = 3\n[pose]\n', r"\[extra\] needs"),
    ],
)
def test_a_list_that_is_wrong(net, folder, before, after, message):
    save(net, folder)
    edit(folder / LISTING, before, after)
    with pytest.raises(WeightsError, match=message) as error:
        load_network("pose", weights_dir=folder)
    assert str(folder) in str(error.value)


def test_an_unknown_name_and_a_folder_that_is_none(net, folder, packaged):
    save(net, folder)
    with pytest.raises(WeightsError, match=r"'posse' in .*mine and .*packaged \(there: pose\)"):
        load_network("posse", weights_dir=folder)
    with pytest.raises(PosepipeError, match=r"there: none"):
        load_network("pose")
    with pytest.raises(WeightsError, match=r"nowhere: not a weights folder"):
        available(folder / "nowhere")


def test_what_could_not_be_loaded_is_not_saved(net, folder):
    refused = [
        ({"options": {"size": 16, "width": 0.5}}, "size mismatch"),
        ({"architecture": "CorrectionNet"}, "translation"),
        ({"name": "../pose"}, "cannot name a network"),
        ({"card": " \n"}, "its card is empty"),
        ({"terms": ""}, "its terms is empty"),
        ({"options": OPTIONS | {"size": None}}, "size"),
    ]
    for changes, message in refused:
        with pytest.raises(WeightsError, match=message):
            save(net, folder, **changes)
    for bad in (float("nan"), 7e4):
        with torch.no_grad():
            net.rotation.dense.weight[0, 0] = bad
        with pytest.raises(WeightsError, match=r"rotation\.dense\.weight .*limit 65504"):
            save(net, folder)
    assert not folder.exists()


def test_loading_leaves_random_numbers_alone(net, folder):
    save(net, folder)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_network("pose", weights_dir=folder)
    assert torch.equal(torch.rand(3), expected)


def test_options_of_every_kind_come_back(tmp_path):
    options = {"size": 48, "width": 0.1, "deep": True, "kind": 'a "b"\n\\', "channels": (16, 32), "tiny": 1e-7}
    entry = Entry("a-b_1", "PoseNet", options, "a.safetensors", "0" * 64, "a.md", "free")
    (tmp_path / LISTING).write_text(listing_text({entry.name: entry}), encoding="utf-8")
    back = read_listing(tmp_path)[entry.name]
    assert back.options == options | {"channels": [16, 32]}
    assert (back.architecture, back.file, back.sha256, back.card, back.terms) == ("PoseNet", "a.safetensors", "0" * 64, "a.md", "free")
    for value in (float("nan"), {"a": 1}, None):
        with pytest.raises(WeightsError, match="cannot be written"):
            listing_text({"a": Entry("a", "PoseNet", {"x": value}, "f", "0", "c", "t")})


def test_every_class_of_the_registry_is_there():
    for name, module in weights.ARCHITECTURES.items():
        found = weights.build(name, {}, where="here")
        assert (type(found).__name__, type(found).__module__) == (name, f"posepipe.models.{module}")


def test_the_package_s_own_folder_is_whole(monkeypatch):
    """Every network that is shipped loads, has a card, and all of them together are small."""
    monkeypatch.undo()
    listed = read_listing(weights.PACKAGED)
    assert set(available()) == set(listed)
    for name, entry in listed.items():
        assert load_network(name).sha256 == entry.sha256
        assert (weights.PACKAGED / entry.card).read_text(encoding="utf-8").strip()
    expected = {LISTING, CALIBRATION} | {file for entry in listed.values() for file in (entry.file, entry.card)}
    assert {p.name for p in weights.PACKAGED.iterdir()} == expected
    assert sum(p.stat().st_size for p in weights.PACKAGED.iterdir()) < 60e6
