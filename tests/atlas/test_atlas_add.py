from __future__ import annotations

import argparse

import nibabel as nib
import numpy as np
import pytest
from atlas_helpers import own_caches, write_image, write_template  # noqa: F401 - own_caches acts by being here

from posepipe.atlas import AtlasLibrary, add, add_folder, choose_template
from posepipe.cli import atlas_command
from posepipe.errors import AtlasError, ImageError, UsageError
from posepipe.imaging.volume import Volume, load_volume, save_volume


def test_an_added_cohort_is_found_by_the_library(tmp_path):
    image = write_image(tmp_path / "t2.nii")
    mask = write_image(tmp_path / "mask.nii.gz", labels=True)
    template = add("Own", image=image, age=29.5, mask=mask, title='a "quoted" title')
    assert template.space == "Own+29p5"
    assert template.image.is_relative_to(tmp_path / "cache" / "posepipe" / "atlases")
    np.testing.assert_array_equal(load_volume(template.image).data, load_volume(image).data)
    library = AtlasLibrary.default()
    assert library.status("Own").title == 'a "quoted" title'
    assert choose_template(library, age=29, contrast="T2w").template == template


def test_voxels_that_are_not_finite_are_reported_and_taken_as_0(tmp_path, caplog):
    given = {"image": write_image(tmp_path / "t2.nii"), "mask": write_image(tmp_path / "mask.nii.gz", labels=True)}
    given["tissues"] = write_image(tmp_path / "tissues.nii.gz", labels=True)
    for path in given.values():
        volume = load_volume(path)
        data = volume.data.copy()
        data[0, 0, :3], data[4, 4, 4] = np.inf, np.nan
        save_volume(volume.with_data(data), path)
    with caplog.at_level("WARNING"):
        template = add("Own", **given, age=29.5)
    for path, kept in zip(given.values(), (template.image, template.mask, template.tissues), strict=True):
        assert f"{path}: 4 of 990 voxels (0.4 %) are NaN or infinite; they were set to 0" in caplog.text
        stored = np.asarray(nib.load(kept).dataobj)
        assert np.isfinite(stored).all() and stored[0, 0, 0] == stored[4, 4, 4] == 0


def test_a_doubtful_header_is_reported(tmp_path, caplog):
    image = nib.load(write_image(tmp_path / "t2.nii"))
    for code in (image.set_sform, image.set_qform):
        code(None, code=0)
    nib.save(image, tmp_path / "lost.nii")
    with caplog.at_level("WARNING"):
        add("Own", image=tmp_path / "lost.nii", age=29.5)
    assert f"{tmp_path / 'lost.nii'}: the header has neither qform nor sform" in caplog.text


def test_cohorts_and_contrasts_add_up(tmp_path):
    image = write_image(tmp_path / "image.nii.gz")
    for age, contrast in ((40, "T2w"), (40, "T1w"), (42, "T2w")):
        add("Own", image=image, age=age, contrast=contrast, dest=tmp_path / "lib")
    library = AtlasLibrary([tmp_path / "lib"])
    assert [t.cohort for t in library.templates("Own", "T2w")] == ["40", "42"]
    assert [t.cohort for t in library.templates("Own", "T1w")] == ["40"]
    assert library.stage("Own") == "neonatal"


def test_a_known_atlas_keeps_its_labels_and_ages(tmp_path):
    image = write_image(tmp_path / "image.nii.gz")
    assert add("BCP", image=image, age=53.03, contrast="T1w", dest=tmp_path / "lib").cohort == "03"
    with pytest.raises(UsageError, match="is 29 weeks, not 31"):
        add("CRL", image=image, age=31, cohort="29", dest=tmp_path / "lib")
    with pytest.raises(UsageError, match="is 29 weeks, not 31"):
        add("CRL", image=image, age=31, cohort="29", dest=tmp_path / "lib", force=True)


