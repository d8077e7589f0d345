from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from atlas_helpers import own_caches, write_image, write_template  # noqa: F401 - own_caches acts by being here

from posepipe.atlas import AtlasLibrary, CanonicalRotation, choose_template, load_manifests
from posepipe.atlas import library as lookup
from posepipe.atlas.library import cache_home
from posepipe.atlas.sidecars import file_sha256
from posepipe.errors import AtlasError, UsageError
from posepipe.geometry import so3
from posepipe.imaging.volume import Volume, save_volume


def test_a_template_with_its_mask_and_labels(tmp_path):
    image = write_template(tmp_path, "CRL", "29", mask=True, tissues=True)
    template = AtlasLibrary([tmp_path]).template("CRL", "29", "T2w")
    assert template.image == image
    assert template.mask is not None
    assert template.mask.name == "tpl-CRL_cohort-29_desc-brain_mask.nii.gz"
    assert template.tissues is not None
    assert (template.age, template.space, template.contrast) == (29.0, "CRL+29", "T2w")


def known_as(monkeypatch, *images, atlas="CRL", cohort="29"):
    """Have the rotation of a cohort known by the hashes of these images; the rotation."""
    rotation = so3.exp([0.1, -0.2, 0.3])
    known = {(atlas, cohort): CanonicalRotation(rotation, frozenset(map(file_sha256, images)))}
    monkeypatch.setattr("posepipe.atlas.library.load_canonical", lambda: known)
    return rotation


def test_a_known_rotation_is_that_of_the_image_it_was_measured_on(tmp_path, monkeypatch):
    image = write_template(tmp_path / "a", "CRL", "29")
    rotation = known_as(monkeypatch, image)
    template = AtlasLibrary([tmp_path / "a"]).template("CRL", "29", "T2w")
    np.testing.assert_array_equal(template.to_canonical, rotation)
    assert template.notes == ()
    other = write_template(tmp_path / "b", "CRL", "29")
    write_image(other, seed=5)
    template = AtlasLibrary([tmp_path / "b"]).template("CRL", "29", "T2w")
    assert template.to_canonical is None
    choice = choose_template(AtlasLibrary([tmp_path / "b"]), age=29, contrast="T2w", atlas="CRL")
    assert choice.warnings == template.notes
    assert "rotation to the canonical frame" in choice.warnings[0] and "atlas fetch CRL" in choice.warnings[0]


def test_the_atlases_at_hand_are_those_whose_rotations_are_known(data_dir):
    here = AtlasLibrary([data_dir / "atlases"])
    templates = [t for name in ("CRL", "CHN", "FidonSBA", "Serag", "BCP") for c in here.contrasts(name) for t in here.templates(name, c)]
    assert len(templates) > 67
    assert all(t.to_canonical is not None for t in templates)


def test_without_a_home_the_cache_is_a_folder_of_ones_own(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # no such user
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 4711)
    lookup._cache_without_home.cache_clear()
    with caplog.at_level("WARNING"):
        assert cache_home() == cache_home() == tmp_path / "posepipe-cache-4711"
    (record,) = caplog.records
    assert "no home folder" in record.message and "XDG_CACHE_HOME" in record.message
    AtlasLibrary.default()
    assert list(tmp_path.iterdir()) == []  # looking makes nothing
    (tmp_path / "posepipe-cache-4711").mkdir()  # by another user: this process is not 4711
    lookup._cache_without_home.cache_clear()
    assert cache_home().name.startswith("posepipe-cache-4711-")
    lookup._cache_without_home.cache_clear()


def test_lookup_order(tmp_path, monkeypatch):
    places = {
        "fetched": tmp_path / "cache" / "posepipe" / "atlases",
        "flow": tmp_path / "flow",
        "env2": tmp_path / "env2",
        "env1": tmp_path / "env1",
        "extra": tmp_path / "extra",
    }
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(places["flow"]))
    monkeypatch.setenv("POSEPIPE_ATLAS_PATH", os.pathsep.join([str(places["env1"]), str(places["env2"])]))
    for place in places.values():  # from the last looked at to the first: each takes over from the one before
        image = write_template(place, "CRL", "29")
        extra = [place] if place == places["extra"] else []
        assert AtlasLibrary.default(extra).template("CRL", 29, "T2w").image == image


