from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from atlas_helpers import own_caches, write_template  # noqa: F401 - own_caches acts by being here
from hypothesis import given
from hypothesis import strategies as st

from posepipe.atlas import AtlasLibrary, choose_template, load_manifests
from posepipe.errors import AgeError, AtlasError, UsageError

WHOLE = ("CRL", "CHN", "FidonSBA", "Serag", "BCP")


def touch(root: Path, name: str, labels=None, contrasts=None) -> None:
    """Files that count as present (1 byte): choosing reads names only."""
    manifest = load_manifests()[name]
    for label in labels or manifest.ages:
        for contrast in contrasts or manifest.contrasts:
            file = root / f"tpl-{name}" / f"cohort-{label}" / f"tpl-{name}_cohort-{label}_{contrast}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")


@pytest.fixture(scope="module")
def library():
    with tempfile.TemporaryDirectory() as folder:
        for name in WHOLE:
            touch(Path(folder), name)
        with pytest.MonkeyPatch.context() as patch:  # these files are nobody's images: no rotation is known for another
            patch.setattr("posepipe.atlas.library.load_canonical", dict)
            yield AtlasLibrary([folder])


@given(age=st.floats(20.0, 39.0))
def test_the_nearest_cohort_is_chosen(library, age):
    choice = choose_template(library, age=age, contrast="T2w", atlas="CRL")
    ages = [t.age for t in library.templates("CRL", "T2w")]
    best = min(abs(a - age) for a in ages)
    assert abs(choice.template.age - age) <= best + 1e-6
    assert choice.warnings == ()


def test_an_image_to_be_converted_gets_a_template_of_another_contrast(library):
    """But it is a newborn's all the same."""
    for atlas in ("auto", "Serag"):
        choice = choose_template(library, age=34, contrast="T1w", onto="T2w", atlas=atlas)
        assert (choice.template.space, choice.contrast, choice.warnings) == ("Serag+34", "T2w", ())
    with pytest.raises(UsageError, match="contrast of the template is one of T1w, T2w, not 'CT'"):
        choose_template(library, age=34, contrast="T1w", onto="CT")


@given(age=st.one_of(st.floats(0.1, 19.99), st.floats(39.01, 900)))
def test_ages_outside_are_refused_or_said(library, age):
    with pytest.raises(AgeError, match="--age-policy nearest"):
        choose_template(library, age=age, contrast="T2w", atlas="CRL")
    choice = choose_template(library, age=age, contrast="T2w", atlas="CRL", age_policy="nearest")
    assert choice.template.cohort == ("21" if age < 30 else "38")
    assert any("outside" in w for w in choice.warnings)


@pytest.mark.parametrize(("age", "cohort"), [(29.5, "29"), (29.51, "30"), (20.0, "21"), (39.0, "38"), (21, "21")])
def test_ties_go_to_the_younger_and_ends_reach_a_week(library, age, cohort):
    assert choose_template(library, age=age, contrast="T2w", atlas="CRL").template.cohort == cohort


@pytest.mark.parametrize(
    ("age", "contrast", "stage", "space"),
    [
        (29, "T2w", None, "CRL+29"),
        (38, "T2w", None, "CRL+38"),
        (38.5, "T2w", None, "Serag+38"),
        (40, "T2w", None, "Serag+40"),
        (40, "T1w", None, "Serag+40"),
        (30, "T1w", None, "Serag+30"),
        (30, "T2w", "neonatal", "Serag+30"),
        (30, "T1w", "fetal", "CRL+30"),
        (38.6, "T2w", "fetal", "CRL+38"),
        (24, "T1w", None, "CRL+24"),
        (50, "T2w", None, "BCP+03"),
    ],
)
def test_auto(library, age, contrast, stage, space):
    choice = choose_template(library, age=age, contrast=contrast, stage=stage)
    assert choice.template.space == space
    assert space in choice.reason
    assert "chosen because" in choice.reason


def test_reasons_say_what_was_passed_over(tmp_path):
    touch(tmp_path, "CHN")
    touch(tmp_path, "FidonSBA")
    library = AtlasLibrary([tmp_path])
    choice = choose_template(library, age=29, contrast="T2w")
    assert choice.template.space == "CHN+29"
    assert "CRL is not on this machine" in choice.reason
    young = choose_template(library, age=21, contrast="T2w")
    assert young.template.space == "FidonSBA+21"
    assert "CHN does not cover 21 weeks" in young.reason
    assert any("spina bifida" in w for w in young.warnings)


