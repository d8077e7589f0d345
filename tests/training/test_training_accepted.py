"""From `posepipe-tools reference` to `train sources --references`: answers are kept, and poses that are not accepted are not used."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posepipe import phantom
from posepipe.atlas import AtlasLibrary
from posepipe.bids import find_images
from posepipe.cli.tools import main
from posepipe.errors import UsageError
from posepipe.geometry import Rigid
from posepipe.imaging.volume import save_volume
from posepipe.training.reference_table import ReferenceRow, References, read_references, write_references
from posepipe.training.sources import Collector
from posepipe.training.split import Split
from posepipe.training.subjects import Reference, add_imaged_subjects

NOBODY = Split(frozenset(), frozenset())
T2W, T1W = "sub-03/anat/sub-03_T2w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz"


@dataclass(frozen=True)
class Made:
    """A dataset of one newborn, T2w and T1w on one grid, and what ``reference`` wrote of it."""

    bids: Path
    table: Path
    command: tuple[str, ...]
    output: str
    reference: Reference
    truth: Rigid


@pytest.fixture(scope="module")
def made(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """By the command line."""
    folder = tmp_path_factory.mktemp("references")
    bids, out = folder / "newborns", folder / "out"
    shutil.copytree(demo.bids_dir, bids, ignore=shutil.ignore_patterns("sub-01", "sub-02"))
    command = ("reference", str(bids), "--atlas", "Phantom", "--atlas-dir", str(demo.atlas_dir), "-o", str(out))
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posepipe.cli.reference_command._say", lines.append)
        assert main(command) == 0
    with demo.truth_tsv.open(newline="") as file:
        row = next(r for r in csv.DictReader(file, delimiter="\t") if "sub-03_T2w" in r["file"])
    truth = Rigid.from_rotvec([float(row[k]) for k in ("rx", "ry", "rz")])
    reference = Reference(AtlasLibrary([demo.atlas_dir]), "Phantom")
    return Made(bids, out / "references.tsv", command, "\n".join(lines), reference, truth)


@pytest.fixture
def answered(made: Made, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the table with other cells, by image."""

    def write(**cells: dict[str, str]) -> Path:
        with made.table.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        for row in rows:
            row |= cells.get(row["image"].rpartition("_")[2].partition(".")[0], {})
        path = tmp_path / "references.tsv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def gather(made: Made, table: Path) -> tuple[list[str], Collector]:
    """Messages when the newborn's volumes are gathered, and the collector."""
    messages: list[str] = []
    collector = Collector(NOBODY, messages.append)
    add_imaged_subjects(collector, made.bids, made.reference, accepted=References.load(table))
    return messages, collector


def test_what_reference_writes(made: Made) -> None:
    assert sorted(p.name for p in made.table.parent.iterdir()) == ["references-01.png", "references.json", "references.tsv"]
    assert (made.table.parent / "references-01.png").read_bytes().startswith(b"\x89PNG")
    rows = {row.image: row for row in read_references(made.table)}
    assert set(rows) == {T1W, T2W} and {row.accepted for row in rows.values()} == {"n/a"}
    for row in rows.values():
        assert row.agree and Rigid(row.matrix, np.zeros(3)).degrees_from(made.truth) < 5
        assert row.dataset == "newborns" and row.template.startswith("Phantom+")
    assert "2 poses, 0 in doubt; accepted yes 0, no 0, not answered 2" in made.output


def test_accepted_poses_are_used_as_they_stand(made: Made, answered: Callable[..., Path]) -> None:
    """Not found anew: another rotation in the table gives another source."""
    messages, collector = gather(made, made.table)
    assert messages == [line for line in messages if "left out" not in line] and "sub-03: T2w T1w" in messages[0]
    turned = answered(T2w={"rotation_x": "1.0", "rotation_y": "0", "rotation_z": "0", "accepted": "yes", "agree": "no"})
    other = gather(made, turned)[1].sources()
    upright = collector.sources()
    assert np.abs(upright.voxels[0].astype(int) - other.voxels[0]).mean() > 10


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"accepted": "no"}, "its reference pose is not accepted"),
        ({"accepted": "No "}, "its reference pose is not accepted"),
        ({"agree": "no", "doubt": "the two ways are 170° apart"}, "nobody has accepted it (the two ways are 170° apart)"),
        ({"image": "sub-04/anat/sub-04_T2w.nii.gz"}, "no reference pose; run posepipe-tools reference"),
        ({"dataset": "others"}, "no reference pose; run posepipe-tools reference"),
        ({"sha256": "0" * 64}, "has changed since its reference pose was found"),
    ],
)
def test_what_is_not_accepted_is_left_out(made: Made, answered: Callable[..., Path], cells: dict[str, str], words: str) -> None:
    messages, collector = gather(made, answered(T2w=cells, T1w=cells | {"image": cells.get("image", T1W).replace("T2w", "T1w")}))
    assert len(messages) == 1 and messages[0].startswith("sub-03: left out") and words in messages[0]
    with pytest.raises(UsageError, match="no source volumes"):
        collector.sources()


