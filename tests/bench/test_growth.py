"""Growth of time and memory: the exponents, what is measured of a command, the datasets, and a small run."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from posepipe.bench import growth, growth_data, growth_run, growth_tables
from posepipe.bench.growth import Row
from posepipe.bench.growth_tables import WORSE
from posepipe.bench.rows import read_rows
from posepipe.cli.bench_growth import NAMES
from posepipe.cli.tools import main
from posepipe.imaging.volume import load_volume


def rows(power: float, *noise: float, quantity: str = "images", sizes: tuple[int, ...] = (1, 4, 16)) -> list[Row]:
    """Rows whose seconds grow with ``power``; one repeat for each factor of ``noise``."""
    return [Row(quantity, size, k, size**power * factor, 5.0, 100.0 + size) for size in sizes for k, factor in enumerate(noise or (1.0,))]


@pytest.mark.parametrize("power", [0.5, 1.0, 1.2, 2.0])
def test_exponents_of_a_power(power: float):
    found = growth_tables.growth(rows(power), "seconds")
    assert (found.two, found.three) == (pytest.approx(power), pytest.approx(power))
    assert (found.least_two, found.least_three) == (found.two, found.three)
    assert found.is_worse is (power > 1.1)
    flat = growth_tables.growth(rows(power), "processor")
    assert flat.two == pytest.approx(0) and not flat.is_worse


def test_the_exponent_is_over_voxels_where_the_size_is_an_edge():
    found = growth_tables.growth(rows(3, quantity="voxels", sizes=(64, 128, 256)), "seconds")
    assert (found.two, found.three) == (pytest.approx(1), pytest.approx(1))


def test_noise_of_repeats_is_taken_off():
    """Exponent 1.3 between 4 and 16: a factor of 1.32 above linear with 1.1; the repeats differ by less, or by more."""
    small, large = growth_tables.growth(rows(1.3, 0.95, 1.0, 1.05), "seconds"), growth_tables.growth(rows(1.3, 0.7, 1.0, 1.4), "seconds")
    assert small.two == large.two == pytest.approx(1.3)
    assert small.least_two == pytest.approx(1.3 - 0.0722, abs=1e-3)  # log(1.05 / 0.95) / log 4
    assert small.is_worse
    assert large.least_two == pytest.approx(0.8, abs=1e-3)
    assert large.least_three == pytest.approx(1.05, abs=1e-3)
    assert not large.is_worse


def test_one_steep_end_is_enough():
    grown = [replace(row, seconds=40.0) if row.size == 16 else row for row in rows(1.0)]
    found = growth_tables.growth(grown, "seconds")
    assert found.two == pytest.approx(1.661, abs=1e-3) and found.three == pytest.approx(1.330, abs=1e-3)
    assert found.is_worse


def test_fewer_sizes_have_no_exponent():
    two, one = growth_tables.growth(rows(2, sizes=(1, 4)), "seconds"), growth_tables.growth(rows(2, sizes=(4,)), "seconds")
    assert two.two == pytest.approx(2) and two.three is None and two.is_worse
    assert one.two is None and not one.is_worse


def test_the_tables_say_what_is_worse_than_linear(tmp_path: Path):
    measured = [*rows(2.0), *rows(1.0, 0.9, 1.0, 1.2, quantity="page", sizes=(10, 100))]
    text = growth_tables.report(measured, "A machine", shared=True)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    sizes = [line for line in lines if len(line) == 7]
    assert sizes[2] == ["images in a job", "4", "1", "16.00 (16.00–16.00)", "5.00", "0", "104"]
    assert ["images on the group page", "100", "3", "100.00 (90.00–120.00)", "5.00", "0", "200"] in sizes
    assert [line[5] for line in lines if len(line) == 6 and line[1] == "seconds"] == [WORSE, ""]
    assert "other work at the same time" in text and text.count(growth_tables.MARK) == 2
    assert "other work" not in growth_tables.report(measured, "A machine", shared=False)
    assert growth_tables.plot(measured, tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    summary = growth_tables.summary_rows(measured)
    assert [(row["quantity"], row["size"], row["repeats"]) for row in summary] == [
        ("images", "1", "1"), ("images", "4", "1"), ("images", "16", "1"), ("page", "10", "3"), ("page", "100", "3"),
    ]  # fmt: skip
    assert (summary[4]["seconds_least"], summary[4]["seconds"], summary[4]["seconds_most"]) == ("90.000", "100.000", "120.000")


HOLDS = "import time; held = bytearray(b'1') * 80_000_000; time.sleep(0.3)"
"""A program that holds 80 MB."""


def test_memory_and_processor_time_of_programs_below_count(tmp_path: Path):
    if not Path("/proc/self/statm").is_file():
        pytest.skip("the memory of processes is read from /proc (Linux), which is not here")
    alone = growth_run.run_command([sys.executable, "-c", HOLDS], tmp_path / "log")
    both = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {HOLDS!r}]); {HOLDS}; child.wait()"
    assert 80 < alone.peak_mb < 130
    assert 160 < growth_run.run_command([sys.executable, "-c", both], tmp_path / "log").peak_mb < 260
    forked = f"import os; {HOLDS}; pid = os.fork(); time.sleep(0.3); pid and os.waitpid(pid, 0)"
    assert 80 < growth_run.run_command([sys.executable, "-c", forked], tmp_path / "log").peak_mb < 130
    busy = "import time\nwhile time.process_time() < 0.4: pass"
    below = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    used = growth_run.run_command([sys.executable, "-c", below], tmp_path / "log")
    assert used.processor > 0.4 and used.seconds > 0.4 > alone.processor


def test_a_command_that_fails_is_named_with_its_last_line(tmp_path: Path):
    with pytest.raises(growth_run.GrowthError, match=r"ended with 3 \(no room\); see .*log"):
        growth_run.run_command([sys.executable, "-c", "print('first'); print('no room'); raise SystemExit(3)"], tmp_path / "log")
    assert (tmp_path / "log").read_text() == "first\nno room\n"


def test_one_thread(tmp_path: Path):
    growth_run.run_command([sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"], tmp_path / "log")
    assert (tmp_path / "log").read_text() == "1\n"


def test_datasets_hold_as_many_participants_and_images_as_many_voxels(tmp_path: Path):
    study = growth_data.write_study(tmp_path / "study", 4.0)
    written = study.image.stat().st_mtime_ns
    assert growth_data.write_study(tmp_path / "study", 4.0) == study and study.image.stat().st_mtime_ns == written
    bids = growth_data.write_dataset(study, tmp_path / "bids", 4)
    images = sorted(bids.glob("sub-*/anat/*_T2w.nii.gz"))
    assert [image.name for image in images] == [f"sub-0000{k}_rec-svr_T2w.nii.gz" for k in range(1, 5)]
    assert {image.read_bytes() for image in images} == {study.image.read_bytes()}
    with (bids / "participants.tsv").open(newline="") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["participant_id"] for row in table] == growth_data.participants(4)
    assert {row["ga_weeks"] for row in table} == {"23", "24", "25"}
    image, finer = load_volume(study.image), load_volume(growth_data.write_regridded(study, tmp_path / "fine.nii.gz", (40, 41, 10)))
    assert finer.shape == (40, 41, 10)
    corners = [v.affine @ [*(n - 0.5 for n in v.shape), 1] for v in (image, finer)]
    assert corners[1] == pytest.approx(corners[0], abs=1e-3)
    assert finer.affine @ [-0.5, -0.5, -0.5, 1] == pytest.approx(image.affine @ [-0.5, -0.5, -0.5, 1], abs=1e-3)
    assert finer.data.mean() == pytest.approx(image.data.mean(), rel=0.05)


def test_every_quantity_can_be_asked_for_and_its_sizes_grow():
    assert tuple(growth.QUANTITIES) == NAMES
    for name, quantity in growth.QUANTITIES.items():
        assert len(quantity.sizes) >= 3 and list(quantity.sizes) == sorted(quantity.sizes) == growth.sizes_of(name, None)
    assert [(q.sizes[0], q.sizes[-1]) for q in growth.QUANTITIES.values()] == [(1, 64), (64, 512), (10, 100), (10, 3000), (10, 5000)]


def test_rows_that_are_there_are_kept_and_a_command_that_does_too_little_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    command = [sys.executable, "-c", "open('made', 'a').write('x'); print('done')"]
    monkeypatch.chdir(tmp_path)
    few = growth.Quantity("images in a job", (1, 2, 3), lambda study, data, out, size: growth.Job(command, lambda log: min(size, 2)))
    monkeypatch.setitem(growth.QUANTITIES, "images", few)
    study = growth_data.Study(tmp_path, tmp_path, tmp_path, tmp_path)
    first = list(growth.measure(study, tmp_path, "images", [1, 2], 2))
    assert [(row.size, row.repeat) for row in first] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert list(growth.measure(study, tmp_path, "images", [1, 2], 2)) == []
    again = growth.measure(study, tmp_path, "images", [1, 2], 3)
    assert next(again).repeat == 2 and (tmp_path / "made").read_text() == "xxxxx"
    with pytest.raises(growth_run.GrowthError, match=r"images: of 3 only 2 were done; see .*images_3.txt"):
        list(growth.measure(study, tmp_path, "images", [3], 1))
    kept = [Row.of(row) for row in read_rows([growth.part_path(tmp_path, "images")])]
    assert [row.size for row in kept] == [1, 2, 1, 2, 1] and not list(tmp_path.glob(".data-*"))


@pytest.mark.slow
def test_the_whole_run_and_once_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["bench", "growth", "-o", str(tmp_path), "--only", "page", "subjects", "--largest", "3", "--shared"]
    assert main(command) == 0
    told = capsys.readouterr().out
    text = (tmp_path / "growth.csv").read_text()
    with (tmp_path / "growth.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [(row["quantity"], row["size"]) for row in found] == [("subjects", "3"), ("page", "3")]
    assert all(float(row["processor"]) > 0 and 50 < float(row["peak_mb"]) < 2000 for row in found)
    assert (tmp_path / "growth.md").read_text().strip() in told and (tmp_path / "growth.png").is_file()
    assert "3 to do, 0 done already" in (tmp_path / "logs" / "subjects_3.txt").read_text()
    page = (tmp_path / "logs" / "page_3.txt").read_text()
    assert "3 images in" in page and "not done" not in page
    assert main(command) == 0
    assert (tmp_path / "growth.csv").read_text() == text
