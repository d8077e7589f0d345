"""What a run does for each participant does not grow with the number of the others: reads, listings and steps are counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posepipe.bench.growth_data import Study, participants, write_dataset, write_study
from posepipe.bids import Failures, InputImage, failures
from posepipe.bids.entities import split_name
from posepipe.bids.index import _Elsewhere, indexed_images
from posepipe.bids.names import OutputNames
from posepipe.cli.claims import Claims
from posepipe.cli.parser import parse_settings
from posepipe.cli.plan import make_plan
from posepipe.cli.progress import Monitor
from posepipe.cli.run import _build, _claimed, _monitor
from posepipe.errors import AgeError
from posepipe.interfaces.finished import sessions_of
from posepipe.models import weights
from posepipe.plan import Plan, PlanFailure, SessionPlan
from posepipe.settings import Settings

FEW, MANY = 4, 12


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("study"), 4.0)


def planned(study: Study, folder: Path, number: int) -> tuple[Plan, Settings]:
    bids = write_dataset(study, folder / f"bids{number}", number)
    out, work = str(folder / f"out{number}"), str(folder / f"work{number}")
    settings = parse_settings([str(bids), out, "participant", *study.options, "-w", work, "--nprocs", "1"])
    return make_plan(settings), settings


@contextmanager
def counting(owner: Any, name: str) -> Iterator[Counter[str]]:
    """Count the uses of a function or property, which does what it did."""
    real, count = vars(owner)[name], Counter[str]()

    def counted(*args: Any, **kwargs: Any) -> Any:
        count["uses"] += 1
        return (real.fget if isinstance(real, property) else real)(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, property(counted) if isinstance(real, property) else counted)
        yield count


def test_the_lists_of_networks_are_read_once_for_all_participants(study: Study, tmp_path: Path):
    uses = []
    for number in (FEW, MANY):
        with counting(weights, "read_listing") as count:
            plan, _ = planned(study, tmp_path, number)
        assert len(plan.pending) == number
        uses.append(count["uses"])
    assert uses[0] == uses[1] > 0


class Counted(str):
    """Text that counts how often it is compared."""

    compared = Counter[str]()
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        self.compared["times"] += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __add__(self, other: str) -> str:
        self.compared["times"] += 1
        return str.__add__(self, other)


def test_a_path_is_looked_up_and_not_sought_among_all_folders():
    elsewhere = _Elsewhere([Counted(f"{name}/anat") for name in participants(1000)])
    Counted.compared.clear()
    assert not elsewhere.search("/sub-01000/anat/sub-01000_T2w.nii.gz")
    assert elsewhere.search("/sub-01001/anat/sub-01001_T2w.nii.gz")
    assert Counted.compared["times"] < 10


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/sub-1", True), ("/sub-1/ses-a", True), ("/sub-1/ses-a/anat", True), ("/sub-2/anat", True),
        ("/sub-1/ses-a/anat/sub-1_ses-a_T2w.nii.gz", True), ("/sub-2/anat/sub-2_T1w.nii", True),
        ("/", False), ("/sub-1/anat", False), ("/sub-1/anat/sub-1_T2w.nii.gz", False), ("/sub-1/ses-b", False), ("/sub-3", False),
        ("/sub-2/anat/sub-2_T2w.json", False), ("/sub-2/anat/more/sub-2_T2w.nii.gz", False), ("/sub-2/anat/x_T2w.nii.gz", False),
        ("/sub-2_T2w.nii.gz", False), ("/code", False), ("/sub-22/anat", False), ("/sub-2/sub-2_T2w.nii.gz", False),
    ],
)  # fmt: skip
def test_what_the_index_reads(path: str, read: bool):
    assert _Elsewhere(["sub-1/ses-a/anat", "sub-2/anat"]).search(path) is not read


def test_the_index_finds_the_images_of_the_folders_it_was_asked_for(study: Study, tmp_path: Path):
    bids = write_dataset(study, tmp_path / "bids", 3)
    some = ["sub-00001/anat", "sub-00003/anat"]
    assert sorted(p.parent.relative_to(bids).as_posix() for p in indexed_images(bids, some)) == some


@pytest.mark.slow
def test_progress_takes_the_same_steps_for_each_image(study: Study, tmp_path: Path):
    uses = []
    for number in (FEW, MANY):
        plan, settings = planned(study, tmp_path, number)
        nodes = {n.fullname.split(".")[2]: n for n in _build(plan, settings)._create_flat_graph() if n.name == "mask"}
        lines: list[str] = []
        monitor = _monitor(plan, settings, "")
        monitor.say = lines.append
        with counting(OutputNames, "forward") as names, counting(SessionPlan, "pending") as pending:
            for node in nodes.values():
                node._traceback = "Traceback (most recent call last)\nposepipe.errors.MaskError: the mask is empty"
                monitor(node, "exception")
        assert [line.partition("]")[0] for line in lines] == [f"[{k}/{number}" for k in range(1, number + 1)]
        assert all("MaskError: the mask is empty" in line for line in lines)
        uses.append([count["uses"] / number for count in (names, pending)])
    assert uses[1] <= [1.1 * use for use in uses[0]]  # the failure of the last is recorded later


def test_each_page_gets_the_figures_and_sessions_of_its_participant_alone(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan, settings = planned(study, tmp_path, FEW)
    monitor = _monitor(plan, settings, "")
    given = []
    monkeypatch.setattr("posepipe.cli.progress.write_page", lambda *a: given.append((a[1], sorted(a[3]), a[5])))
    monitor._figures = {image.names.forward.name: "figure" for image in plan.images}
    monitor.finished |= {image.names.forward for image in plan.images}
    monkeypatch.setattr(Monitor, "_tell_spread", lambda *_: None)
    monitor.finish()
    assert given == [(image.image.subject, [image.names.forward.name], []) for image in plan.images]
    monitor.finish()
    assert len(given) == FEW


class SecondIsTaken(Claims):
    """As if another process worked on the second participant."""

    asked: list[str]

    def take(self, image: InputImage) -> bool:
        self.asked = [*getattr(self, "asked", []), image.subject]
        return image.subject != "00002" and super().take(image)


def test_images_are_claimed_in_steps_that_do_not_grow(study: Study, tmp_path: Path):
    uses = []
    for number in (FEW, MANY):
        plan, settings = planned(study, tmp_path, number)
        with SecondIsTaken(settings.out_dir) as claims, counting(SessionPlan, "pending") as count:
            rest = _claimed(plan, claims)
        assert [image.image.subject for image in rest.pending] == [name[4:] for name in participants(number) if name != "sub-00002"]
        uses.append(count["uses"] / number)
    assert uses[1] <= 1.1 * uses[0]  # each claim twice or so, and what is done once


def test_images_that_get_one_pose_are_left_to_one_run(study: Study, tmp_path: Path):
    plan, settings = planned(study, tmp_path, 5)
    first, second, *others = (replace(image, alone_hash="together") for image in plan.images)
    alike = replace(first, choice=second.choice, image=replace(first.image, path=first.image.path.with_name("other_T2w.nii.gz")))
    with SecondIsTaken(settings.out_dir) as claims:
        rest = _claimed(Plan((SessionPlan("1", None, (second, alike)), SessionPlan("2", None, tuple(others)))), claims)
        assert list(rest.images) == others
        assert claims.asked == ["00002", *(image.image.subject for image in others)]


def test_the_sessions_of_one_participant_are_found_without_listing_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for unit in ("sub-1/ses-a", "sub-1/ses-b", "sub-11/ses-c", "sub-2"):
        (tmp_path / unit / "anat").mkdir(parents=True)
    for subject in ("1", "2"):
        write_failure(tmp_path, f"sub-{subject}/ses-d/anat/sub-{subject}_ses-d_T2w.nii.gz")
    everybody = sessions_of(tmp_path)
    assert everybody == [("1", "a"), ("1", "b"), ("1", "d"), ("11", "c"), ("2", None), ("2", "d")]
    listed: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": (listed.append(str(path)), real(path))[1])
    assert sessions_of(tmp_path, "1") == everybody[:3]
    assert {str(Path(path).relative_to(tmp_path)) for path in listed} == {"logs/failures", "sub-1"}


def test_the_plan_knows_the_plans_of_an_image(study: Study, tmp_path: Path):
    plan, _ = planned(study, tmp_path, FEW)
    assert plan.pending is plan.pending
    assert [plan.at(image.image) for image in plan.images] == [(image,) for image in plan.images]
    assert plan.with_done(plan.pending[:1]).pending == plan.pending[1:]
    assert plan.without(plan.pending[:1]).at(plan.pending[0].image) == ()


def write_failure(out: Path, image: str) -> None:
    split = split_name(Path(image).name)
    assert split is not None
    Failures(out).record(InputImage(out / image, Path(image), split.entities, split.suffix), "mask", "MaskError: empty")


def test_each_record_of_a_failure_is_read_once_and_the_table_written_once(study: Study, tmp_path: Path):
    uses = []
    for number in (FEW, MANY):
        plan, settings = planned(study, tmp_path, number)
        monitor = _monitor(plan, settings, "")
        lines: list[str] = []
        monitor.say = lines.append
        refused = [PlanFailure(image.image, "age", AgeError("no age")) for image in plan.images]
        with counting(failures, "read_json") as reads, counting(failures, "write_text") as tables:
            monitor.refuse(refused)
        table = (settings.out_dir / "failures.tsv").read_text().splitlines()
        assert len(table) == number + 1 and table[-1].endswith("\tage\tAgeError: no age\tn/a") and len(lines) == number
        own = monitor._failures
        with counting(failures, "read_json") as later:
            for image in plan.pending[1:]:
                own.clear(image.image)
        assert own.table.read_text().splitlines() == table[:2]
        uses.append((reads["uses"] / number, tables["uses"], later["uses"]))
    assert uses == [(1, 1, 0), (1, 1, 0)]


def test_a_record_that_another_run_replaced_is_read_again(tmp_path: Path):
    image = "sub-1/anat/sub-1_T2w.nii.gz"
    write_failure(tmp_path, image)
    one = Failures(tmp_path)
    assert [row["error"] for row in one.rows()] == ["MaskError: empty"]
    one.rows()[0]["error"] = "changed by the caller"
    assert [row["error"] for row in one.rows()] == ["MaskError: empty"]
    other = InputImage(tmp_path / image, Path(image), {"sub": "1"}, "T2w")
    Failures(tmp_path).record(other, "age", "AgeError: no age")
    assert [row["error"] for row in one.rows()] == ["AgeError: no age"]
    Failures(tmp_path).clear(other)
    assert one.rows() == []
