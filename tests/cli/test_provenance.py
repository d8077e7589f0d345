"""Where results come from, told beside them: code, container, datasets, terms, and what each node took."""

from __future__ import annotations

import csv
import json
import multiprocessing
import re
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pytest

from posepipe.atlas import Template, load_manifests
from posepipe.bids import read_json, record_hashes, write_dataset_description
from posepipe.bids.description import ACKNOWLEDGE, NO_LICENCE
from posepipe.cli.origin import code_url, container
from posepipe.cli.resource_table import COLUMNS, ResourceTable

ROOT = Path(__file__).resolve().parents[2]


def installed(tmp_path: Path, *, direct: str = "", metadata: str = "") -> PathDistribution:
    """A distribution as pip leaves it."""
    folder = tmp_path / "posepipe-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: posepipe\nVersion: 0.1.0\n{metadata}\n")
    if direct:
        (folder / "direct_url.json").write_text(direct)
    return PathDistribution(folder)


@pytest.mark.parametrize(
    ("direct", "metadata", "url"),
    [
        ("", "", None),
        ("", "Project-URL: Paper, https://doi.org/1\nProject-URL: Source, https://example.org/code", "https://example.org/code"),
        (
            '{"url": "https://example.org/p.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}}', "Project-URL: Source, https://x.org",
            "https://example.org/p.git@0a1b",
        ),
        ('{"url": "file:///home/me/posepipe", "dir_info": {"editable": true}}', "", None),
        ('{"url": "file:///home/me/posepipe", "vcs_info": {"commit_id": "0a1b"}}', "", None),  # nobody else's address
        ("{", "Project-URL: Source, https://example.org/code", "https://example.org/code"),
    ],
)  # fmt: skip
def test_the_address_of_the_code(tmp_path: Path, direct: str, metadata: str, url: str | None) -> None:
    assert code_url(installed(tmp_path, direct=direct, metadata=metadata)) == url


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"APPTAINER_CONTAINER": "/i/p.sif", "SINGULARITY_CONTAINER": "/i/p.sif", "POSEPIPE_IMAGE": "posepipe:0.1.0"},
         {"Type": "apptainer", "Tag": "posepipe:0.1.0", "URI": "file:///i/p.sif"}),
        ({"SINGULARITY_CONTAINER": "docker://me/posepipe:1"}, {"Type": "singularity", "URI": "docker://me/posepipe:1"}),
        ({"SINGULARITY_CONTAINER": "p.sif"}, {"Type": "singularity"}),
        ({"POSEPIPE_IMAGE": "posepipe:0.1.0", "container": "podman"}, {"Type": "podman", "Tag": "posepipe:0.1.0"}),
        ({"POSEPIPE_IMAGE": ""}, None),
    ],
)  # fmt: skip
def test_the_container(environ: dict[str, str], told: dict[str, str] | None) -> None:
    assert container(environ) == told


def test_the_dockerfile_names_its_image_for_the_description() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG IMAGE=posepipe\b", text, re.M) and re.search(r"\bPOSEPIPE_IMAGE=\$IMAGE\b", text)


def test_code_and_container_are_described_and_updated(tmp_path: Path) -> None:
    source = tmp_path / "bids"
    source.mkdir()
    made: dict[str, Any] = {"source": source, "version": "1"}
    inside = {"Type": "docker", "Tag": "posepipe:1"}
    write_dataset_description(tmp_path / "out", **made, url="https://example.org", container=inside)
    (ours,) = read_json(tmp_path / "out" / "dataset_description.json")["GeneratedBy"]
    assert ours == {"Name": "posepipe", "Version": "1", "CodeURL": "https://example.org", "Container": inside}
    write_dataset_description(tmp_path / "out", **made)  # the next run is in no container
    assert read_json(tmp_path / "out" / "dataset_description.json")["GeneratedBy"] == [{"Name": "posepipe", "Version": "1"}]


def described(tmp_path: Path, licence: str | None = "CC0", **old: str) -> Path:
    source, out = tmp_path / "bids", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "dataset_description.json").write_text(json.dumps({"Name": "x", **({"License": licence} if licence else {})}))
    (out / "dataset_description.json").write_text(json.dumps({"DatasetType": "derivative", "Name": "o", **old}))
    return write_dataset_description(out, version="1", source=source)