def test_what_is_there_needs_force(tmp_path):
    first, second = write_image(tmp_path / "a.nii.gz", seed=1), write_image(tmp_path / "b.nii.gz", seed=2)
    template = add("Own", image=first, age=29, dest=tmp_path / "lib")
    with pytest.raises(UsageError, match="--force"):
        add("Own", image=second, age=29, dest=tmp_path / "lib")
    np.testing.assert_array_equal(load_volume(template.image).data, load_volume(first).data)
    add("Own", image=second, age=29, dest=tmp_path / "lib", force=True)
    np.testing.assert_array_equal(load_volume(template.image).data, load_volume(second).data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my-atlas"}, "letters and digits"),
        ({"name": ""}, "letters and digits"),
        ({"name": "../up"}, "letters and digits"),
        ({"cohort": "29 wk"}, "letters and digits"),
        ({"age": float("nan")}, "not an age"),
        ({"contrast": "PD"}, "T1w or T2w"),
        ({"stage": "adult"}, "fetal or neonatal"),
    ],
)
def test_bad_names_and_options(tmp_path, changes, message):
    options = {"name": "Own", "image": write_image(tmp_path / "i.nii.gz"), "age": 29, "dest": tmp_path / "lib"}
    options |= changes
    with pytest.raises(UsageError, match=message):
        add(options.pop("name"), **options)
    assert not (tmp_path / "lib").exists()


def test_files_that_do_not_fit_leave_nothing(tmp_path):
    image = write_image(tmp_path / "image.nii.gz")
    shifted = write_image(tmp_path / "mask.nii.gz", labels=True, affine=np.diag([1.0, 1, 1, 1]))
    with pytest.raises(ImageError, match=r"mask\.nii\.gz: not on the grid"):
        add("Own", image=image, age=29, mask=shifted, dest=tmp_path / "lib")
    soft = Volume(np.linspace(0, 1, 990, dtype=np.float32).reshape(9, 10, 11), np.diag([0.8, 0.8, 0.8, 1]))
    with pytest.raises(ImageError, match="whole numbers"):
        add("Own", image=image, age=29, tissues=save_volume(soft, tmp_path / "p.nii.gz"), dest=tmp_path / "lib")
    with pytest.raises(ImageError, match="no such file"):
        add("Own", image=tmp_path / "gone.nii.gz", age=29, dest=tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


def test_a_folder_is_added_whole(tmp_path):
    write_template(tmp_path / "got", "Serag", "30", "T1w", "T2w", mask=True, tissues=True)
    write_template(tmp_path / "got", "Serag", "31", "T1w", "T2w", mask=True)
    for folder in (tmp_path / "got", tmp_path / "got" / "tpl-Serag"):
        added = add_folder("Serag", folder, dest=tmp_path / f"lib-{folder.name}")
        assert {(t.cohort, t.contrast) for t in added} == {(c, k) for c in ("30", "31") for k in ("T1w", "T2w")}
        assert all(t.mask is not None for t in added)
        assert {t.cohort for t in added if t.tissues} == {"30"}
    with pytest.raises(AtlasError, match="no folder tpl-Nope"):
        add_folder("Nope", tmp_path / "got")
    (tmp_path / "got" / "tpl-Nope").mkdir()
    with pytest.raises(AtlasError, match="no image posepipe can use"):
        add_folder("Nope", tmp_path / "got")


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    atlas_command.add_arguments(parser.add_subparsers(dest="command"))
    return atlas_command.run(parser.parse_args(["atlas", *map(str, words)]))


def test_command_add_then_list(tmp_path, capsys):
    image = write_image(tmp_path / "image.nii.gz")
    mask = write_image(tmp_path / "mask.nii.gz", labels=True)
    lib = tmp_path / "lib"
    assert command("add", "Own", "--image", image, "--age", "29", "--mask", mask, "--atlas-dir", lib) == 0
    assert "added Own+29 T2w (29 weeks)" in capsys.readouterr().out
    assert command("list", "--atlas-dir", lib) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("Own "))
    assert row.split()[:5] == ["Own", "fetal", "29–29", "T2w", "1/1"]
    assert str(lib) in row
    assert "CRL is not on this machine. Get it: `posepipe-tools atlas fetch CRL --accept-license`" in out
    assert "Own is" not in out


def test_command_add_folder_and_its_refusals(tmp_path, capsys):
    write_template(tmp_path / "got", "Serag", "30", "T1w")
    assert command("add", "Serag", "--folder", tmp_path / "got", "--atlas-dir", tmp_path / "lib") == 0
    assert "Serag+30" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--age cannot be used with --folder"):
        command("add", "Serag", "--folder", tmp_path / "got", "--age", "30")
    with pytest.raises(UsageError, match="--image needs --age"):
        command("add", "Own", "--image", tmp_path / "i.nii.gz")


def test_command_fetch_refuses_without_the_licence(tmp_path, capsys):
    with pytest.raises(UsageError, match="--accept-license"):
        command("fetch", "CRL", "--atlas-dir", tmp_path / "lib")
    assert "Gholipour" in capsys.readouterr().err
