from __future__ import annotations

from pathlib import Path

import pytest
from atlas_helpers import own_caches, write_template  # noqa: F401 - own_caches acts by being here

from posepipe.atlas import AtlasLibrary, candidates
from posepipe.atlas.add import add
from posepipe.errors import AtlasError


def spaces(found):
    return [(one.stage, [(t.space, t.contrast) for t in one.templates]) for one in found]


def test_auto_takes_one_series_a_stage_and_continues_it(tmp_path: Path):
    for atlas, cohorts in {"CRL": (25, 26, 38), "CHN": (23, 26), "FidonSBA": (21,), "Serag": (38, 44), "BCP": ("00", "03")}.items():
        for cohort in cohorts:
            write_template(tmp_path, atlas, str(cohort))
    found = candidates(AtlasLibrary([tmp_path]), contrast="T2w")
    assert spaces(found) == [
        ("fetal", [(s, "T2w") for s in ("FidonSBA+21", "CHN+23", "CRL+25", "CRL+26", "CRL+38")]),
        ("neonatal", [(s, "T2w") for s in ("Serag+38", "Serag+44")]),
    ]
    assert found[0].name == "FidonSBA and CHN and CRL"


def test_cohorts_far_from_the_others_are_left_out(tmp_path: Path):
    for atlas, cohorts in {"Serag": (40, 44), "BCP": ("00", "03")}.items():
        for cohort in cohorts:
            write_template(tmp_path, atlas, str(cohort))
    assert [t.space for one in candidates(AtlasLibrary([tmp_path]), contrast="T2w") for t in one.templates] == ["Serag+40", "Serag+44"]
    assert len(candidates(AtlasLibrary([tmp_path]), contrast="T2w", atlas="BCP")[0].templates) == 2


def test_own_contrast_where_there_is_one(tmp_path: Path):
    write_template(tmp_path, "Serag", "40", "T1w", "T2w")
    write_template(tmp_path, "Serag", "41", "T2w")
    assert spaces(candidates(AtlasLibrary([tmp_path]), contrast="T1w")) == [
        ("neonatal", [("Serag+40", "T1w"), ("Serag+41", "T2w")])
    ]


def test_a_named_atlas_is_alone(tmp_path: Path):
    for atlas in ("CRL", "CHN"):
        write_template(tmp_path, atlas, "26")
    assert spaces(candidates(AtlasLibrary([tmp_path]), contrast="T2w", atlas="CHN")) == [("fetal", [("CHN+26", "T2w")])]
    with pytest.raises(AtlasError, match="FidonSBA is not on this machine"):
        candidates(AtlasLibrary([tmp_path]), contrast="T2w", atlas="FidonSBA")


def test_added_atlases_count_where_no_other_is(tmp_path: Path):
    image = write_template(tmp_path / "source", "X", "1")
    add("Own", image=image, age=30.0, dest=tmp_path / "own")
    assert spaces(candidates(AtlasLibrary([tmp_path / "own"]), contrast="T2w"))[0][1] == [("Own+30", "T2w")]
    write_template(tmp_path / "own", "CRL", "26")
    assert [one.name for one in candidates(AtlasLibrary([tmp_path / "own"]), contrast="T2w")] == ["CRL"]


def test_no_atlas_at_all(tmp_path: Path):
    with pytest.raises(AtlasError, match="no atlas was found on this machine to estimate an age by"):
        candidates(AtlasLibrary([tmp_path]), contrast="T2w")