def test_the_licence_claims_no_more_than_is_known(tmp_path: Path) -> None:
    path = described(tmp_path)
    crl = f"Atlas CRL: {load_manifests()['CRL'].licence}."
    record_hashes(path.parent, atlases={}, weights={"pose": "0"}, terms=[crl])
    content = read_json(path)
    assert content["License"] == f"{NO_LICENCE} bids: CC0. {crl} Weights of the networks: research only."
    assert content["HowToAcknowledge"] == ACKNOWLEDGE
    record_hashes(path.parent, atlases={}, weights={}, terms=["Atlas Mine: terms not known to posepipe."])  # what is there has changed
    assert read_json(path)["License"] == f"{NO_LICENCE} bids: CC0. Atlas Mine: terms not known to posepipe."


def test_a_source_without_licence_and_words_of_others_are_kept(tmp_path: Path) -> None:
    path = described(tmp_path, licence=None, HowToAcknowledge="Cite us.")
    record_hashes(path.parent, atlases={}, weights={}, terms=[])
    content = read_json(path)
    assert content["License"] == f"{NO_LICENCE} bids: no licence stated." and content["HowToAcknowledge"] == "Cite us."
    path.write_text(json.dumps({**content, "License": "ODbL"}))
    record_hashes(path.parent, atlases={}, weights={}, terms=[])
    assert read_json(path)["License"] == "ODbL"


def test_a_template_has_a_bids_uri(tmp_path: Path) -> None:
    image = tmp_path / "tpl-CRL" / "cohort-29" / "tpl-CRL_cohort-29_T2w.nii.gz"
    template = Template("CRL", "29", 29.0, "T2w", image)
    assert (template.folder, template.bids_uri) == (tmp_path / "tpl-CRL", "bids:tpl-CRL:cohort-29/tpl-CRL_cohort-29_T2w.nii.gz")
    assert Template("Mine", "1", 29.0, "T2w", tmp_path / "t.nii.gz").bids_uri == "bids:tpl-Mine:t.nii.gz"


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_links_and_terms_of_a_run(first_run: Any) -> None:
    out = first_run.study.out
    content = read_json(out / "dataset_description.json")
    assert content["DatasetLinks"]["tpl-Phantom"] == (first_run.study.demo.atlas_dir / "tpl-Phantom").as_uri()
    assert content["License"].startswith(NO_LICENCE) and "Atlas Phantom: terms not known to posepipe." in content["License"]
    for path in out.glob("sub-*/**/anat/*_space-*_T?w.json"):
        name, _, inner = read_json(path)["SpatialReference"].removeprefix("bids:").partition(":")
        assert (Path(content["DatasetLinks"][name].removeprefix("file://")) / inner).is_file()


def test_what_the_nodes_of_a_run_took(first_run: Any) -> None:
    (folder,) = (first_run.study.out / "logs" / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["resources.json", "resources.tsv"]
    rows = read_tsv(folder / "resources.tsv")
    assert list(rows[0]) == list(COLUMNS) == list(read_json(folder / "resources.json"))
    one = {row["node"]: row for row in rows if row["image"] == "sub-01/anat/sub-01_rec-svr_T2w.nii.gz"}
    assert set(one) == {"mask", "initial_pose", "refinement", "quality", "resampling", "figure", "outputs"}
    sidecar = read_json(next(first_run.study.out.glob("sub-01/anat/*_from-T2w_*_xfm.json")))
    for node, stage in {"mask": "Mask", "initial_pose": "InitialPose", "refinement": "Refinement", "outputs": "Outputs"}.items():
        assert float(one[node]["seconds"]) == pytest.approx(sidecar["Seconds"][stage], abs=1e-3)
        assert one[node]["status"] == "done" and one[node]["host"] != "n/a"
        assert float(one[node]["peak_memory"]) == pytest.approx(sidecar["PeakMemoryMB"][stage], abs=0.1)
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert (failed["image"], failed["node"], failed["peak_memory"]) == ("sub-06/anat/sub-06_T2w.nii.gz", "mask", "n/a")
    assert {row["session_id"] for row in rows if row["participant_id"] == "sub-02"} == {"ses-1", "ses-2"}
    assert {row["session_id"] for row in rows if row["participant_id"] != "sub-02"} == {"n/a"}


def _write_one(out: str, number: int) -> str:
    table = ResourceTable(Path(out), f"run-{number}", "2026-01-01T00:00:00")
    table.rows += [dict.fromkeys(COLUMNS, str(number)) for _ in range(200)]
    return str(table.write())


@pytest.mark.slow
def test_tasks_of_an_array_do_not_write_to_each_other_s_file(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        written = pool.starmap(_write_one, [(str(tmp_path), n) for n in range(8)])
    assert len(set(written)) == 8
    for n, path in enumerate(written):
        rows = read_tsv(Path(path))
        assert len(rows) == 200 and {value for row in rows for value in row.values()} == {str(n)}
    assert ResourceTable(tmp_path, "none", "").write() is None and not (tmp_path / "logs" / "runs" / "none").exists()
