"""Labels, filters, masks and folders on the command line that match nothing, and selected images that the dataset lacks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from bad_datasets import AGES, BOTH, Case, check, dry_run, folder_for_all, hold, image, image_bytes, make_dataset, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LABELS = (
    "", " ", "sub-", "ses-", "..", ".", "../", "../sub-01", "../../etc", "/", "/etc/passwd", "01/", "01/../02", "01/anat", "./01", "*",
    "0?", "[0-9]+",
    "0.", "(01", "01|02", "sub-sub-01", "SUB-01", "Sub-01", "1", "001", "0 1", "01,02", "01;02", "01\n", "\n", "\t", "\udcff",
    "\u0660\u0661",
    "é", "e\u0301", "日本", "$HOME", "$(reboot)", "`reboot`", "~", "%s", "{}", "\\", "'", '"', "01 ", " 01", "sub-01 ", "a" * 5000,
    "01_T2w", "None", "n/a",
)  # fmt: skip
GOOD_LABELS = {"01 ", " 01", "sub-01 ", "01\n"}  # but for the space around


@pytest.mark.parametrize("label", LABELS)
def test_participants_that_are_not_there(label: str, tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(tmp_path / "ds")
    for labels in ([label], ["01", label]):
        output = dry_run(root, small_atlas, f"--participant-label={label}", *([] if len(labels) == 1 else ["--participant-label", *labels]))
        check(root, output, right=(), some=True)
        assert (output.code == 0) is (label in GOOD_LABELS) and (output.code == 2) is (label not in GOOD_LABELS), output.text
        assert label in GOOD_LABELS or f"{root}: no sub-" in output.text


@pytest.mark.parametrize("label", LABELS)
def test_sessions_that_are_not_there(label: str, tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(tmp_path / "ds")
    image(root, "sub-04/ses-1/anat/sub-04_ses-1_T2w.nii")
    output = dry_run(root, small_atlas, f"--session-label={label}", "--age", "29")
    check(root, output, right=(), some=True)
    assert output.code == (0 if label == "1" else 2) and (label == "1" or "no ses-" in output.text), output.text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=st.text(st.characters(blacklist_characters="\0"), max_size=8), kind=st.sampled_from(["participant", "session"]))
def test_any_label(label: str, kind: str, small_atlas: Path, dataset: Path) -> None:
    output = dry_run(dataset, small_atlas, f"--{kind}-label={label}")
    check(dataset, output, right=(), some=True)
    assert output.code == 2 or label.strip().removeprefix("sub-") in {"01", *BOTH}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is only looked at."""
    return make_dataset(tmp_path_factory.mktemp("healthy") / "ds")


FILTERS: list[tuple[str | bytes, int]] = [
    ("", 2), ("{", 2), ("[]", 2), ("null", 2), ("0", 2), ("false", 2), ('""', 2), ("[" * 100_000, 2), ('{"t2w":' * 40_000, 2),
    (b"\xff\xfe{\0}\0", 2), (b"\xfc", 2),
    ("{}", 0), ('{"t2w": null}', 2), ('{"t2w": {}}', 0), ('{"T2w": {"suffix": "T2w"}}', 0), ('{"t2w": {"run": {"a": 1}}}', 2),
    ('{"t2w": {"run": [[1]]}}', 2),
    ('{"t2w": {"run": [{}]}}', 2), ('{"t2w": {"run": []}}', 2), ('{"t2w": {"subject": "01"}}', 0), ('{"t2w": {"sub": ["02", 3]}}', 0),
    ('{"t2w": {"sub": true}}', 2),
    (f'{{"t2w": {{"sub": "{"9" * 5000}"}}}}', 2), (f'{{"t2w": {{"sub": {"9" * 4000}}}}}', 2), ('{"t2w": {"sub": 1e999}}', 2),
    ('{"t2w": {"sub": NaN}}', 2),
    ('{"t2w": {"": "x"}}', 2), ('{"t2w": {"\\ud800": "x"}}', 2), ('{"t2w": "x"}', 2), ('{"t2w": [1]}', 2),
    ('{"t2w": {"sub": "\\u0660\\u0661"}}', 2), ('{"bold": 1}', 0),
    ('{"t2w": {"run": null}, "t2w": {"run": "1"}}', 2), ('{"t2w": {"extension": ".nii"}}', 0), ('{"t2w": {"datatype": "func"}}', 2),
    ('{"t2w": {"sub": "*"}}', 0),
]  # fmt: skip


