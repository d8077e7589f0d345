"""Invalid folders, links, names and permissions: they affect one participant, never the whole dataset."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bad_datasets import AGES, BOTH, Case, check, dry_run, first, folder_for_all, hold, image, image_bytes, make_dataset, put, table

LONG = "A" * 150


def link(root: Path, name: str, target: str | Path) -> None:
    path = root / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def moved(root: Path, old: str, new: str) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


def folder_for(root: Path, name: str) -> None:
    """A folder where a file was, with a file in it."""
    (root / name).unlink(missing_ok=True)
    put(root / name / "x")


def file_for(root: Path, name: str, content: bytes = b"x") -> None:
    """A file where a folder was."""
    if (root / name).is_dir():
        shutil.rmtree(root / name)
    put(root / name, content)


def raw_name(root: Path, folder: str, name: bytes) -> None:
    """A file whose name is any bytes."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / os.fsdecode(name)).write_bytes(image_bytes())


def outside(root: Path, name: str) -> Path:
    return image(root.parent / "elsewhere", name)


T2W = "sub-01/anat/sub-01_T2w.nii"
LINKS = [
    Case("image is a broken link", lambda r: link(r, T2W, "../../nowhere.nii"), "fails", "link to what is not there"),
    Case("image is a link to itself", lambda r: link(r, T2W, "sub-01_T2w.nii"), "fails"),
    Case("image is two links that lead to one another", lambda r: (link(r, T2W, "a.nii"), link(r, "sub-01/anat/a.nii", first(r).name)),
        "fails"),
    Case("image is a link to a folder", lambda r: link(r, T2W, ".."), "gone", "T2w.nii: .*folder"),
    Case("image is a link to an empty folder", lambda r: (put(r / "code/x"), link(r, T2W, "../../code")), "gone", "T2w.nii: .*folder"),
    Case("image is a link out of the dataset", lambda r: link(r, T2W, outside(r, "a.nii")), 29.0),
    Case("image is a link to another's", lambda r: link(r, T2W, "../../sub-02/anat/sub-02_T2w.nii"), 29.0),
    Case("image is a link through a file", lambda r: link(r, T2W, "../../participants.tsv/x"), "fails"),
    Case("image is a link to a name too long", lambda r: link(r, T2W, "x" * 300), "fails"),
    Case("image is a link to a device", lambda r: link(r, T2W, "/dev/null"), "fails"),
    Case("anat is a broken link", lambda r: link(r, "sub-01/anat", "../nowhere"), "gone", "LACKING: sub-01/anat"),
    Case("anat is a link to itself", lambda r: link(r, "sub-01/anat", "anat"), "gone", "LACKING: sub-01/anat"),
    Case("anat is a link to its participant", lambda r: link(r, "sub-01/anat", "."), "gone"),
    Case("anat is a link out of the dataset", lambda r: link(r, "sub-01/anat", outside(r, "sub-01_T2w.nii").parent), 29.0),
    Case("anat is a link to another's", lambda r: link(r, "sub-01/anat", "../sub-02/anat"), "gone", "sub-01/anat/sub-02_T2w.nii"),
    Case("participant is a broken link", lambda r: link(r, "sub-01", "nowhere"), "gone", "LACKING: sub-01"),
    Case("participant is a link to itself", lambda r: link(r, "sub-01", "sub-01"), "gone", "LACKING: sub-01"),
    Case("participants are links to one another", lambda r: (link(r, "sub-01", "sub-04"), link(r, "sub-04", "sub-01")), "gone",
        "LACKING: sub-04"),
    Case("participant is a link to the dataset", lambda r: link(r, "sub-01", "."), "gone"),
    Case("participant is a link to the folder above", lambda r: link(r, "sub-01", ".."), "gone"),
    Case("participant is a link to another", lambda r: link(r, "sub-01", "sub-02"), "gone", "sub-01/anat/sub-02_T2w.nii"),
    Case("participant is a link to a file", lambda r: link(r, "sub-01", "participants.tsv"), "gone"),
    Case("participant is a link to a name too long", lambda r: link(r, "sub-01", "x" * 300), "gone", "LACKING: sub-01"),
    Case("session is a link to its participant", lambda r: link(r, "sub-01/ses-1", "../sub-01"), 29.0),
    Case("session is a link to itself", lambda r: link(r, "sub-01/ses-1", "ses-1"), 29.0, "LACKING: sub-01/ses-1"),
    Case("anat holds a link to itself", lambda r: link(r, "sub-01/anat/anat", "."), 29.0),
    Case("func is a broken link", lambda r: link(r, "sub-01/func", "nowhere"), 29.0),
    Case("participants.tsv is a link to itself", lambda r: link(r, "participants.tsv", "participants.tsv"), "fails", "participants.tsv",
        ("02",)),
    Case("participants.tsv is a broken link", lambda r: link(r, "participants.tsv", "nowhere"), "fails", "participants.tsv", ("02",)),
    Case("participants.tsv is a link to a folder", lambda r: link(r, "participants.tsv", "sub-02"), "fails", "participants.tsv", ("02",)),
    Case("participants.tsv is a link to a device", lambda r: link(r, "participants.tsv", "/dev/null"), "fails", "participants.tsv", ("02",
        )),
    Case("scans.tsv is a broken link", lambda r: link(r, "sub-01/sub-01_scans.tsv", "nowhere"), "fails", "sub-01_scans.tsv"),
    Case("scans.tsv is a link to itself", lambda r: link(r, "sub-01/sub-01_scans.tsv", "sub-01_scans.tsv"), "fails", "sub-01_scans.tsv"),
    Case("participants.json is a link to itself", lambda r: link(r, "participants.json", "participants.json"), "fails",
        "participants.json", ("02",)),
    Case("description is a link to itself", lambda r: link(r, "dataset_description.json", "dataset_description.json"),
        says="dataset_description", code=2),
    Case("description is a broken link", lambda r: link(r, "dataset_description.json", "nowhere"), says="dataset_description", code=2),
]  # fmt: skip

