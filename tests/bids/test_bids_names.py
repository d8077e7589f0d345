from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path

import pytest
from bidsschematools.schema import load_schema
from hypothesis import given
from hypothesis import strategies as st

from posepipe.bids import InputImage, OutputNames, collisions, duplicates, find_images, subject_page
from posepipe.bids.entities import ENTITIES, in_order, join_name, split_name
from posepipe.settings import OUTPUT_LEVELS

OUT = Path("/out")
LABELS = st.text(string.ascii_letters + string.digits + "+", min_size=1, max_size=6)
# entities that an input may carry; from, to and mode belong to transforms
INPUT_KEYS = [short for short, _ in ENTITIES if short not in {"sub", "tpl", "from", "to", "mode"}]
ENTITY_SETS = st.dictionaries(st.sampled_from(INPUT_KEYS), LABELS, max_size=5)


@pytest.fixture
def outputs(image_of, tmp_path):
    def make(name, atlas="CRL", cohort="29"):
        split = split_name(name)
        assert split is not None
        folder = "/".join(f"{key}-{split.entities[key]}" for key in ("sub", "ses") if key in split.entities)
        return OutputNames(OUT, image_of(tmp_path, f"{folder}/anat/{name}"), (atlas, cohort))

    return make


def test_names_of_a_reconstruction(outputs):
    names = outputs("sub-01_rec-svr_T2w.nii.gz")
    anat = OUT / "sub-01" / "anat"
    assert names.forward == anat / "sub-01_rec-svr_from-T2w_to-CRL+29_mode-image_xfm.txt"
    assert names.backward == anat / "sub-01_rec-svr_from-CRL+29_to-T2w_mode-image_xfm.txt"
    assert names.sidecar(names.forward) == anat / "sub-01_rec-svr_from-T2w_to-CRL+29_mode-image_xfm.json"
    assert names.resampled == anat / "sub-01_rec-svr_space-CRL_cohort-29_T2w.nii.gz"
    assert names.reoriented == anat / "sub-01_rec-svr_desc-reoriented_T2w.nii.gz"
    assert names.mask == anat / "sub-01_rec-svr_desc-brain_mask.nii.gz"
    assert names.sidecar(names.mask) == anat / "sub-01_rec-svr_desc-brain_mask.json"
    assert names.log_dir("20240101-1") == OUT / "sub-01" / "log" / "20240101-1"
    assert names.subject_page == OUT / "sub-01.html"
    assert names.slices == anat / "sub-01_rec-svr_desc-slices_pose.tsv"
    assert names.synth not in names.files() and names.slices not in names.files()


def test_names_of_a_newborn_session(outputs):
    names = outputs("sub-01_ses-1_T1w.nii", atlas="Serag", cohort="40")
    anat = OUT / "sub-01" / "ses-1" / "anat"
    assert names.forward == anat / "sub-01_ses-1_from-T1w_to-Serag+40_mode-image_xfm.txt"
    assert names.resampled == anat / "sub-01_ses-1_space-Serag_cohort-40_T1w.nii.gz"
    assert names.mask == anat / "sub-01_ses-1_mod-T1w_desc-brain_mask.nii.gz"
    assert names.synth == anat / "sub-01_ses-1_desc-synth_T2w.nii.gz"
    assert names.log_dir("r") == OUT / "sub-01" / "ses-1" / "log" / "r"
    assert subject_page(OUT, "01", "1") == names.subject_page == OUT / "sub-01_ses-1.html"
    assert {names.synth, names.sidecar(names.synth)} == set(names.files(synth=True)) - set(names.files())
    assert names.slices == anat / "sub-01_ses-1_mod-T1w_desc-slices_pose.tsv"
    assert {names.slices, names.sidecar(names.slices)} == set(names.files(slices=True)) - set(names.files())


