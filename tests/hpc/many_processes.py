"""Many single-participant processes at once, on one output folder and one work folder, as the tasks of a job array are.

    python tests/hpc/many_processes.py FOLDER --processes 100 --done 80

writes a dataset of that many participants to FOLDER, all of the same phantom, does 80 of them beforehand (a hundred that all align need
40 GB of memory and more), starts all hundred processes at the same time, kills one of them and starts it again, and checks what is left.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from posepipe.phantom.demo_data import write_demo

_APP = "import sys; from posepipe.cli.app import main; sys.exit(main())"
SHARED = ("dataset_description.json", ".bidsignore", "logs/CITATION.md", "logs/CITATION.bib", "logs/CITATION.html", "failures.tsv")
"""Files that every process writes or may write."""


@dataclass(frozen=True)
class Study:
    """A dataset of one phantom under many labels, its atlas, and where outputs and work go."""

    folder: Path
    labels: tuple[str, ...]

    @classmethod
    def write(cls, folder: Path, participants: int, spacing: float = 2.5) -> Study:
        demo = write_demo(folder, n_subjects=1, spacing=spacing)
        (image,) = demo.bids_dir.glob("sub-01/anat/*_T2w.nii.gz")
        labels = tuple(f"{number:03d}" for number in range(1, participants + 1))
        for label in labels:
            anat = demo.bids_dir / f"sub-{label}" / "anat"
            anat.mkdir(parents=True)
            shutil.copyfile(image, anat / image.name.replace("sub-01", f"sub-{label}"))
        shutil.rmtree(demo.bids_dir / "sub-01")
        table = "".join(f"sub-{label}\t24.3\n" for label in labels)
        (demo.bids_dir / "participants.tsv").write_text(f"participant_id\tpma_weeks\n{table}", encoding="utf-8")
        return cls(folder, labels)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self, *labels: str, work: str = "work") -> list[str]:
        """The app over these participants, by the quickest methods."""
        return [
            sys.executable, "-c", _APP, str(self.folder / "bids"), str(self.out), "participant", "--participant-label", *labels,
            "-w", str(self.folder / work), "--atlas", "Phantom", "--atlas-dir", str(self.folder / "atlas"), "--nprocs", "1",
            "--init", "center", "--refine", "none",
        ]  # fmt: skip

    def start(self, *labels: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(*labels), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def left_behind(self) -> list[Path]:
        """Temporary files in the output folder."""
        return [path for path in self.out.rglob("*") if ".tmp" in path.name]

    def transforms(self) -> dict[str, bytes]:
        """The forward transform of each participant that has one."""
        found = self.out.glob("sub-*/anat/*_from-T2w_*_xfm.txt")
        return {path.name.partition("_")[0].removeprefix("sub-"): path.read_bytes() for path in found}


@dataclass
class Watch:
    """Reads the shared files over and over; ``broken`` are those that were once not whole."""

    out: Path
    reads: int = 0
    broken: list[str] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()
        reader = threading.Thread(target=self._read, args=(over,))
        reader.start()
        try:
            yield
        finally:
            over.set()
            reader.join()

    def _read(self, over: threading.Event) -> None:
        while not over.wait(0.02):
            for name in SHARED:
                path = self.out / name
                if path.is_file():
                    self.reads += 1
                    text = path.read_text(encoding="utf-8")
                    if not text.endswith("\n") or (name.endswith(".json") and not _is_json(text)):
                        self.broken.append(f"{name}: {text[:200]!r}")


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed, by participant; how long all took, and what was seen of the shared files meanwhile."""

    outputs: dict[str, tuple[int, str]]
    seconds: float
    watch: Watch


def run_all(study: Study, labels: Sequence[str], kill: str | None = None) -> Outcome:
    """One process for each of ``labels``, all at once; that of ``kill`` is ended by SIGKILL as soon as it is at work on its image."""
    watch, begun = Watch(study.out), time.monotonic()
    with watch.watching():
        running = {label: study.start(label) for label in labels}
        if kill is not None:
            while running[kill].poll() is None and not list(study.folder.glob(f"work/*/sub_{kill}_wf/*/mask/_inputs.pklz")):
                time.sleep(0.02)
            running[kill].send_signal(signal.SIGKILL)
        outputs = {label: (process.communicate()[0], process.returncode) for label, process in running.items()}
    return Outcome({label: (code, text) for label, (text, code) in outputs.items()}, time.monotonic() - begun, watch)


def main() -> int:
    """The script; its exit code is 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--done", type=int, default=80, help="how many find their work done")
    args = parser.parse_args()
    study = Study.write(args.folder.absolute(), args.processes)
    done, rest = study.labels[: args.done], study.labels[args.done :]
    if done:
        subprocess.run(study.command(*done, work="before"), check=True)
    victim = rest[0]
    found = run_all(study, study.labels, kill=victim)
    codes = [code for label, (code, _) in found.outputs.items() if label != victim]
    wrong = {label: text for label, (code, text) in found.outputs.items() if label != victim and (code or "Traceback" in text)}
    print(f"{len(codes)} processes in {found.seconds:.0f} s, {codes.count(0)} with exit code 0; one killed: {found.outputs[victim][0]}")
    print(f"shared files read {found.watch.reads} times meanwhile, {len(found.watch.broken)} times not whole")
    again = run_all(study, [victim])
    print(f"the killed one again: exit code {again.outputs[victim][0]}")
    transforms = study.transforms()
    print(f"{len(transforms)} transforms, {len(set(transforms.values()))} different; left behind: {study.left_behind()}")
    for label, text in wrong.items():
        print(f"sub-{label}: {text[-2000:]}")
    good = not wrong and not found.watch.broken and again.outputs[victim][0] == 0 and not study.left_behind()
    return 0 if good and len(transforms) == len(study.labels) and len(set(transforms.values())) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