SWAPPED = [
    Case("image is a folder", lambda r: folder_for(r, T2W), "gone", "T2w.nii: .*folder"),
    Case("image is an empty folder", lambda r: (first(r).unlink(), first(r).mkdir()), "gone", "T2w.nii: .*folder"),
    Case("image is a folder of an image", lambda r: (first(r).unlink(), image(r, f"{T2W}/sub-01_T2w.nii")), "gone"),
    Case("compressed image is a folder", lambda r: folder_for(r, f"{T2W}.gz"), 29.0, "T2w.nii.gz: .*folder"),
    Case("anat is a file", lambda r: file_for(r, "sub-01/anat"), "gone"),
    Case("anat is an image", lambda r: file_for(r, "sub-01/anat", image_bytes()), "gone"),
    Case("participant is a file", lambda r: file_for(r, "sub-01"), "gone"),
    Case("participant is an image", lambda r: image(r, "sub-04.nii"), 29.0, "sub-04.nii: "),
    Case("participant is an image's folder", lambda r: image(r, "sub-04.nii/anat/sub-04_T2w.nii"), 29.0),
    Case("session is a file", lambda r: put(r / "sub-01/ses-1"), 29.0),
    Case("participants.tsv is a folder", lambda r: folder_for(r, "participants.tsv"), "fails", "participants.tsv", ("02",)),
    Case("participants.json is a folder", lambda r: folder_for(r, "participants.json"), "fails", "participants.json", ("02",)),
    Case("scans.tsv is a folder", lambda r: folder_for(r, "sub-01/sub-01_scans.tsv"), "fails", "sub-01_scans.tsv"),
    Case("scans.json is a folder", lambda r: folder_for(r, "sub-01/sub-01_scans.json"), 29.0),
    Case("description is a folder", lambda r: folder_for(r, "dataset_description.json"), 29.0, "dataset_description.json"),
    Case("description is missing", lambda r: (r / "dataset_description.json").unlink(), 29.0, "dataset_description.json"),
    Case("bidsignore is a folder", lambda r: folder_for(r, ".bidsignore"), 29.0),
    Case("sidecar of an image is a folder", lambda r: folder_for(r, "sub-01/anat/sub-01_T2w.json"), 29.0),
    Case("participant is empty", lambda r: (shutil.rmtree(r / "sub-01"), (r / "sub-01").mkdir()), "gone"),
    Case("anat is empty", lambda r: first(r).unlink(), "gone"),
    Case("image is a pipe", lambda r: (first(r).unlink(), os.mkfifo(first(r))), "fails"),
    Case("participants.tsv is a pipe", lambda r: ((r / "participants.tsv").unlink(), os.mkfifo(r / "participants.tsv")), "fails", "tsv",
        ("02",)),
    Case("scans.tsv is a pipe", lambda r: os.mkfifo(r / "sub-01/sub-01_scans.tsv"), "fails", "sub-01_scans.tsv"),
    Case("description is a pipe", lambda r: ((r / "dataset_description.json").unlink(), os.mkfifo(r / "dataset_description.json")), 29.0,
        "dataset_description"),
]  # fmt: skip