def test_an_atlas_without_cohorts(outputs):
    names = outputs("sub-01_T2w.nii.gz", atlas="X", cohort=None)
    assert names.forward.name == "sub-01_from-T2w_to-X_mode-image_xfm.txt"
    assert names.resampled.name == "sub-01_space-X_T2w.nii.gz"


def test_names_at_a_further_atlas_of_several_tell_its_space(outputs):
    first = outputs("sub-01_ses-1_T1w.nii", atlas="CRL", cohort="29")
    names = replace(outputs("sub-01_ses-1_T1w.nii", atlas="Serag", cohort="30"), further=True)
    assert names.reoriented.name == "sub-01_ses-1_space-Serag_cohort-30_desc-reoriented_T1w.nii.gz"
    assert names.slices.name == "sub-01_ses-1_mod-T1w_space-Serag_cohort-30_desc-slices_pose.tsv"
    assert names.labels("tissues").name == "sub-01_ses-1_mod-T1w_seg-Serag+30+tissues_desc-atlas_dseg.nii.gz"
    shared = set(names.every_file) & set(first.every_file)
    assert shared == {path for one in (first.mask, first.synth) for path in (one, first.sidecar(one))}
    own = replace(outputs("sub-01_space-T2w_res-05_desc-preproc_T2w.nii.gz", atlas="X", cohort=None), further=True)
    assert own.reoriented.name == "sub-01_space-X_desc-spaceT2w+res05+preproc+reoriented_T2w.nii.gz"


def test_lower_levels_are_parts_of_the_full_one(outputs):
    names = outputs("sub-01_T1w.nii.gz")
    made = {level: set(names.files(synth=True, slices=True, level=level)) for level in OUTPUT_LEVELS}
    assert made["full"] == set(names.files(synth=True, slices=True))
    assert made["header"] - made["transforms"] == {names.reoriented, names.sidecar(names.reoriented)}
    paths = (names.forward, names.backward, names.slices)
    assert made["transforms"] == {*paths, *map(names.sidecar, paths)} < made["header"] < made["full"]


def test_entities_of_the_grid_and_the_description_are_kept(outputs):
    names = outputs("sub-01_space-T2w_res-05_desc-preproc_T1w.nii.gz")
    assert names.resampled.name == "sub-01_space-CRL_cohort-29_desc-spaceT2w+res05+preproc_T1w.nii.gz"
    assert names.reoriented.name == "sub-01_space-T2w_res-05_desc-preproc+reoriented_T1w.nii.gz"
    assert names.mask.name == "sub-01_mod-T1w_space-T2w_res-05_desc-preproc+brain_mask.nii.gz"
    assert names.forward.name == "sub-01_space-T2w_res-05_from-T1w_to-CRL+29_mode-image_desc-preproc_xfm.txt"


def test_unknown_entities_are_kept(outputs):
    assert (
        outputs("sub-01_rec-svr_site-A_T2w.nii.gz").reoriented.name
        == "sub-01_rec-svr_site-A_desc-reoriented_T2w.nii.gz"
    )


ALIKE = [
    "sub-01_T1w.nii.gz",
    "sub-01_T2w.nii.gz",
    "sub-01_rec-svr_T2w.nii.gz",
    "sub-01_rec-svr_desc-preproc_T2w.nii.gz",
    "sub-01_rec-svr_desc-preproc_T1w.nii.gz",
    "sub-01_rec-svr_space-T1w_desc-preproc_T2w.nii.gz",
    "sub-01_rec-svr_res-05_T2w.nii.gz",
    "sub-01_rec-svr_res-08_T2w.nii.gz",
    "sub-01_run-1_T2w.nii.gz",
    "sub-01_run-01_T2w.nii.gz",
    "sub-01_ses-1_T2w.nii.gz",
]


def test_inputs_that_are_alike_do_not_collide(outputs):
    made = [outputs(name) for name in ALIKE]
    assert not collisions([(names.image, names.files(synth=names.image.suffix == "T1w")) for names in made])
    assert not duplicates(names.image for names in made)


