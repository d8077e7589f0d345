"""Invalid tables and JSON files: each age is the right one, or there is an error, never another age."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_datasets import BOTH, Case, DryRun, check, dry_run, hold, image, image_bytes, make_dataset, put, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BATCH = 20
"""Participants of a dataset that each have something else wrong: one plan for all of them."""
MANY = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.large_base_example,
HealthCheck.too_slow])
DEEP = "[" * 100_000
DEEP_OBJECT = '{"a":' * 50_000 + "1" + "}" * 50_000
_number = itertools.count()


def name_of(label: str) -> str:
    return f"sub-{label}/anat/sub-{label}_T2w.nii"


def scans_of(root: Path, label: str) -> Path:
    return root / f"sub-{label}" / f"sub-{label}_scans.tsv"


def new_root(tmp_path: Path) -> Path:
    return tmp_path / f"{next(_number)}" / "ds"


def age_of(output: DryRun, label: str) -> float | str:
    """The age of a participant; ``"fails"`` if there is an error."""
    name = name_of(label)
    assert (name in output.ages) is not (name in output.failures), output.all
    return output.ages.get(name, "fails")


CELLS: dict[str, float | str] = {
    "29": 29.0, "29.5": 29.5, " 29 ": 29.0, "+29": 29.0, "2.9e1": 29.0, "029": 29.0, "29.": 29.0, "29+3": 29.43, "29w3d": 29.43,
    "29 weeks": 29.0, "29W": 29.0, "\u00a029": 29.0, "２９": 29.0, "29+0": 29.0,
    **dict.fromkeys((
        "28-30", "28–30", "28 to 30", "28/30", "29,5", "29;5", "29·5", "29 5", "29+7", "29+", "+", "29-3", "~29", ">29", "<29", "29?",
        "29*",
        "ca. 29", "29 (by ultrasound)", "twenty-nine", "XXIX", "\"29\"", "'29'", "=29", "=A1", "#REF!", "#N/A!", "29/7", "29%", "29 yrs",
        "29y", "29 months", "203 d", "29e", "1e", "0x1d", "0b1", "1_9", "NaN", "nan", "inf", "-inf", "Infinity", "1e999", "-29", "0", "-0",
        "1e-5", "9.99", "120.01", "203", "2900", "1e9", "n/a", "N/A", "NA", "None", "null", "NULL", "-", "--", ".", "", "?", "unknown",
        "true", "[29]", "{29}", "2026-11-30", "30.11.2026", "29:3", "\u200b29", "29\u200b", "²⁹", "½", "٢٩w٣", "\U0001f476", "a" * 5000,
        "9" * 5000, "1" * 200_000 + "x", "29" + "0" * 50, "29\x0b5", "29\x1f3", "%s", "{}", "\\t29", "<b>29</b>", "; rm -rf /",
        "\x1b[31m29",
    ), "fails"),
}  # fmt: skip


def test_cells(tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    labels = {f"c{n}": cell for n, cell in enumerate(CELLS)}
    for label in labels:
        image(root, name_of(label))
    rows = (("participant_id", "ga_weeks"), ("sub-01", "29"), ("sub-03", "24.5"), *((f"sub-{la}", cell) for la, cell in labels.items()))
    put(root / "participants.tsv", table(*rows))
    output = dry_run(root, small_atlas)
    check(root, output)
    assert {cell: age_of(output, label) for label, cell in labels.items()} == CELLS


# column, value, what the sidecar says of it → weeks
UNITS: list[tuple[str, str, Any, float | str]] = [
    ("ga_weeks", "29", {"Units": "weeks"}, 29.0), ("ga_weeks", "29", {"units": "Weeks"}, 29.0), ("ga_weeks", "29", {"UNITS": "wk"}, 29.0),
    ("ga_weeks", "29", {"Units": "days"}, "fails"), ("ga_weeks", "29", {"Units": "years"}, "fails"), ("ga_weeks", "29", {}, 29.0),
    ("ga_weeks", "29", [], 29.0), ("ga_weeks", "29", None, 29.0), ("ga_weeks", "29", {"Units": None}, 29.0), ("ga_weeks", "29",
    {"Units": ""}, 29.0),
    ("ga_weeks", "29", {"Units": 7}, "fails"), ("ga_weeks", "29", {"Units": ["weeks"]}, 29.0), ("ga_weeks", "29", {"Units": {"a": 1}},
    "fails"),
    ("ga", "203", {"Units": "days"}, 29.0), ("ga", "203", {"Units": "d"}, 29.0), ("ga", "203", {}, "fails"), ("ga", "203",
    {"Units": "weeks"}, "fails"),
    ("ga", "29", {"Units": "fortnights"}, "fails"), ("ga", "29", {"Units": "weeks and days"}, "fails"), ("ga", "29", {"Units": "%"},
    "fails"),
    ("ga", "29+3", {"Units": "days"}, "fails"), ("ga", "29+3", {"Units": "weeks"}, 29.43), ("ga", "6.7", {"Units": "months"}, "fails"),
    ("age", "29", {"Units": "weeks"}, 29.0), ("age", "29", {}, "fails"), ("age", "29", "weeks", "fails"), ("age", "29",
    {"Units": "years"}, "fails"),
    ("age", "0.1", {"Units": "years"}, "fails"), ("age", "203", {"Units": "days"}, 29.0), ("age", "5", {"Units": "days"}, "fails"),
    ("age", "-5", {"Units": "days"}, "fails"), ("age", "2", {"Units": "weeks"}, "fails"), ("age", "29", {"Units": "WEEKS (GA)"}, 29.0),
    ("scan_age", "29", {}, 29.0), ("scan_age", "203", {}, "fails"), ("AGE", "29", {"Units": "weeks"}, 29.0), ("Ga_Weeks", "29", {}, 29.0),
    ("ga_days", "203", {}, "fails"), ("age_years", "29", {}, "fails"), ("pma_weeks", "29", {"Units": "weeks", "Levels": {"29": "x"}}, 29.0),
    ("ga_weeks", "29", {"Units": "w" * 100_000}, "fails"), ("ga_weeks", "29", {"Units": "weeks", "HED": {"a": [1, {"b": None}]}}, 29.0),
]  # fmt: skip


def test_units(tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    for n, (column, value, says, _) in enumerate(UNITS):
        image(root, name_of(f"u{n}"))
        put(scans_of(root, f"u{n}"), table(("filename", column), (f"anat/sub-u{n}_T2w.nii", value)))
        put(scans_of(root, f"u{n}").with_suffix(".json"), {column: says})
    output = dry_run(root, small_atlas)
    check(root, output)
    found = [(c, v, s, age_of(output, f"u{n}")) for n, (c, v, s, _) in enumerate(UNITS)]
    assert found == UNITS


HEAD, GOOD = "filename\tga_weeks\n", "anat/IMAGE\t29\n"
# the bytes of a scans.tsv (IMAGE: the file's name) → weeks; participants.tsv has no row to fall back on
TABLES: list[tuple[str | bytes, float | str]] = [
    (HEAD + GOOD, 29.0), ("\ufeff" + HEAD + GOOD, 29.0), ((HEAD + GOOD).replace("\n", "\r\n"), 29.0), ((HEAD + GOOD).replace("\n", "\r"),
    29.0),
    ((HEAD + GOOD).replace("\n", "\r\r\n"), 29.0), ((HEAD + GOOD).replace("\n", "\n\n\n"), 29.0), (HEAD + GOOD.rstrip("\n"), 29.0),
    ("\n\n" + HEAD + GOOD, 29.0), (HEAD + GOOD + "\x1a", 29.0), (HEAD + GOOD.replace("\t", " \t "), 29.0), (HEAD + GOOD.replace("\n",
    "\t\t\n"), 29.0),
    ("filename\tga_weeks\t\t\nanat/IMAGE\t29\t\t\n", 29.0), (HEAD + "./anat/IMAGE\t29\n", 29.0), (HEAD + "anat//IMAGE\t29\n", 29.0),
    (HEAD + GOOD + GOOD, 29.0), (HEAD + GOOD + GOOD.replace("29", "n/a"), 29.0), (HEAD + GOOD.replace("29", "n/a") + GOOD, 29.0),
    ("filename\tga_weeks\tpma_weeks\nanat/IMAGE\t29\t29.5\n", 29.0), ("filename\tga_weeks\tx\nanat/IMAGE\t29\n", 29.0),
    ("ga_weeks\tfilename\n29\tanat/IMAGE\n", 29.0), ("filename\tga_weeks\tga_weeks\nanat/IMAGE\t29\t29\n", 29.0),
    ("filename\tga_weeks\tga_weeks\nanat/IMAGE\tn/a\t29\n", 29.0), ("filename\tga_weeks\tGA_weeks\nanat/IMAGE\t29\t29\n", 29.0),
    ("filename\tga_weeks\tx\tx\nanat/IMAGE\t29\ta\tb\n", 29.0), (HEAD + GOOD + "anat/other.nii\t1\t2\t3\t4\n", 29.0),
    (HEAD + GOOD + "\t\n\t31\n", 29.0),
    (HEAD + "/etc/passwd\t1\n../../x\t2\n" + GOOD, 29.0), (HEAD + GOOD + "x" * 300_000 + "\t1\n", 29.0), (HEAD + "a\tb\n" * 20_000 + GOOD,
    29.0),
    ("filename\tga_weeks\n# a remark\n" + GOOD, 29.0), ("filename\tga_weeks" + "\tc" * 5000 + "\n" + GOOD.strip() + "\t1" * 5000 + "\n",
    29.0),
    ("", "fails"), ("\n", "fails"), (" ", "fails"), ("\ufeff", "fails"), (HEAD, "fails"), (HEAD + "\n\n", "fails"), ("\t\t\t\n", "fails"),
    (HEAD.replace("filename", "Filename") + GOOD, "fails"), (HEAD.replace("filename", "file") + GOOD, "fails"), (GOOD, "fails"),
    ((HEAD + GOOD).replace("\t", ","), "fails"), ((HEAD + GOOD).replace("\t", " "), "fails"), ((HEAD + GOOD).replace("\t", "    "),
    "fails"),
    ((HEAD + GOOD).replace("\t", ";"), "fails"), ((HEAD + GOOD).replace("\t", "|"), "fails"), (HEAD + GOOD.replace("\t", " "), "fails"),
    ((HEAD + GOOD).encode("utf-16"), "fails"), ((HEAD + GOOD).encode("utf-16-le"), "fails"), ((HEAD + GOOD).encode("utf-16-be"), "fails"),
    ((HEAD + GOOD).encode("utf-32"), "fails"), ((HEAD + GOOD + "Müller\t1\n").encode("latin-1"), "fails"),
    ((HEAD + GOOD).encode("cp500"), "fails"),
    ((HEAD + GOOD + "東京\t1\n").encode("shift-jis"), "fails"),
    (b"\x00" * 1000, "fails"), (b"\x1f\x8b\x08\x00" + bytes(range(256)), "fails"),
    ((HEAD + GOOD + "\0").encode(), "fails"), (b"PK\x03\x04" + bytes(200), "fails"), (b"\x89HDF\r\n\x1a\n", "fails"),
    ("<html></html>", "fails"),
    (json.dumps({"filename": "anat/IMAGE", "ga_weeks": 29}), "fails"), ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "fails"),
    ("/annex/objects/MD5E-s9--0.tsv", "fails"), (HEAD + "anat/IMAGE\n", "fails"), (HEAD + "anat/IMAGE\t\n", "fails"), (HEAD + "\t29\n",
    "fails"),
    (HEAD + GOOD + GOOD.replace("29", "30"), "fails"), (HEAD + GOOD + GOOD.replace("29", "203"), "fails"), ("filename\nanat/IMAGE\n",
    "fails"),
    ("filename\tga_weeks\tga_weeks\nanat/IMAGE\t29\t31\n", "fails"), ("filename\tga_weeks\tfilename\nanat/IMAGE\t29\tanat/IMAGE\n", 29.0),
    ("filename\tx\tga_weeks\nanat/IMAGE\t25\t29\t31\n", "fails"), ("filename\tga_weeks\nanat/IMAGE\t29\t31\n", "fails"),
    ("filename\tga_weeks\tx\nanat/IMAGE\tn/a\t29\n", "fails"), (HEAD + "anat/image\t29\n", "fails"), (HEAD + "IMAGE\t29\n", "fails"),
    (HEAD + "\\anat\\IMAGE\t29\n", "fails"), (HEAD + "anat/IMAGE.gz\t29\n", "fails"), (HEAD + '"anat/IMAGE"\t"29"\n', "fails"),
    ("\u200bfilename\tga_weeks\n" + GOOD, "fails"), ("filename\tga weeks\n" + GOOD, "fails"), ("filename\tbirth_age\n" + GOOD, "fails"),
    ("filename" + "\tc" * 5000 + "\nanat/IMAGE" + "\t1" * 5000 + "\n", "fails"), ("x" * 500_000, "fails"), ("filename\tage\n" + GOOD,
    "fails"),
]  # fmt: skip


def put_table(root: Path, label: str, content: str | bytes) -> None:
    image(root, name_of(label))
    data = content.encode() if isinstance(content, str) else content
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "cp500"):
        data = data.replace("IMAGE".encode(encoding), f"sub-{label}_T2w.nii".encode(encoding))
    put(scans_of(root, label), data)


def test_tables(tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    for n, (content, _) in enumerate(TABLES):
        put_table(root, f"t{n}", content)
    output = dry_run(root, small_atlas)
    check(root, output)
    assert [(content[:200], age_of(output, f"t{n}")) for n, (content, _) in enumerate(TABLES)] == [(c[:200], age) for c, age in TABLES]


@pytest.mark.parametrize("n", range(0, len(TABLES), 2))
def test_table_of_all_participants(n: int, tmp_path: Path, small_atlas: Path) -> None:
    """The same as ``participants.tsv``: who has an age elsewhere has it still, and nobody gets a wrong one."""
    content = TABLES[n][0]
    data = content.encode() if isinstance(content, str) else content
    for old, new in (("filename", "participant_id"), ("anat/IMAGE", "sub-03"), ("29", "24.5")):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "cp500"):
            data = data.replace(old.encode(encoding), new.encode(encoding))
    root = make_dataset(new_root(tmp_path))
    put(root / "participants.tsv", data)
    output = dry_run(root, small_atlas)
    check(root, output, right=("02",))
    assert age_of(output, "03") in {24.5, "fails"}
    assert output.ages.get(name_of("03")) == 24.5 or "participants.tsv" in output.failures[name_of("03")][1]


CONTRADICTIONS = [
    Case("two columns of ages", lambda r: put(r / "participants.tsv", table(
        ("participant_id", "ga_weeks", "pma_weeks"), ("sub-01", "29", "35"), ("sub-03", "24.5", "n/a"))), 29.0,
        "pma_weeks says 35.00 weeks"),
    Case("two columns of one name", lambda r: put(r / "participants.tsv", table(
        ("participant_id", "ga_weeks", "ga_weeks"), ("sub-01", "29", "35"), ("sub-03", "24.5", "24.5"))), "fails",
        "two columns 'ga_weeks'"),
    Case("columns that differ by capitals", lambda r: put(r / "participants.tsv", table(
        ("participant_id", "GA_weeks", "ga_weeks"), ("sub-01", "29", "35"), ("sub-03", "24.5", "24.5"))), 29.0, "says 35.00 weeks"),
    Case("a row too many", lambda r: put(r / "participants.tsv", table(
        ("participant_id", "ga_weeks"), ("sub-01", "29"), ("01", "35"), ("sub-03", "24.5"))), "fails", "2 rows for .* disagree"),
    Case("a cell too many", lambda r: put(r / "participants.tsv", table(
        ("participant_id", "kg", "ga_weeks"), ("sub-01", "1", "27", "29"), ("sub-03", "1", "24.5"))), "fails", "4 cells for 3 columns"),
    Case("a cell too few", lambda r: put(r / "participants.tsv", table(
        ("participant_id", "ga_weeks", "kg"), ("sub-01", "29"), ("sub-03", "24.5", "1"))), 29.0, "2 cells for 3 columns"),
    Case("age of the table of scans and of that of participants", lambda r: put(
        scans_of(r, "01"), table(("filename", "ga_weeks"), ("anat/sub-01_T2w.nii", "35"))), 35.0, "sub-01_scans.tsv:ga_weeks",
        options=("--age-policy", "nearest")),
    Case("age in the units of another column", lambda r: put(r / "participants.json", {"ga_weeks": {"Units": "days"}}), "fails",
        "name says weeks", ("02",)),
    Case("units twice", lambda r: put(r / "participants.json", '{"ga_weeks": {"Units": "weeks", "Units": "days"}}'), "fails",
        "Units.*twice", ("02",)),
    Case("column asked for that is not there", lambda r: None, "fails", "no column 'mri'", (), ("--age-column", "mri")),
    Case("column asked for by an odd name", lambda r: None, "fails", "no column", (), ("--age-column", "../*\u202e")),
    Case("no table at all", lambda r: (r / "participants.tsv").unlink(), "fails", "no participants.tsv", ("02",)),
    Case("no row", lambda r: put(r / "participants.tsv", table(("participant_id", "ga_weeks"), ("sub-03", "24.5"))), "fails",
        "no row for it"),
    Case("row of another spelling", lambda r: put(r / "participants.tsv", table(
        ("participant_id", "ga_weeks"), ("sub-1", "29"), ("SUB-01", "29"), ("sub-001", "29"), ("sub-03", "24.5"))), "fails",
        "no row for it"),
    Case("row without its prefix", lambda r: put(r / "participants.tsv", table(("participant_id", "ga_weeks"), ("01", "29"), ("3", "1"),
        ("03", "24.5"))), 29.0),
]  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS, ids=lambda case: case.name)
def test_contradictions(case: Case, tmp_path: Path, small_atlas: Path) -> None:
    hold(case, new_root(tmp_path), small_atlas)


JSONS: list[str | bytes] = [
    "", " ", "{", "}", "[", "[]", "{}", "null", "true", "0", "-1.5e3", '"text"', "NaN", "Infinity", "{'a': 1}", '{"a": 1,}', '{"a" 1}',
    '{"a": 1} {"b": 2}', '{"a": 1}x', "// remark\n{}", '{"a": 1 /* remark */}', "\ufeff{}", '{"a": "\\ud800"}', '{"a": "\n"}', '{"": {}}',
    '{"a": 1e999}', f'{{"a": {"9" * 10_000}}}', '{"a": "' + "x" * 2_000_000 + '"}', json.dumps({str(n): n for n in range(50_000)}), DEEP,
    DEEP_OBJECT,
    DEEP + "]" * 100_000, b"\xff\xfe{\0}\0", b"\0\0\0\0", b"{\"a\": \"\xfc\"}", b"\x1f\x8b\x08", "a: 1\n", "<xml/>",
    "version https://git-lfs",
    '{"ga_weeks": "weeks"}', '{"ga_weeks": null}', '{"ga_weeks": [1, 2]}', '{"ga_weeks": {"Units": {"Units": "weeks"}}}',
    '{"ga_weeks": 29}',
    '{"SliceTiming": 1}', '{"SliceTiming": ["a", null]}', '{"SliceTiming": {}}', '{"SliceEncodingDirection": 7}',
    '{"SliceThickness": "thick"}',
    '{"Sources": 5}', '{"Sources": [null, {}]}', '{"Sources": {"a": 1}}', '{"DatasetType": ["derivative"]}', '{"GeneratedBy": 1}',
    '{"Name": {}}',
]  # fmt: skip
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ga_weeks", "Units", "SliceTiming", "a", ""]), inner,
    max_size=3),
    max_leaves=6,
)
WHERE = ("scans", "image", "description", "participants", "everybody", "mask")


def put_json(root: Path, label: str, where: str, content: str | bytes) -> None:
    """A JSON file of one participant, whose image is a stack, so that its sidecar is read too."""
    put(root / name_of(label), image_bytes(6.0))
    put(scans_of(root, label), table(("filename", "ga_weeks"), (f"anat/sub-{label}_T2w.nii", "29")))
    mask = put(root / f"derivatives/masks/sub-{label}/anat/sub-{label}_desc-brain_mask.nii", image_bytes(6.0))
    path = {"scans": scans_of(root, label).with_suffix(".json"), "image": (root / name_of(label)).with_suffix(".json")}
    put(path.get(where, mask.with_suffix(".json")), content)


def test_json_beside_tables_images_and_masks(tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    labels = {f"{where}{n}": (where, content) for where in ("scans", "image", "mask") for n, content in enumerate(JSONS)}
    for label, (where, content) in labels.items():
        put_json(root, label, where, content)
    output = dry_run(root, small_atlas, "-d", str(root / "derivatives/masks"))
    check(root, output)
    ages = {label: age_of(output, label) for label in labels}
    assert set(ages.values()) == {29.0, "fails"}
    for label, (where, content) in labels.items():
        if where == "mask":
            assert ages[label] == 29.0, content[:100]  # such a mask is matched by its name
        elif _object(content) is None:
            assert ages[label] == "fails" and ".json" in output.failures[name_of(label)][1], (where, content[:100])


def _object(content: str | bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content.encode().decode("utf-8-sig") if isinstance(content, str) else content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@pytest.mark.parametrize("name", ["dataset_description.json", "participants.json", "scans.json", "T2w.json"])
def test_json_of_the_whole_dataset(name: str, tmp_path: Path, small_atlas: Path) -> None:
    """Of a description that cannot be read the dataset does not depend; of units it does."""
    root = make_dataset(new_root(tmp_path))
    for content in JSONS[:: 1 if name == "dataset_description.json" else 3]:
        put(root / name, content)
        output = dry_run(root, small_atlas)
        right = {"participants.json": ("02",), "scans.json": ("03",)}.get(name, BOTH)
        check(root, output, right=right)
        if _object(content) is None and name != "T2w.json":  # no image is a stack
            assert re.search(rf"{re.escape(str(root / name))}: ", output.all), content[:100]


def batches(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, min_size=BATCH, max_size=BATCH)


def pieces() -> Iterator[bytes]:
    yield from (b"filename", b"ga_weeks", b"anat/IMAGE", b"29", b"\t", b"\n", b"\r", b" ", b",", b'"', b"\xff", b"\0", b"n/a", b"age",
    b"\xef\xbb\xbf")


TABLE_BYTES = st.lists(st.sampled_from(list(pieces())) | st.binary(max_size=4), max_size=25).map(b"".join)


@MANY
@given(contents=batches(st.binary(max_size=200) | TABLE_BYTES | TABLE_BYTES.map(lambda tail: (HEAD + GOOD).encode() + tail)))
def test_any_bytes_as_a_table(contents: list[bytes], tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    for n, content in enumerate(contents):
        put_table(root, f"b{n}", content)
    output = dry_run(root, small_atlas)
    check(root, output)
    assert {age_of(output, f"b{n}") for n in range(BATCH)} <= {"fails", *(float(age) for age in re.findall(r"age +([\d.]+)", output.text))}


@MANY
@given(cuts=batches(st.tuples(st.integers(0, 35), st.binary(min_size=1, max_size=2))))
def test_bytes_of_a_table_that_are_others(cuts: list[tuple[int, bytes]], tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    good = (HEAD + GOOD).encode()
    for n, (at, other) in enumerate(cuts):
        put_table(root, f"b{n}", good[:at] + other + good[at + len(other) :])
    output = dry_run(root, small_atlas)
    check(root, output)
    assert all(age_of(output, f"b{n}") for n in range(BATCH))


@MANY
@given(values=batches(st.text(max_size=12) | st.from_regex(r"\A[0-9+.,wd /-]{1,8}\Z")))
def test_any_text_as_an_age(values: list[str], tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    for n, value in enumerate(values):
        put_table(root, f"b{n}", HEAD + GOOD.replace("29", value.replace("\t", " ")))
    output = dry_run(root, small_atlas)
    check(root, output)
    for n in range(BATCH):
        age = age_of(output, f"b{n}")
        assert age == "fails" or 10 <= float(age) <= 120


@MANY
@given(contents=batches(JSON_VALUES), where=st.sampled_from(["scans", "image", "mask"]))
def test_any_json(contents: list[Any], where: str, tmp_path: Path, small_atlas: Path) -> None:
    root = make_dataset(new_root(tmp_path))
    for n, content in enumerate(contents):
        put_json(root, f"j{n}", where, json.dumps(content))
    output = dry_run(root, small_atlas, "-d", str(root / "derivatives/masks"))
    check(root, output)
    assert all(age_of(output, f"j{n}") in {29.0, "fails"} for n in range(BATCH))