WRONG_IN_ANAT = (
    "sub-01_T2w.NII", "sub-01_T2w.Nii.Gz", "sub-01_T2W.nii", "sub-01_t2w.nii", "SUB-01_T2w.nii", "Sub-01_acq-a_T2w.nii", "sub-1_T2w.nii",
    "sub-001_T2w.nii", "sub_01_T2w.nii", "sub-01-T2w.nii", "sub-01 T2w.nii", "sub-01__T2w.nii", "_sub-01_T2w.nii", "sub-01_T2w .nii",
    " sub-01_T2w.nii", "sub-01_T2w(1).nii", "sub-01_T2w copy.nii", "sub-01_T2w..nii", "sub-01_T2w.x.nii", "sub-01_T2w.nii.nii",
    "sub-01_T2w.gz.nii", "sub-01_acq_T2w.nii", "sub-01_acq-_T2w.nii", "sub-01_acq-a-b_T2w.nii", "sub-01_acq-a_acq-b_T2w.nii",
    "sub-01_acq-é_T2w.nii", "sub-01_acq-e\u0301_T2w.nii", "sub-01_acq-日本_T2w.nii", "sub-01_acq-\U0001f9e0_T2w.nii",
    "sub-01_acq-a%20b_T2w.nii",
    "sub-01_acq-a&b_T2w.nii", "sub-01_acq-$(reboot)_T2w.nii", "sub-01_acq-'a'_T2w.nii", 'sub-01_acq-"a"_T2w.nii', "sub-01_acq-a;b_T2w.nii",
    "sub-01_acq-*_T2w.nii", "sub-01_acq-[a]_T2w.nii", "sub-01_acq-{a}_T2w.nii", "sub-01_acq-a\\b_T2w.nii", "sub-01_acq-a\nb_T2w.nii",
    "sub-01_T2w\n.nii", "sub-01_T2w.nii\n", "sub-01_acq-a\tb_T2w.nii", "sub-01_acq-\x1b[31m_T2w.nii", "sub-01_acq-\u202e_T2w.nii",
    "._sub-01_T2w.nii", "._sub-01_T2w.nii.gz", ".sub-01_T2w.nii", "sub-01_ses-1_T2w.nii", "sub-02_T2w.nii", "sub-01.nii", "T2w.nii",
    "anat.nii",
    "sub-01_T2w_heudiconv1_Eq_1.nii", "sub-01_cropped_T2w.nii", "sub-01_T2w.mgz", "sub-01_T2w.hdr", "sub-01_T2w.img", "sub-01_T2w.nrrd",
    "sub-01_T2w.mha", "sub-01_T2w.dcm", "sub-01_PDw.nii", "sub-01_T2starw.nii", "sub-01_desc-reoriented_T2w.nii",
    "sub-01_part-phase_T2w.nii",
    "sub-01_space-MNI_cohort-1_T2w.nii", "sub-01_desc-brain_mask.nii", "sub-\u0660\u0661_T2w.nii", "sub-01_T2w.nii.GZ", "sub-01_T2w.NII.gz",
)  # fmt: skip
RAW_NAMES = (b"sub-01_acq-\xfc_T2w.nii", b"\xff\xfe_T2w.nii.gz", b"sub-01_\xe9_T2w.nii", b"sub-01_T2w\x80.nii")
WRONG_FOLDERS = (
    "Sub-04/anat/sub-04_T2w.nii", "SUB-04/anat/SUB-04_T2w.nii", "sub_04/anat/sub_04_T2w.nii", "sub04/anat/sub04_T2w.nii",
    "subject-04/T2w.nii",
    "sub-/anat/sub-_T2w.nii", "sub-04 /anat/sub-04_T2w.nii", "sub-0 4/anat/sub-04_T2w.nii", "sub-04_x/anat/sub-04_x_T2w.nii",
    "sub-é/anat/sub-é_T2w.nii", "sub-e\u0301/anat/sub-e\u0301_T2w.nii", "sub-日本/anat/sub-日本_T2w.nii", "sub-a\nb/anat/sub-a\nb_T2w.nii",
    "sub-04/Anat/sub-04_T2w.nii", "sub-04/ANAT/sub-04_T2w.nii", "sub-04/anat /sub-04_T2w.nii", "sub-04/sub-04_T2w.nii",
    "sub-04/anat/x/sub-04_T2w.nii", "sub-04/ses1/anat/sub-04_ses-1_T2w.nii", "sub-04/Ses-1/anat/sub-04_ses-1_T2w.nii",
    "sub-04/ses-/anat/sub-04_T2w.nii", "sub-04/ses-1/sub-04_ses-1_T2w.nii", "sub-04/ses-1/anat/sub-04_T2w.nii",
    "sub-04/ses-1/anat/sub-04_ses-2_T2w.nii", "sub-04/ses-é/anat/sub-04_ses-é_T2w.nii", "sub-04/ses-1/ses-1/anat/sub-04_ses-1_T2w.nii",
    "sub-04/anat/sub-04_T2w.nii/sub-04_T2w.nii", "sub-04/sub-04/anat/sub-04_T2w.nii", "sub-04_T2w.nii", "T2w.nii.gz", "anat/sub-04_T2w.nii",
    "ses-1/anat/sub-04_ses-1_T2w.nii", "sub-04.old/anat/sub-04_T2w.nii", "sub-04.bak/anat/sub-04_T2w.nii", "sub-04(1)/anat/sub-04_T2w.nii",
    "sub-../anat/sub-.._T2w.nii", "sub-~/anat/sub-~_T2w.nii", "sub-$HOME/anat/sub-04_T2w.nii", "sub-*/anat/sub-04_T2w.nii",
    "Sub-01/anat/sub-01_T2w.nii",
)  # fmt: skip
WELL = (
    Case("hidden folders are left alone", lambda r: (image(r, ".git/annex/sub-01_T2w.nii"), image(r, ".sub-01/anat/sub-01_T2w.nii")), 29.0),
    Case("derivatives without a description", lambda r: image(r, "derivatives/x/sub-01/anat/sub-01_T2w.nii"), 29.0),
    Case("derivatives are a file", lambda r: put(r / "derivatives"), 29.0),
    Case("derivatives are a link to the dataset", lambda r: link(r, "derivatives", "."), 29.0),
    Case("derivatives are a link to itself", lambda r: link(r, "derivatives", "derivatives"), 29.0),
    Case("bidsignore", lambda r: put(r / ".bidsignore", "sub-01/\n*_T2w.nii\n"), 29.0),
    Case("bidsignore is binary", lambda r: put(r / ".bidsignore", b"\xff\xfe\x00"), 29.0),
    Case("AppleDouble of tables", lambda r: (put(r / "._participants.tsv", b"\0\5\x16\7"), put(r / "sub-01/._sub-01_scans.tsv", b"\0\5")),
        29.0),
    Case("AppleDouble of sidecars", lambda r: put(r / "sub-01/anat/._sub-01_T2w.json", b"\0\5\x16\7"), 29.0),
    Case("compressed beside plain", lambda r: put(first(r, "T2w.nii.gz"), image_bytes()), "fails", "are one image by their name"),
    Case("compressed beside plain, of which one is a link", lambda r: link(r, f"{T2W}.gz", "sub-01_T2w.nii"), "fails", "are one image"),
    Case("sub-01 and sub-1", lambda r: (image(r, "sub-1/anat/sub-1_T2w.nii"), put(r / "participants.tsv", table(
        ("participant_id", "ga_weeks"), ("sub-01", "29"), ("sub-1", "30"), ("sub-03", "24.5")))), 29.0),
    Case("sub-1 has no row, sub-01 has", lambda r: image(r, "sub-1/anat/sub-1_T2w.nii"), 29.0, "sub-1_T2w.nii: no usable age"),
    Case("some have sessions", lambda r: (image(r, "sub-04/ses-1/anat/sub-04_ses-1_T2w.nii"), image(r, "sub-04/anat/sub-04_T2w.nii")),
        29.0),
    Case("session beside none", lambda r: image(r, "sub-01/ses-2/anat/sub-01_ses-2_T2w.nii"), 29.0),
    Case("long name", lambda r: image(r, f"sub-01/anat/sub-01_acq-{LONG}_T2w.nii"), 29.0),
    Case("name as long as can be", lambda r: image(r, f"sub-01/anat/sub-01_acq-{'A' * 235}_T2w.nii"), 29.0, "long.*shorten"),
    Case("name whose outputs would be too long", lambda r: image(r, f"sub-01/anat/sub-01_acq-{'A' * 190}_T2w.nii"), 29.0, "long.*shorten"),
    Case("label as long as can be", lambda r: image(r, f"sub-{'B' * 120}/anat/sub-{'B' * 120}_T2w.nii"), 29.0),
    Case("name that is not valid, in a raw dataset", lambda r: image(r, "sub-01/anat/sub-01_foo-1_T2w.nii"), 29.0,
        "foo-1.*--skip-bids-validation"),
    Case("name of a derivative, in a raw dataset", lambda r: image(r, "sub-01/anat/sub-01_desc-x_T2w.nii"), 29.0, "desc-x.*--skip-bids"),
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ds"


@pytest.mark.parametrize("case", LINKS, ids=lambda case: case.name)
def test_links(case: Case, root: Path, small_atlas: Path) -> None:
    hold(case, root, small_atlas)


@pytest.mark.parametrize("case", SWAPPED, ids=lambda case: case.name)
def test_folders_for_files_and_files_for_folders(case: Case, root: Path, small_atlas: Path) -> None:
    hold(case, root, small_atlas)


@pytest.mark.parametrize("case", WELL, ids=lambda case: case.name)
def test_what_else_lies_in_a_dataset(case: Case, root: Path, small_atlas: Path) -> None:
    hold(case, root, small_atlas)


@pytest.mark.parametrize("name", WRONG_IN_ANAT)
def test_names_in_anat_that_are_not_right(name: str, root: Path, small_atlas: Path) -> None:
    def rename(r: Path) -> None:
        image(r, f"sub-04/anat/{name.replace('01', '04')}")

    hold(Case(name, rename, 29.0), root, small_atlas)


@pytest.mark.parametrize("name", RAW_NAMES)
@pytest.mark.parametrize("folder", ["sub-01/anat", "sub-04/anat", "."])
def test_names_that_are_no_text(name: bytes, folder: str, root: Path, small_atlas: Path) -> None:
    hold(Case("raw", lambda r: raw_name(r, folder, name), 29.0), root, small_atlas)


@pytest.mark.parametrize("name", [b"sub-\xfc", b"sub-01/ses-\xfc", b"sub-04/anat\xfc"])
def test_folders_whose_names_are_no_text(name: bytes, root: Path, small_atlas: Path) -> None:
    hold(Case("raw", lambda r: image(r, f"{os.fsdecode(name)}/anat/{os.fsdecode(name.rpartition(b'/')[2])}_T2w.nii"), 29.0), root,
        small_atlas)


@pytest.mark.parametrize("name", WRONG_FOLDERS)
def test_folders_that_are_not_right(name: str, root: Path, small_atlas: Path) -> None:
    output = hold(Case(name, lambda r: image(r, name), 29.0), root, small_atlas)
    assert not output.failures


@pytest.mark.parametrize("name", [b"a dataset", "ü ä".encode(), b"\xfc", b"a\nb", b"*?[a]", b"sub-01", b"-d", b"a=b", b"$HOME", b"%s{}"])
def test_folders_of_datasets_have_any_name(name: bytes, tmp_path: Path, small_atlas: Path) -> None:
    root = tmp_path / os.fsdecode(name)
    hold(Case("root", lambda r: None, 29.0), root, small_atlas)


def test_dataset_by_way_of_links_and_dots(root: Path, small_atlas: Path) -> None:
    make_dataset(root)
    (root.parent / "link").symlink_to(root)
    for way in (root.parent / "link", root / "sub-01" / "..", root / ".", root.parent / "link" / ".." / "ds"):
        output = dry_run(way, small_atlas)
        assert output.code == 0 and output.ages == {f"sub-{s}/anat/sub-{s}_T2w.nii": a for s, a in {"01": 29.0, **AGES}.items()}, way


@contextmanager
def as_somebody() -> Iterator[Path]:
    """A folder of one's own, and the rights of a user: root may read everything."""
    folder = folder_for_all()
    user = os.geteuid()
    try:
        yield folder
    finally:
        os.seteuid(user)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)