def test_cohorts_of_two_folders_are_one_atlas(tmp_path):
    first = write_template(tmp_path / "a", "CRL", "29")
    write_template(tmp_path / "b", "CRL", "29", mask=True)
    second = write_template(tmp_path / "b", "CRL", "30", mask=True)
    library = AtlasLibrary([tmp_path / "a", tmp_path / "b"])
    templates = library.templates("CRL", "T2w")
    assert [t.image for t in templates] == [first, second]
    assert templates[0].mask is None  # a mask of another folder may lie on another grid
    assert library.status("CRL").where == (tmp_path / "a", tmp_path / "b")


def test_empty_files_and_broken_links_are_absent(tmp_path):
    folder = tmp_path / "tpl-dhcpVol" / "cohort-40"
    folder.mkdir(parents=True)
    (folder / "tpl-dhcpVol_cohort-40_T2w.nii.gz").touch()
    (folder / "tpl-dhcpVol_cohort-40_T1w.nii.gz").symlink_to(tmp_path / "gone")
    library = AtlasLibrary([tmp_path])
    with pytest.raises(AtlasError, match="atlas fetch dhcpVol"):
        library.template("dhcpVol", "40", "T2w")
    later = tmp_path / "later"
    image = write_template(later, "dhcpVol", "40", "T1w")
    assert AtlasLibrary([tmp_path, later]).template("dhcpVol", "40", "T1w").image == image


def test_a_template_in_two_files_is_read_from_the_packed_one(tmp_path, caplog):
    packed = write_template(tmp_path, "dhcpVol", "40", "T2w", mask=True)
    for path in packed.parent.iterdir():
        write_image(path.with_suffix(""), seed=3)
    template = AtlasLibrary([tmp_path]).template("dhcpVol", "40", "T2w")
    mask = packed.with_name("tpl-dhcpVol_cohort-40_desc-brain_mask.nii.gz")
    assert (template.image, template.mask) == (packed, mask)
    for path in (packed, mask):
        assert f"{path.with_suffix('')}: left out, as {path.name} is beside it" in caplog.text


def test_finest_resolution_by_voxel_size_not_by_number(tmp_path):
    folder = tmp_path / "tpl-CRL" / "cohort-29"
    for res, size in (("1", 2.0), ("2", 0.5), ("3", 1.0)):
        data = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
        for file in ("T2w", "desc-brain_mask"):
            save_volume(
                Volume(data, np.diag([size] * 3 + [1])), folder / f"tpl-CRL_cohort-29_res-{res}_{file}.nii.gz"
            )
    template = AtlasLibrary([tmp_path]).template("CRL", "29", "T2w")
    assert "_res-2_" in template.image.name
    assert template.mask is not None
    assert "_res-2_" in template.mask.name


def test_files_without_cohort_folders(tmp_path):
    write_image(tmp_path / "tpl-CRL" / "tpl-CRL_cohort-30_T2w.nii")
    assert AtlasLibrary([tmp_path]).template("CRL", "30", "T2w").age == 30


def test_other_images_of_a_cohort_are_not_the_template(tmp_path):
    folder = tmp_path / "tpl-CRL" / "cohort-29"
    write_image(folder / "tpl-CRL_cohort-29_desc-std_T2w.nii.gz")
    write_image(folder / "tpl-Other_cohort-29_T2w.nii.gz")
    with pytest.raises(AtlasError, match="not on this machine"):
        AtlasLibrary([tmp_path]).template("CRL", "29", "T2w")


def test_templateflow_description_gives_ages(tmp_path):
    for cohort in ("1", "2", "3"):
        write_template(tmp_path, "Infant", cohort, "T1w")
    description = {
        "Name": "Infants",
        "cohort": {
            "1": {"age": [38.0, 46.0], "units": "weeks"},
            "2": {"age": 3, "units": "months"},
            "3": {"age": [1], "units": "yr"},
        },
    }
    (tmp_path / "tpl-Infant" / "template_description.json").write_text(json.dumps(description))
    library = AtlasLibrary([tmp_path])
    ages = {t.cohort: t.age for t in library.templates("Infant", "T1w")}
    assert ages == {"1": 42.0, "2": pytest.approx(53.035), "3": pytest.approx(92.14)}
    with pytest.raises(AtlasError, match="only T1w"):
        library.templates("Infant", "T2w")