@pytest.mark.parametrize("n", range(len(FILTERS)))
def test_filters(n: int, tmp_path: Path, small_atlas: Path, dataset: Path) -> None:
    content, code = FILTERS[n]
    path = put(tmp_path / "filter.json", content)
    output = dry_run(dataset, small_atlas, "--bids-filter-file", str(path))
    check(dataset, output, right=())
    assert output.code == code, output.all
    assert code == 0 or str(path) in output.text or "the filter" in output.text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["t2w", "t1w", "sub", "run", "suffix", "x"]), inner,
    max_size=2), max_leaves=5,
))  # fmt: skip
def test_any_filter(content: object, tmp_path: Path, small_atlas: Path, dataset: Path) -> None:
    output = dry_run(dataset, small_atlas, "--bids-filter-file", str(put(tmp_path / "filter.json", json.dumps(content))))
    check(dataset, output, right=())


@pytest.mark.parametrize("kind", ["nowhere", "folder", "pipe", "itself", "long"])
def test_filter_files_that_are_none(kind: str, tmp_path: Path, small_atlas: Path, dataset: Path) -> None:
    path = tmp_path / ("x" * 300 if kind == "long" else "f.json")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "itself":
        path.symlink_to(path)
    output = dry_run(dataset, small_atlas, "--bids-filter-file", str(path))
    assert output.code == 2 and str(path) in output.text and "Traceback" not in output.text


def mask(root: Path, name: str) -> Path:
    return put(root / "derivatives/m" / name, image_bytes())


MASKS = ("-d", "ROOT/derivatives/m")
MASK = "sub-01/anat/sub-01_desc-brain_mask.nii"
DERIVATIVES = [
    Case("mask of a derivative without a description", lambda r: mask(r, MASK), 29.0, "mask +given: .*sub-01_desc-brain_mask.nii",
        options=MASKS),
    Case("mask by its label", lambda r: mask(r, "sub-01/anat/sub-01_label-brain_mask.nii"), 29.0, "mask +given", options=MASKS),
    Case("masks of nobody", lambda r: mask(r, "sub-99/anat/sub-99_desc-brain_mask.nii"), 29.0, "sub-99, which the dataset has not",
        options=MASKS),
    Case("mask of sub-1", lambda r: (mask(r, "sub-1/anat/sub-1_desc-brain_mask.nii"), mask(r, MASK.replace("01", "02"))), 29.0,
        "m: .*sub-1, which", options=MASKS),
    Case("mask of another run", lambda r: mask(r, "sub-01/anat/sub-01_run-2_desc-brain_mask.nii"), 29.0,
        "run-2_desc-brain_mask.nii: a brain mask that matches none", options=MASKS),
    Case("mask of another contrast", lambda r: mask(r, "sub-01/anat/sub-01_space-T1w_desc-brain_mask.nii"), 29.0,
        "mask.nii: a brain mask that matches", options=MASKS),
    Case("mask of a lesion", lambda r: mask(r, "sub-01/anat/sub-01_desc-lesion_mask.nii"), 29.0, "lesion_mask.nii: its name does not say",
        options=MASKS),
    Case("mask without desc", lambda r: mask(r, "sub-01/anat/sub-01_mask.nii"), 29.0, "sub-01_mask.nii: its name does not say",
        options=MASKS),
    Case("mask in a session that there is not", lambda r: (mask(r, "sub-01/ses-1/anat/sub-01_ses-1_desc-brain_mask.nii"), mask(r,
        MASK.replace("01", "02"))), 29.0, options=MASKS),
    Case("two masks", lambda r: (mask(r, MASK), mask(r, f"{MASK}.gz")), "fails", "match equally well", options=MASKS),
    Case("mask is a folder", lambda r: mask(r, f"{MASK}/x"), "fails", options=MASKS),
    Case("mask is a broken link", lambda r: (mask(r, "sub-01/anat/x"), (r / "derivatives/m" / MASK).symlink_to("nowhere")), "fails",
        options=MASKS),
    Case("mask is empty", lambda r: put(r / "derivatives/m" / MASK), "fails", options=MASKS),
    Case("folder of masks is a file", lambda r: (mask(r, "sub-02/anat/x"), put(r / "derivatives/m/sub-01/anat")), 29.0, options=MASKS),
    Case("folder of masks is a link to itself", lambda r: (mask(r, "sub-02/anat/x"), (r / "derivatives/m/sub-01").symlink_to("sub-01")),
        "fails", "sub-01: a link", options=MASKS),
    Case("derivative is the dataset", lambda r: None, 29.0, "no brain mask", options=("-d", "ROOT")),
    Case("derivative is nowhere", lambda r: None, options=("-d", "/nowhere"), code=2),
    Case("derivative is a file", lambda r: None, options=("-d", "ROOT/participants.tsv"), code=2),
    Case("derivative is empty", lambda r: (r / "derivatives/m").mkdir(parents=True), options=MASKS, code=2),
    Case("derivative is a link to itself", lambda r: ((r / "derivatives").mkdir(), (r / "derivatives/m").symlink_to("m")), options=MASKS,
        code=2),
    Case("derivative has too long a name", lambda r: None, options=("-d", "x" * 5000), code=2),
    Case("derivative has a name", lambda r: mask(r, MASK), 29.0, "mask +given", options=("-d", "masks=ROOT/derivatives/m")),
    Case("name of a derivative is empty", lambda r: mask(r, MASK), 29.0, options=("-d", "=ROOT/derivatives/m")),
]  # fmt: skip