def test_an_atlas_of_the_other_stage_is_used_with_a_warning(tmp_path):
    touch(tmp_path, "Serag")
    choice = choose_template(AtlasLibrary([tmp_path]), age=30, contrast="T2w")
    assert choice.template.space == "Serag+30"
    assert any("neonatal atlas" in w for w in choice.warnings)


def test_wide_steps_are_said(library):
    choice = choose_template(library, age=46, contrast="T2w", atlas="BCP")
    assert choice.template.cohort == "00"
    assert choice.warnings == ("the nearest cohort of BCP, 00, is 6.0 weeks away",)
    assert choose_template(library, age=52, contrast="T2w", atlas="BCP").warnings == ()


def test_t1_image_on_a_t2_atlas_is_said(library):
    choice = choose_template(library, age=30, contrast="T1w", atlas="CRL")
    assert choice.contrast == choice.template.contrast == "T2w"
    assert any("no T1w" in w for w in choice.warnings)
    own = choose_template(library, age=30, contrast="T1w", atlas="Serag")
    assert own.contrast == "T1w"
    assert own.warnings == ()


def test_contrast_that_lacks_the_age_gives_way(tmp_path):
    touch(tmp_path, "Serag", ["40"], ["T1w"])
    touch(tmp_path, "Serag", None, ["T2w"])
    library = AtlasLibrary([tmp_path])
    assert choose_template(library, age=40, contrast="T1w", atlas="Serag").contrast == "T1w"
    assert choose_template(library, age=30, contrast="T1w", atlas="Serag").contrast == "T2w"


def test_a_gap_on_this_machine_is_not_bridged_silently(tmp_path):
    touch(tmp_path, "CRL", ["21", "38"])
    library = AtlasLibrary([tmp_path])
    with pytest.raises(AgeError, match=r"cohort 30 is nearer but not on this machine \(get it: .*fetch CRL"):
        choose_template(library, age=30, contrast="T2w")
    choice = choose_template(library, age=30, contrast="T2w", age_policy="nearest")
    assert choice.template.cohort == "38"
    assert any("cohort 30" in w for w in choice.warnings)


def test_messages_name_atlases_that_would_do(library):
    with pytest.raises(AgeError, match=r"Serag \(on this machine\)"):
        choose_template(library, age=41, contrast="T2w", atlas="CRL")
    with pytest.raises(AgeError, match=r"dhcpVol .*atlas fetch dhcpVol"):
        choose_template(library, age=41, contrast="T2w", atlas="CRL")
    with pytest.raises(AgeError, match="no atlas posepipe knows"):
        choose_template(library, age=12, contrast="T2w")


def test_auto_outside_everything_takes_the_closest_on_request(library):
    assert choose_template(library, age=15, contrast="T2w", age_policy="nearest").template.space == "CRL+21"
    assert choose_template(library, age=80, contrast="T2w", age_policy="nearest").template.space == "BCP+03"


@pytest.mark.parametrize("age", [None, 0, -3, float("nan"), float("inf"), 5000])
def test_no_age_and_impossible_ages(library, age):
    with pytest.raises(AgeError, match="--age"):
        choose_template(library, age=age, contrast="T2w")


def test_unknown_options(library):
    with pytest.raises(UsageError, match="contrast"):
        choose_template(library, age=30, contrast="FLAIR")
    with pytest.raises(UsageError, match="age policy"):
        choose_template(library, age=30, contrast="T2w", age_policy="any")
    with pytest.raises(UsageError, match="stage"):
        choose_template(library, age=30, contrast="T2w", stage="adult")
    with pytest.raises(AtlasError, match="no atlas named"):
        choose_template(library, age=30, contrast="T2w", atlas="Nope")


def test_empty_machine(tmp_path):
    with pytest.raises(AtlasError, match="atlas fetch CRL --accept-license"):
        choose_template(AtlasLibrary([tmp_path]), age=30, contrast="T2w")
    with pytest.raises(AtlasError, match="CRL is not on this machine"):
        choose_template(AtlasLibrary([tmp_path]), age=30, contrast="T2w", atlas="CRL")


def test_an_added_atlas_serves_auto_when_no_known_one_does(tmp_path):
    write_template(tmp_path, "Demo", "29")
    (tmp_path / "tpl-Demo" / "atlas.toml").write_text('title = "d"\nstage = "fetal"\n[cohorts.29]\nage = 29.0\n')
    library = AtlasLibrary([tmp_path])
    assert choose_template(library, age=28.2, contrast="T2w").template.space == "Demo+29"
    with pytest.raises(AgeError, match=r"27\.9"):
        choose_template(library, age=27.9, contrast="T2w")
    touch(tmp_path, "CRL")
    assert choose_template(AtlasLibrary([tmp_path]), age=29, contrast="T2w").template.space == "CRL+29"