FORBIDDEN = [
    (T2W, "fails", BOTH, "Permission denied"),
    ("sub-01/anat", "gone", BOTH, "LACKING: sub-01/anat: the folder cannot be read"),
    ("sub-01", "gone", BOTH, "LACKING: sub-01: the folder cannot be read"),
    ("participants.tsv", "fails", ("02",), "participants.tsv: cannot be read"),
    ("sub-01/sub-01_scans.tsv", "fails", BOTH, "scans.tsv: cannot be read"),
    ("sub-01/ses-1", 29.0, BOTH, "LACKING: sub-01/ses-1: the folder cannot be read"),
    ("participants.json", "fails", ("02",), "participants.json: cannot be read"),
    ("dataset_description.json", 29.0, BOTH, "dataset_description.json: cannot be read"),
    (".", None, (), "cannot be read"),
    ("derivatives", 29.0, BOTH, ""),
]


@pytest.mark.parametrize(("name", "outcome", "right", "says"), FORBIDDEN, ids=[row[0] for row in FORBIDDEN])
def test_what_one_may_not_read(
    name: str, outcome: str | float | None, right: tuple[str, ...], says: str, small_atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_somebody() as folder:
        root = make_dataset(folder / "ds")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        atlas = Path(shutil.copytree(small_atlas, folder / "atlas"))
        if not (root / name).exists():
            (root / name).mkdir(parents=True) if "." not in name else put(root / name)
        dry_run(root, atlas)  # what must be imported and made ready is, before the rights are gone
        (root / name).chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        output = dry_run(root, atlas)
        os.seteuid(os.getuid())
        assert says in output.all and ("Permission denied" in output.all or not says), output.all
        check(root, output, right=right)
        found = "fails" if T2W in output.failures else output.ages.get(T2W, "gone")
        assert outcome is None or found == outcome, output.all
