from __future__ import annotations

import csv
import json
import re
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from posepipe.atlas import load_canonical, load_manifests
from posepipe.atlas.manifest import parse_canonical
from posepipe.errors import AtlasError


def test_the_six_atlases_and_their_ages():
    manifests = load_manifests()
    spans = {name: (m.cohorts[0].age, m.cohorts[-1].age, len(m.cohorts)) for name, m in manifests.items()}
    assert spans == {
        "CRL": (21, 38, 18),
        "FidonSBA": (21, 34, 14),
        "CHN": (23, 38, 16),
        "Serag": (28, 44, 17),
        "BCP": (40.0, pytest.approx(53.035), 2),
        "dhcpVol": (36, 44, 9),
    }
    assert [c.label for c in manifests["BCP"].cohorts] == ["00", "03"]
    assert manifests["BCP"].cohorts[1].months == 3
    assert "months" in manifests["BCP"].age_kind


@pytest.mark.parametrize("name", ["CRL", "FidonSBA", "CHN", "Serag", "BCP", "dhcpVol"])
def test_every_manifest_is_filled_in(name):
    m = load_manifests()[name]
    assert m.name == name
    assert m.stage in {"fetal", "neonatal"}
    assert set(m.contrasts) <= {"T1w", "T2w"}
    assert re.fullmatch(r"10\.\d{4,}/\S+", m.reference.doi)
    assert m.home.startswith("https://")
    assert len(m.terms) > 100
    assert len(m.citation) > 50
    assert all(m.tissues.values())


@pytest.mark.parametrize("name", ["CRL", "FidonSBA", "CHN"])
def test_sources_are_checkable_and_every_cohort_has_its_files(name):
    m = load_manifests()[name]
    assert all(re.fullmatch("[0-9a-f]{64}", s.sha256) for s in m.sources)
    assert all(re.fullmatch("[0-9a-f]{40}", s.commit) for s in m.sources)
    assert all(s.size > 1000 for s in m.sources)
    assert len({s.sha256 for s in m.sources}) == len(m.sources)
    needed = {"T2w", "desc-tissues_dseg"} | (set() if m.mask_from_tissues else {"desc-brain_mask"})
    for cohort in m.cohorts:
        files = [s.file for s in m.sources if s.cohort == cohort.label]
        assert needed <= set(files)
        assert len(files) == len(set(files))
    assert {s.cohort for s in m.sources} == set(m.ages)
    row = m.sources[0]
    assert row.url() == f"https://raw.githubusercontent.com/{row.repository}/{row.commit}/{row.path}"


def test_weeks_in_the_paths_are_those_of_the_cohorts():
    for m in load_manifests().values():
        for s in m.sources:
            week = re.search(r"(?:STA|GA|Atlas_)(\d+)", s.path)
            assert week, s.path
            assert week[1] == s.cohort


def test_only_crl_asks_for_acceptance_and_shows_its_licence():
    manifests = load_manifests()
    assert [m.name for m in manifests.values() if m.requires_acceptance] == ["CRL"]
    assert "non-commercial" in manifests["CRL"].terms
    assert "--accept-license" in manifests["CRL"].how_to_get
    assert "--accept-license" not in manifests["CHN"].how_to_get
    assert "atlas add" in manifests["Serag"].how_to_get


def test_sources_agree_with_the_upstream_list(data_dir):
    with (data_dir / "upstream_sha256.tsv").open() as file:
        upstream = {(r["repository"], r["path"]): r for r in csv.DictReader(file, delimiter="\t")}
    for m in load_manifests().values():
        for s in m.sources:
            row = upstream[s.repository, s.path]
            assert (s.commit, s.size, s.sha256) == (row["commit"], int(row["bytes"]), row["sha256"])


def test_canonical_rotations_are_rotations():
    for (atlas, cohort), known in load_canonical().items():
        rotation = known.rotation
        assert cohort in load_manifests()[atlas].ages
        assert known.images and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in known.images)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) > 0


def test_canonical_file_with_a_bad_entry_is_refused():
    with pytest.raises(AtlasError, match=r"\[CRL.21\]"):
        parse_canonical("[CRL.21]\nrotvec_degrees = [1, 2]\nimages = ['0a']")
    with pytest.raises(AtlasError, match=r"\[CRL.21\].*images"):  # of which image it is the rotation
        parse_canonical("[CRL.21]\nrotvec_degrees = [1, 2, 3]")


def test_manifests_match_templateflows_own_list_of_dhcpvol():
    templateflow = find_spec("templateflow")
    assert templateflow is not None
    assert templateflow.submodule_search_locations
    skeleton = Path(templateflow.submodule_search_locations[0]) / "conf" / "templateflow-skel.zip"
    with zipfile.ZipFile(skeleton) as archive:
        described = json.loads(archive.read("tpl-dhcpVol/template_description.json"))
        names = set(archive.namelist())
    m = load_manifests()["dhcpVol"]
    assert set(described["cohort"]) == set(m.ages)
    for label, age in m.ages.items():
        assert described["cohort"][label]["age"] == [age]
        for file in ("T1w", "T2w", "desc-brain_mask", "desc-tissues_dseg"):
            assert f"tpl-dhcpVol/cohort-{label}/tpl-dhcpVol_cohort-{label}_{file}.nii.gz" in names