def test_one_refused_image_does_not_take_the_other_with_it(made: Made, answered: Callable[..., Path]) -> None:
    messages, collector = gather(made, answered(T1w={"accepted": "no"}))
    assert "sub-03_T1w.nii.gz: left out, its reference pose is not accepted" in messages
    assert {p.kind for p in collector.sources().volumes} == {"T2w"}
    messages, collector = gather(made, answered(T2w={"accepted": "no"}, T1w={"accepted": "yes"}))
    assert "sub-03_T2w.nii.gz: left out, its reference pose is not accepted" in messages
    assert {p.kind for p in collector.sources().volumes} == {"T1w"}


def test_answers_are_kept_for_the_same_file_and_pose(made: Made, answered: Callable[..., Path]) -> None:
    found = read_references(made.table)
    path = answered(T2w={"accepted": "yes"}, T1w={"accepted": "no"})
    assert [row.accepted for row in write_references(path, found)] == ["no", "yes"]
    assert [row.accepted for row in read_references(path)] == ["no", "yes"]
    # of one image alone: the other's row stays
    assert [row.accepted for row in write_references(path, found[:1])] == ["no", "yes"]
    for cells in ({"rotation_x": "2.0"}, {"sha256": "0"}, {"template": "Phantom+24"}):
        path = answered(T2w=cells | {"accepted": "yes"}, T1w={"accepted": "no"})
        assert [row.accepted for row in write_references(path, found)] == ["no", "n/a"]


@pytest.mark.slow
def test_the_command_keeps_answers(made: Made, capsys: Any) -> None:
    """Run again as a whole; this comes last, as it changes the table."""
    text = made.table.read_text()
    made.table.write_text("".join(line.replace("\tn/a\n", "\tyes\n") for line in text.splitlines(keepends=True)))
    assert main(made.command) == 0
    assert "accepted yes 2, no 0, not answered 0" in capsys.readouterr().out
    made.table.write_text(text)


@pytest.mark.slow
def test_gathering_without_answers_checks_both_ways(made: Made, tmp_path: Path) -> None:
    """A head as far from the axes of its grid as can be, 60° about a diagonal, is left out, with the reason."""
    bids = tmp_path / "newborns"
    shutil.copytree(made.bids, bids)
    (bids / T1W).unlink()
    pose = Rigid.from_rotvec(np.radians(60) * np.ones(3) / np.sqrt(3))
    age = read_references(made.table)[0].age
    image, mask, _ = phantom.subject(age, rng=np.random.default_rng(3), pose=pose, spacing=2.0, directions=np.eye(3))
    save_volume(image.with_data(np.where(mask.data > 0, image.data.clip(1), 0).astype(np.int16)), bids / T2W)
    messages: list[str] = []
    add_imaged_subjects(Collector(NOBODY, messages.append), bids, made.reference)
    assert len(messages) == 1 and "sub-03: left out" in messages[0], messages
    assert "the two methods for its reference pose differ" in messages[0], messages


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"accepted": "maybe"}, "line 3: .*accepted is 'maybe'; write yes, no or n/a"),
        ({"rotation_x": "nan"}, "rotation vector is not finite"),
        ({"criterion": "high"}, "line 3: .*'high'"),
        ({"image": T1W}, "newborns/sub-03/anat/sub-03_T1w.nii.gz there twice"),
    ],
)
def test_tables_that_cannot_be(answered: Callable[..., Path], cells: dict[str, str], words: str) -> None:
    path = answered(T2w=cells)
    with pytest.raises(UsageError, match=words):
        References.load(path)


def test_a_table_that_is_none_is_not_written_over(made: Made, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "references.tsv"
    path.write_text("participant_id\tage\nsub-1\t30\n")
    with pytest.raises(UsageError, match="no column dataset"):
        write_references(path, read_references(made.table))
    assert main([*made.command[:-1], str(tmp_path)]) == 2
    assert "not a table of reference poses" in capsys.readouterr().err and path.read_text().startswith("participant_id")
    out = str(tmp_path / "s.npz")
    base = ["train", "sources", "--atlas-dir", str(made.command[5]), "-o", out, "--references", str(tmp_path / "none.tsv")]
    assert main(base) == 2 and "name their datasets" in capsys.readouterr().err
    assert main([*base, "--subjects", str(made.bids), "--reference", "Phantom"]) == 2
    assert "none.tsv: no such file; posepipe-tools reference writes it" in capsys.readouterr().err


def test_a_dataset_without_the_contrast_is_reported(made: Made, tmp_path: Path, capsys: Any) -> None:
    bids = tmp_path / "newborns"
    shutil.copytree(made.bids, bids)
    (bids / T1W).unlink()
    assert main(["reference", str(bids), *made.command[2:-1], str(tmp_path / "out"), "--contrast", "T1w"]) == 2
    assert "no T1w image of these participants" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_rows_are_of_the_file_that_was_seen(made: Made) -> None:
    images = {image.relative.as_posix(): image for image in find_images(made.bids)}
    rows = read_references(made.table)
    assert all(isinstance(row, ReferenceRow) for row in rows)
    known = References(rows)
    assert known.of(images[T2W]).image == T2W and not known.refused(images[T2W])