@pytest.mark.parametrize("case", DERIVATIVES, ids=lambda case: case.name)
def test_masks(case: Case, tmp_path: Path, small_atlas: Path) -> None:
    hold(case, tmp_path / "ds", small_atlas)


@pytest.mark.parametrize("name", ["nowhere", "file", "ds/participants.tsv", "ds/sub-01", "empty", "loop", "x" * 300, "x/" * 2500,
"\udcff", "a\nb"])
def test_folders_that_are_no_datasets(name: str, tmp_path: Path, small_atlas: Path) -> None:
    make_dataset(tmp_path / "ds")
    put(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    output = dry_run(tmp_path / name, small_atlas, out=tmp_path / "out")
    assert output.code == 2 and "error: " in output.text and "give the root of a BIDS dataset" in output.text, output.text
    assert "Traceback" not in output.text


@pytest.mark.parametrize("asked", [("01", "04"), ("04",)])
def test_selected_but_missing_images_are_reported(asked: tuple[str, ...], tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(tmp_path / "ds")
    image(root, "sub-04/Anat/sub-04_T2w.nii")
    output = dry_run(root, small_atlas, "--participant-label", *asked)
    assert output.code == (1 if len(asked) == 2 else 2) and "sub-04/Anat/sub-04_T2w.nii: it is not in a folder anat" in output.text
    assert (output.ages == {"sub-01/anat/sub-01_T2w.nii": 29.0}) is (len(asked) == 2)


def test_healthy_dataset_has_nothing_to_say(tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(tmp_path / "ds")
    output = dry_run(root, small_atlas)
    assert output.code == 0 and not output.warnings and "left out" not in output.text
    assert output.ages == {f"sub-{label}/anat/sub-{label}_T2w.nii": age for label, age in {"01": 29.0, **AGES}.items()}


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]", b"\xff\xfe"])
def test_atlas_whose_description_is_broken_is_named(content: str | bytes, tmp_path: Path, small_atlas: Path, dataset: Path) -> None:
    atlas = Path(shutil.copytree(small_atlas, tmp_path / "atlas"))
    (atlas / "tpl-Phantom" / "atlas.toml").unlink()
    path = put(atlas / "tpl-Phantom" / "template_description.json", content)
    output = dry_run(dataset, atlas)
    assert output.code == 2 and str(path) in output.text and "repair" in output.text, output.text


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = ", "\ufeffage = 'x'", b"\xff\xfe", "nowhere = 1"])
def test_option_files_that_are_broken_are_named(content: str | bytes, tmp_path: Path, small_atlas: Path, dataset: Path) -> None:
    path = put(tmp_path / "options.toml", content)
    output = dry_run(dataset, small_atlas, "--config-file", str(path))
    assert output.code == 2 and str(path) in output.text and "Traceback" not in output.text, output.text


def test_folder_of_atlases_that_one_may_not_read(tmp_path: Path, small_atlas: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as TemplateFlow's home of somebody else; root may read everything."""
    folder = folder_for_all()
    try:
        for source, name in ((small_atlas, "atlas"), (dataset, "ds")):
            shutil.copytree(source, folder / name)
        put(folder / "theirs/templateflow/tpl-Phantom/x")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "theirs"))
        dry_run(folder / "ds", folder / "atlas")
        (folder / "theirs").chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        output = dry_run(folder / "ds", folder / "atlas")
        assert output.code == 0 and len(output.ages) == 3, output.text
    finally:
        os.seteuid(os.getuid())
        (folder / "theirs").chmod(0o755)
        shutil.rmtree(folder)
