"""``resources.tsv`` of a run: the time and the peak memory of each node.

Each run, and so each task of a job array, has a file of its own, as its id is in the path: no two processes write to one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bids import read_json, write_json
from ..errors import BidsError
from ..files import write_text
from ..plan import ImagePlan, SessionPlan

COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "participant_id": {"Description": "Participant, as in participants.tsv."},
    "session_id": {"Description": "Session; n/a if the dataset has none."},
    "image": {"Description": "Path of the image, relative to the input dataset."},
    "node": {
        "Description": "Node of the Nipype workflow of the image, in the order in which nodes ended; with the space of a further atlas "
        "of several."
    },
    "status": {
        "Description": "How it ended.",
        "Levels": {"done": "it ran", "cached": "an earlier run's result was used; its resources are given", "failed": "it failed"},
    },
    "seconds": {"Description": "Wall-clock time.", "Units": "s"},
    "peak_memory": {
        "Description": "Largest resident set of the process while the node ran, libraries and data of earlier nodes included; n/a other "
        "than on Linux, and for a node that failed.",
        "Units": "MB",
    },
    "host": {"Description": "Name of the machine that it ran on."},
}
"""Column → its entry in the JSON dictionary."""


@dataclass
class ResourceTable:
    """The rows of the nodes that have ended, written by :meth:`write` to ``out_dir/logs/runs/run_id``; ``started`` is the start of the run
    as Nipype writes times (ISO, UTC)."""

    out_dir: Path
    run_id: str
    started: str
    rows: list[dict[str, str]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Where the table lies."""
        return self.out_dir / "logs" / "runs" / self.run_id / "resources.tsv"

    def add(self, session: SessionPlan, image: ImagePlan, node: Any, *, failed: bool) -> None:
        """A row for ``node`` of ``image``, which has ended."""
        runtime = outputs = None
        with suppress(OSError, AttributeError):  # no result: the worker died, or the node could not start
            runtime, outputs = node.result.runtime, node.result.outputs
        record = {} if failed else _record(outputs)
        seconds = record.get("seconds", getattr(runtime, "duration", None))
        ended = str(getattr(runtime, "endTime", "") or "")
        status = "failed" if failed else "cached" if ended and ended < self.started else "done"
        name = f"{node.name} at {image.space}" if image.names.further else node.name
        values = (
            f"sub-{session.subject}", f"ses-{session.session}" if session.session else "n/a", image.image.relative.as_posix(), name,
            status, _number(seconds), _number(record.get("peak_memory_mb")), str(getattr(runtime, "hostname", None) or "n/a"),
        )  # fmt: skip
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))

    def write(self) -> Path | None:
        """Write the table and its JSON dictionary; None if no node has ended in this process."""
        if not self.rows:
            return None
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_json(self.path.with_suffix(".json"), COLUMNS)
        return write_text(self.path, text.getvalue())


def _record(outputs: Any) -> Mapping[str, Any]:
    """What the node measured of itself: from the first of its records that holds it, or, of the last node, from the sidecar."""
    for name in ("slices_record", "out_record", "sidecar"):
        path = getattr(outputs, name, None)
        if isinstance(path, (str, Path)) and Path(path).is_file():
            with suppress(BidsError):
                record = read_json(path)
                if name == "sidecar":
                    return {"seconds": record["Seconds"].get("Outputs"), "peak_memory_mb": record.get("PeakMemoryMB", {}).get("Outputs")}
                if "seconds" in record:
                    return record
    return {}


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else "n/a"