def test_collisions_name_both_inputs(outputs):
    made = [outputs(name) for name in ("sub-01_res-05_T2w.nii.gz", "sub-01_desc-res05_T2w.nii.gz", "sub-02_T2w.nii.gz")]
    found = collisions((names.image, names.files()) for names in made)
    assert list(found) == [names.image.path for names in made[:2]]
    for error in found.values():
        assert re.search(r"sub-01_res-05_T2w.nii.gz and .*sub-01_desc-res05_T2w.nii.gz would both be written to /out/sub-01", str(error))
        assert "rename one" in str(error)


def test_two_images_with_one_conversion_collide(outputs):
    both = [outputs(f"sub-01_{suffix}.nii.gz") for suffix in ("T1w", "T2w")]
    found = collisions((names.image, names.files(synth=True)) for names in both)
    assert len(found) == 2 and all("sub-01_desc-synth_T2w.nii.gz" in str(error) for error in found.values())


def test_one_image_in_two_files(outputs):
    made = [outputs(name).image for name in ("sub-01_T2w.nii", "sub-01_T2w.nii.gz", "sub-01_T1w.nii", "sub-02_T2w.nii.gz")]
    found = duplicates(made)
    assert list(found) == [image.path for image in made[:2]]
    (message,) = {str(error) for error in found.values()}
    assert all(str(image.path) in message for image in made[:2]) and "remove one of them" in message


def test_two_atlas_cohorts_of_one_image_differ(outputs):
    one, two = (outputs("sub-01_T2w.nii.gz", cohort=week) for week in ("29", "30"))
    assert one.forward != two.forward
    assert one.resampled != two.resampled


def test_outputs_are_not_taken_as_inputs(make_dataset, outputs):
    mine = [path for name in ALIKE for path in outputs(name).files(synth=True) if path.name.endswith(".nii.gz")]
    root = make_dataset(*(path.name for path in mine), "sub-01_acq-new_T2w.nii.gz")
    assert [image.path.name for image in find_images(root)] == ["sub-01_acq-new_T2w.nii.gz"]


@given(LABELS, ENTITY_SETS, st.sampled_from(["T1w", "T2w"]), st.sampled_from([".nii", ".nii.gz"]))
def test_names_survive_the_round_trip(subject, others, suffix, extension):
    entities = {"sub": subject, **others}
    name = join_name(entities, suffix, extension)
    split = split_name(name)
    assert split is not None
    assert (split.entities, split.suffix, split.extension) == (entities, suffix, extension)
    assert list(split.entities) == list(in_order(entities))
    assert join_name(dict(reversed(split.entities.items())), suffix, extension) == name


@given(LABELS, ENTITY_SETS)
def test_every_label_of_the_input_is_in_every_output(subject, others):
    entities = in_order({"sub": subject, **others})
    relative = Path(f"sub-{subject}", "anat", join_name(entities, "T1w", ".nii.gz"))
    image = InputImage(Path("/in") / relative, relative, entities, "T1w")
    for path in OutputNames(OUT, image, ("CRL", "29")).files(synth=True):
        split = split_name(path.name)
        assert split is not None
        kept = "+".join(split.entities.values())
        assert all(label in kept for label in entities.values())


def test_the_order_is_that_of_the_bids_schema():
    schema = load_schema()
    official = [schema.objects.entities[entity].name for entity in schema.rules.entities]
    ours = [short for short, _ in ENTITIES if short in official and short != "cohort"]
    assert ours == [short for short in official if short in ours]
    assert set(official) <= {short for short, _ in ENTITIES}


@pytest.mark.parametrize("name", ["T2w.nii.gz", "sub-01_run-1_run-2_T2w.nii.gz", "README", "sub-01_.nii.gz"])
def test_what_is_no_bids_name(name):
    assert split_name(name) is None
