"""Tasks of an array on one output folder and one work folder do not affect each other. A hundred of them: many_processes.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from many_processes import SHARED, Study, run_all

pytestmark = pytest.mark.slow
PROCESSES = 6


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Study:
    return Study.write(tmp_path_factory.mktemp("many"), PROCESSES)


def test_many_participants_at_once_and_one_of_them_killed(study: Study) -> None:
    killed = study.labels[2]
    found = run_all(study, study.labels, kill=killed)
    for label, (code, output) in found.outputs.items():
        assert code == (-9 if label == killed else 0), f"sub-{label}: {output}"
        assert "Traceback" not in output and (label == killed or "1 aligned, 0 done before, 0 failed" in output), output
    assert found.watch.reads > 100 and not found.watch.broken
    assert sorted(study.transforms()) == [label for label in study.labels if label != killed]
    shared = {name: (study.out / name).read_bytes() for name in SHARED}

    again = run_all(study, [killed])
    assert again.outputs[killed][0] == 0, again.outputs
    transforms = study.transforms()
    assert sorted(transforms) == list(study.labels) and len(set(transforms.values())) == 1  # they are one phantom
    assert not study.left_behind()
    # what the last one writes is what they all wrote
    assert {name: (study.out / name).read_bytes() for name in SHARED} == shared
    assert shared["failures.tsv"].count(b"\n") == 1


def test_jobs_for_one_participant_leave_its_files_whole(study: Study) -> None:
    """Four for the same one: the first does it, the others leave it to that, or find it done."""
    label = study.labels[0]
    for path in [*study.out.glob(f"sub-{label}/anat/*"), *study.out.glob(f"sub-{label}.html")]:
        path.unlink()
    running = [study.start(label) for _ in range(4)]
    output = [(process.communicate()[0], process.returncode) for process in running]
    words = ("1 aligned, 0 done before, 0 failed", "0 aligned, 1 done before, 0 failed", "1 left to another run")
    kinds = [next((word for word in words if word in text), text) for text, _ in output]
    assert kinds.count(words[0]) == 1 and set(kinds) <= set(words), output
    assert [code for _, code in output] == [1 if kind == words[2] else 0 for kind in kinds]
    assert len(set(study.transforms().values())) == 1 and len(study.transforms()) == PROCESSES
    assert not study.left_behind() and (study.out / f"sub-{label}.html").is_file()
