"""Sources: brains are upright in the canonical frame, test brains are left out, and files have the stated content."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe import phantom
from posepipe.atlas import AtlasLibrary
from posepipe.errors import UsageError
from posepipe.geometry import Rigid, random_rotations
from posepipe.imaging.mask import nonzero_mask
from posepipe.imaging.volume import load_volume
from posepipe.training.sources import LEFT, SIDE, Collector, Sources
from posepipe.training.split import Split, load_split
from posepipe.training.subjects import Reference, add_label_maps, add_templates

NOBODY = Split(frozenset(), frozenset())


def silent(_: str) -> None:
    """A ``say`` that ignores its messages."""


def test_what_was_gathered(gathered: Any) -> None:
    names = {p.name: p.part for p in gathered.sources.volumes}
    assert names == {
        "Phantom+24": "train", "Phantom+30": "validation", "Phantom+38": "train", "sub-03": "train",
    }  # fmt: skip
    for name in ("Phantom+36", "sub-01", "sub-02_ses-1", "sub-02_ses-2"):
        assert f"{name}: left out, kept for testing" in gathered.output
    assert gathered.sources.terms == {"Phantom": "CC0", "bids": "non-commercial research"}
    kinds = {(p.name, p.kind) for p in gathered.sources.volumes}
    assert {("sub-03", "T1w"), ("sub-03", "T2w"), ("Phantom+24", "labels")} <= kinds
    assert gathered.sources.voxels.shape == (11, SIDE, SIDE, SIDE) and gathered.sources.masks.shape == (4, SIDE, SIDE, SIDE)


def test_a_rotated_phantom_gives_the_same_source_volume() -> None:
    labels = phantom.brain_labels(29, 2.0)
    image, mask = phantom.render(labels, 29), phantom.brain_mask(labels)
    pose = Rigid(random_rotations(1, np.random.default_rng(4))[0], np.array([12.0, -30, 7]))
    made = Collector(NOBODY, silent)
    made.add("still", "a", 29, mask, np.eye(3), {"T2w": image}, {"tissues": labels})
    turned = {"T2w": image.moved(pose)}
    made.add("turned", "a", 29, mask.moved(pose), pose.rotation.T, turned, {"tissues": labels.moved(pose)})
    made.add("wrong", "a", 29, mask.moved(pose), np.eye(3), turned, {})
    found = made.sources()
    still, upright, wrong = (next(i for i, p in enumerate(found.volumes) if p.name == n) for n in ("still", "turned", "wrong"))
    assert np.abs(found.voxels[still].astype(int) - found.voxels[upright]).max() <= 1
    assert np.abs(found.masks[0].astype(int) - found.masks[1]).max() <= 1
    assert (found.voxels[still + 1] == found.voxels[upright + 1]).mean() > 0.999  # labels
    assert np.abs(found.voxels[still].astype(int) - found.voxels[wrong]).mean() > 10


def test_left_of_the_head_has_labels_of_its_own(sources: Sources) -> None:
    row = next(i for i, p in enumerate(sources.volumes) if p.kind == "labels")
    source = sources.voxels[row]
    left, right = source[: SIDE // 2], source[SIDE // 2 :]
    assert (left[left > 0] >= LEFT).all() and (right < LEFT).all()
    # the phantom is nearly alike on both sides
    assert set(np.unique(left[left > 0]) - LEFT) == set(np.unique(right[right > 0]))


def test_subjects_are_turned_upright(demo: Any) -> None:
    reference = Reference(AtlasLibrary([demo.atlas_dir]), "Phantom")
    with demo.truth_tsv.open(newline="") as file:
        row = next(r for r in csv.DictReader(file, delimiter="\t") if "sub-03_T2w" in r["file"])
    image = load_volume(demo.bids_dir / row["file"])
    rotation = reference.upright(image, nonzero_mask(image).volume, float(row["age_weeks"]))
    truth = Rigid.from_rotvec([float(row[k]) for k in ("rx", "ry", "rz")])
    assert truth.angle_degrees > 60
    assert Rigid(rotation @ truth.rotation, np.zeros(3)).angle_degrees < 5


def test_label_maps_get_their_pose_from_a_stand_in(demo: Any, tmp_path: Path) -> None:
    from posepipe.imaging.volume import save_volume

    pose = Rigid(random_rotations(1, np.random.default_rng(1))[0], np.zeros(3))
    anat = tmp_path / "maps" / "sub-9" / "anat"
    anat.mkdir(parents=True)
    save_volume(phantom.brain_labels(38, 2.0).moved(pose), anat / "sub-9_desc-tissues_dseg.nii.gz")
    (tmp_path / "maps" / "participants.tsv").write_text("participant_id\tga_weeks\nsub-9\t38\n")
    (tmp_path / "maps" / "dataset_description.json").write_text('{"License": "PDDL"}')
    reference = Reference(AtlasLibrary([demo.atlas_dir]), "Phantom")
    made = Collector(NOBODY, silent)
    assert add_label_maps(made, tmp_path / "maps", reference) == 1
    add_templates(made, reference.library, ["Phantom"], reference)
    found = made.sources()
    assert found.terms["maps"] == "PDDL"
    mine, theirs = (next(i for i, p in enumerate(found.volumes) if p.name == n and p.kind == "labels") for n in ("sub-9", "Phantom+38"))
    assert (found.voxels[mine] == found.voxels[theirs])[found.voxels[theirs] > 0].mean() > 0.8
    with pytest.raises(UsageError, match="no label maps"):
        add_label_maps(made, demo.bids_dir, reference)


def test_label_maps_that_are_not_finite_are_reported(demo: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from posepipe.imaging.volume import save_volume

    anat = tmp_path / "maps" / "sub-9" / "anat"
    anat.mkdir(parents=True)
    labels = phantom.brain_labels(38, 2.0)
    data = labels.data.astype(np.float32)
    data[0, 0, :2] = np.nan
    path = save_volume(labels.with_data(data), anat / "sub-9_desc-tissues_dseg.nii.gz")
    (tmp_path / "maps" / "participants.tsv").write_text("participant_id\tga_weeks\nsub-9\t38\n")
    with caplog.at_level("WARNING"):
        assert add_label_maps(Collector(NOBODY, silent), tmp_path / "maps", Reference(AtlasLibrary([demo.atlas_dir]), "Phantom")) == 1
    assert f"{path}: 2 of " in caplog.text and "NaN or infinite" in caplog.text


def test_an_atlas_of_unknown_pose_needs_a_reference(demo: Any) -> None:
    messages: list[str] = []
    made = Collector(NOBODY, messages.append)
    add_templates(made, AtlasLibrary([demo.atlas_dir]), ["Phantom"])
    assert len(messages) == 4 and all("--reference" in line for line in messages)
    with pytest.raises(UsageError, match="no source volumes"):
        made.sources()


def test_too_many_labels_are_reported() -> None:
    labels = phantom.brain_labels(29, 3.0)
    many = labels.with_data(np.arange(labels.data.size).reshape(labels.shape).astype(np.float32))
    messages: list[str] = []
    made = Collector(NOBODY, messages.append)
    made.add("a", "a", 29, phantom.brain_mask(labels), np.eye(3), {}, {"rich": many, "plain": labels})
    assert "rich: left out" in messages[0] and len(made.sources().volumes) == 1


def test_picking(sources: Sources) -> None:
    assert {sources.volumes[r].group for r in sources.pick(leave_out=("bids",))} == {"Phantom"}
    assert {sources.volumes[r].part for r in sources.pick(part="validation")} == {"validation"}
    assert {sources.volumes[r].kind for r in sources.pick(kinds=("T1w",))} == {"T1w"}
    with pytest.raises(UsageError, match="the sources hold Phantom, bids"):
        sources.pick(leave_out=("Phantm",))
    with pytest.raises(UsageError, match="have no labels to train"):
        sources.pick(leave_out=("Phantom",), kinds=("labels",))


def test_files_that_are_no_sources(gathered: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a file of training sources"):
        Sources.load(tmp_path / "none.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(gathered.path.read_bytes()[:5000])
    with pytest.raises(UsageError, match=r"cut\.npz: not a file of training sources"):
        Sources.load(cut)
    with pytest.raises(UsageError, match="npz"):
        gathered.sources.save(tmp_path / "pack")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.npz"]


def test_the_split_of_posepipe_s_own_weights() -> None:
    split = load_split()
    assert all(split.part(f"sub-A{n}") == "test" for n in range(13, 17)) and split.part("sub-f234") == "test"
    assert all(split.part(f"sub-A{n:02d}") == "train" for n in range(1, 11))
    assert {"sub-A11", "CRL+27"} <= split.validation and not split.validation & split.test


@pytest.mark.parametrize(
    ("text", "words"), [("[test", "not a split file"), ("[test]\nsubjects=['a']\n[validation]\nsubjects=['a']", "a in both")]
)
def test_splits_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "split.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_split(path)


def test_real_atlases_agree_on_what_is_upright(data_dir: Path) -> None:
    """The stored rotation of one atlas against a registration to another."""
    library = AtlasLibrary([data_dir / "atlases"])
    template = library.template("CHN", "30", "T2w")
    assert template.mask is not None and template.to_canonical is not None
    rotation = Reference(library, "CRL").upright(load_volume(template.image), load_volume(template.mask), 30)
    assert Rigid(rotation @ template.to_canonical.T, np.zeros(3)).angle_degrees < 4
