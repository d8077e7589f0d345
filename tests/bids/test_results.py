"""Results identified by their file names: which are current, and which files are removed with superseded ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from posepipe.bids import InputImage, OutputNames, current, remove_superseded, results_in, write_json

Make = Callable[..., OutputNames]


@pytest.fixture(params=["", "_desc-preproc"], ids=["raw", "desc"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """``make(atlas, cohort, age, synth=False)``: the files of a result, the reoriented image among them, which is of the last one made."""
    relative = Path(f"sub-01/ses-1/anat/sub-01_ses-1_rec-svr{request.param}_T1w.nii.gz")
    entities = {"sub": "01", "ses": "1", "rec": "svr", **({"desc": "preproc"} if request.param else {})}
    image = InputImage(tmp_path / "bids" / relative, relative, entities, "T1w")

    def made(atlas: str, cohort: str | None, age: float, *, synth: bool = False, further: bool = False) -> OutputNames:
        names = OutputNames(tmp_path / "out", image, (atlas, cohort), further)
        for path in names.files(synth=synth):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        more = ({"ContrastConversion": "contrast"} if synth else {}) | ({"NamedBySpace": True} if further else {})
        write_json(names.sidecar(names.forward), {"Age": age, **more})
        write_json(names.sidecar(names.reoriented), {"Transform": f"bids::{relative.parent}/{names.forward.name}"})
        return names

    return made


def spaces(names: OutputNames) -> list[str]:
    return sorted(result.names.template for result in results_in(names.out_dir, names.folder))


def test_results_are_identified_by_their_names(make: Make) -> None:
    """Of images with a ``desc`` too, which comes last in the name of a transform."""
    made = [make("CRL", "29", 29.0), make("CRL", "31", 31.0), make("Serag", None, 31.0)]
    results = results_in(made[0].out_dir, made[0].folder)
    assert [result.names.template for result in results] == ["CRL+29", "CRL+31", "Serag"]
    assert [result.names.files() for result in results] == [names.files() for names in made]
    assert {result.stem for result in results} == {made[0].image.path.name.partition(".")[0]}


def test_one_result_counts_for_an_image_and_atlas(make: Make) -> None:
    last = make("CRL", "31", 31.0)
    other = make("Serag", None, 31.0)
    old = make("CRL", "29", 29.0)
    kept, older = current(results_in(old.out_dir, old.folder))
    assert {r.names.template for r in kept} == {"CRL+29", "Serag"} and [r.names.template for r in older] == ["CRL+31"]
    write_json(old.sidecar(old.reoriented), {"Transform": f"bids::x/{last.forward.name}"})  # that is what tells, not the time
    assert {r.names.template for r in current(results_in(old.out_dir, old.folder))[0]} == {"CRL+31", "Serag"}
    write_json(old.sidecar(old.reoriented), {"Transform": f"bids::x/{other.forward.name}"})
    os.utime(last.sidecar(last.forward), ns=(0, 0))
    assert {r.names.template for r in current(results_in(old.out_dir, old.folder))[0]} == {"CRL+29", "Serag"}


def test_what_is_superseded_goes_with_all_its_files_and_no_others(make: Make) -> None:
    make("CRL", "29", 29.0, synth=True)
    make("Serag", None, 31.0)
    now = make("CRL", "31", 31.0)
    stranger = now.folder / "sub-01_ses-1_rec-svr_run-2_from-T1w_to-CRL+29_mode-image_xfm.json"
    write_json(stranger, {"Age": 29.0})
    assert remove_superseded(now, now.files(), lambda atlas, sidecar: sidecar.get("Age") != 31.0) == ["CRL+29"]
    assert spaces(now) == ["CRL+29", "CRL+31", "Serag"] and stranger.exists()  # the 29 is the stranger's
    assert not any("synth" in path.name or "cohort-29" in path.name for path in now.folder.iterdir())
    assert remove_superseded(now, now.files(), lambda atlas, sidecar: True) == ["Serag"]
    assert sorted(now.folder.iterdir()) == sorted([*now.files(), stranger])


def test_results_at_the_atlases_of_one_run_leave_each_other_alone(make: Make) -> None:
    first, further = make("CRL", "31", 31.0), make("Serag", "31", 31.0, further=True)
    there = sorted(first.folder.iterdir())
    assert {r.names.template for r in current(results_in(first.out_dir, first.folder))[0]} == {"CRL+31", "Serag+31"}
    for names in (first, further):
        assert remove_superseded(names, [*first.files(), *further.files()], lambda atlas, sidecar: False) == []
        assert sorted(first.folder.iterdir()) == there
    assert remove_superseded(first, first.files(), lambda atlas, sidecar: True) == ["Serag+31"]
    assert sorted(first.folder.iterdir()) == sorted(first.files())


def test_first_atlas_that_was_a_further_one_leaves_none_of_the_names_of_then(make: Make) -> None:
    make("Serag", "31", 31.0, further=True)
    now = make("Serag", "31", 31.0)
    assert remove_superseded(now, now.files(), lambda atlas, sidecar: True) == []
    assert sorted(now.folder.iterdir()) == sorted(now.files())


def test_conversion_of_a_result_that_stays_stays(make: Make) -> None:
    make("Serag", "31", 31.0, synth=True)
    now = make("CRL", "31", 31.0)
    assert remove_superseded(now, now.files(), lambda atlas, sidecar: atlas == "CRL") == []
    assert now.synth.exists() and spaces(now) == ["CRL+31", "Serag+31"]


def test_result_that_cannot_be_read_is_superseded_by_its_name(make: Make) -> None:
    old = make("CRL", "29", 29.0)
    now = make("CRL", "31", 31.0)
    old.sidecar(old.forward).write_text("{", encoding="utf-8")
    seen = []
    assert remove_superseded(now, now.files(), lambda atlas, sidecar: bool(seen.append((atlas, dict(sidecar)))) or True) == ["CRL+29"]
    assert seen == [("CRL", {})] and spaces(now) == ["CRL+31"]