def test_folder_without_ages_says_what_it_needs(tmp_path):
    write_template(tmp_path, "Mine", "29")
    with pytest.raises(AtlasError, match=r"age of each cohort"):
        AtlasLibrary([tmp_path]).templates("Mine", "T2w")


def test_broken_description_names_the_file(tmp_path):
    write_template(tmp_path, "Mine", "29")
    (tmp_path / "tpl-Mine" / "template_description.json").write_text("{")
    with pytest.raises(AtlasError, match=r"template_description\.json"):
        AtlasLibrary([tmp_path]).templates("Mine", "T2w")


def test_unknown_names_and_cohorts(tmp_path):
    write_template(tmp_path, "CRL", "29")
    library = AtlasLibrary([tmp_path])
    with pytest.raises(AtlasError, match="did you mean CRL"):
        library.templates("crl", "T2w")
    with pytest.raises(AtlasError, match=r"cohort 30 on this machine \(here: 29\); get it: .*atlas fetch CRL"):
        library.template("CRL", "30", "T2w")
    with pytest.raises(AtlasError, match=r"looked in"):
        library.templates("../etc", "T2w")
    with pytest.raises(UsageError, match="T1w or T2w"):
        library.templates("CRL", "T2")


def test_numbers_name_the_same_cohort(tmp_path):
    write_template(tmp_path, "BCP", "00", "T1w")
    assert AtlasLibrary([tmp_path]).template("BCP", 0, "T1w").cohort == "00"


def test_atlas_dir_that_is_no_library(tmp_path):
    write_template(tmp_path, "CRL", "29")
    with pytest.raises(UsageError, match="no such folder"):
        AtlasLibrary.default([tmp_path / "nowhere"])
    with pytest.raises(UsageError, match=f"did you mean {tmp_path}"):
        AtlasLibrary.default([tmp_path / "tpl-CRL"])


def test_available_lists_all_known_and_added_ones(tmp_path):
    write_template(tmp_path, "CRL", "29")
    write_template(tmp_path, "Own", "x1")
    (tmp_path / "tpl-Own" / "atlas.toml").write_text('title = "Own"\nstage = "fetal"\n[cohorts.x1]\nage = 31.5\n')
    rows = {s.name: s for s in AtlasLibrary([tmp_path]).available()}
    assert set(rows) == {*load_manifests(), "Own"}
    assert (rows["CRL"].found, rows["CRL"].total, rows["CRL"].is_complete) == (("29",), 18, False)
    assert (rows["Own"].found, rows["Own"].weeks, rows["Own"].is_complete) == (("x1",), (31.5, 31.5), True)
    assert rows["Serag"].found == ()
    assert rows["Serag"].contrasts == ("T1w", "T2w")


def test_looking_up_one_atlas_reads_no_other_folder(tmp_path):
    """A TemplateFlow home holds many atlases: asking for one must not walk the others."""
    write_template(tmp_path, "CRL", "29")
    other = tmp_path / "tpl-MNI152Lin"
    other.mkdir()
    (other / "template_description.json").write_text("{ broken")
    assert AtlasLibrary([tmp_path]).template("CRL", "29", "T2w").age == 29
    assert all(s.name != "MNI152Lin" for s in AtlasLibrary([tmp_path]).available())


def test_lookup_imports_neither_templateflow_nor_torch_nor_nipype(tmp_path):
    write_template(tmp_path, "CRL", "29")
    code = (
        "import sys; from posepipe.atlas import AtlasLibrary, choose_template\n"
        f"library = AtlasLibrary.default([{str(tmp_path)!r}])\n"
        "print(choose_template(library, age=29, contrast='T2w').template.space)\n"
        "print(sorted({'templateflow', 'nipype', 'bids', 'pooch', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["CRL+29", "[]"]
    assert not (tmp_path / "cache" / "templateflow").exists()


def test_the_real_atlases(data_dir):
    library = AtlasLibrary([data_dir / "atlases"])
    for name in ("CRL", "FidonSBA", "CHN", "Serag", "BCP"):
        status = library.status(name)
        assert status.is_complete, name
        templates = library.templates(name, "T2w")
        assert [t.age for t in templates] == sorted(load_manifests()[name].ages.values())
        assert all(t.mask is not None for t in templates)
        assert all(t.tissues is not None for t in templates) == (name != "BCP")
        assert library.contrasts(name) == load_manifests()[name].contrasts
