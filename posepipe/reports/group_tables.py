"""The tables of the group level, each with a JSON dictionary of its columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bids import write_json
from ..files import write_text
from .group_order import Turn
from .group_outliers import LIMIT, outlying
from .group_ratings import PairAgreement, Ratings
from .group_rows import GroupRow, number
from .page import link
from .ratings import ARTEFACTS

Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column: its name and its entry in the JSON dictionary."""

    name: str
    description: str
    units: str = ""
    levels: Mapping[str, str] | None = None

    def entry(self) -> dict[str, Any]:
        """As BIDS wants it."""
        found: dict[str, Any] = {"Description": self.description}
        if self.units:
            found["Units"] = self.units
        if self.levels:
            found["Levels"] = dict(self.levels)
        return found


_SIMILARITIES = {
    "NCC": "Normalised cross-correlation of image and template inside both brain masks, -1 to 1",
    "CR": "Correlation ratio of local texture, plus 0.3 times that of the outline: the criterion that ranks poses, up to 1.3",
    "CoarseCR": "Correlation ratio of coarse texture alone, up to 1; near 0 at wrong poses",
    "NMI": "Normalised mutual information of image and template inside both brain masks (Studholme), 1 to 2",
    "Dice": "Overlap (Dice) of the image's and the template's brain mask, 0 to 1",
}
_WHO = (
    Column("participant_id", "Participant"),
    Column("session_id", "Session; n/a for a dataset without sessions"),
)
_QC = {
    "pass": "No doubt was raised",
    "review": "Look at it before use",
    "fail": "The pose is not to be trusted",
    "failed": "No pose: processing stopped",
    "unreadable": "The outputs cannot be read",
    "missing": "In the input dataset, without outputs",
}
_APART = (
    "between the pose of this image and those of the session's other images at the same template, each found alone; images of verdict "
    "fail are not compared with; n/a: no other image"
)
_POSE = (
    *_WHO,
    Column("image", "Path of the input image below its dataset"),
    Column("contrast", "Contrast of the image, from its name", levels={"T1w": "T1-weighted", "T2w": "T2-weighted"}),
    Column("qc", "Verdict on the pose", levels=_QC),
    Column("qc_reasons", "Reasons of the verdict, or the error, separated by semicolons"),
    Column("confidence", "Estimated probability that the pose is within 15 degrees; n/a: not estimated"),
    Column("queue", "Place among the images to review next, 1 the most doubtful; n/a: rated, or without a pose"),
    Column("age", "Gestational (postmenstrual) age at the scan", "weeks"),
    Column("age_source", "Where the age was read"),
    Column("atlas", "Atlas"),
    Column("cohort", "Cohort of the atlas"),
    Column("template_contrast", "Contrast of the template that the image was compared with"),
    Column("contrast_conversion", "Network that made the synthetic image by which this one was aligned; n/a: aligned as it is"),
    Column("mask", "Where the brain mask came from"),
    Column("init_method", "How the initial pose was found"),
    Column("refine_method", "How the pose was refined"),
    Column("rotation_angle", "Rotation angle of the pose (atlas to image, RAS)", "deg"),
    *(Column(f"rotation_{x}", f"Rotation vector of the pose, {x} (atlas to image, RAS)", "rad") for x in "xyz"),
    *(Column(f"translation_{x}", f"Translation of the pose, {x} (atlas to image, RAS)", "mm") for x in "xyz"),
    Column("session_spread", f"Largest angle {_APART}", "deg"),
    Column("session_spread_mm", f"Largest distance of the places of the brain's centre {_APART}", "mm"),
    Column("session_shared_by", "Images of the session that have this pose together, this one among them; n/a: found independently"),
)
_REST = (
    Column("outlier", f"Similarities whose robust z against age is below {LIMIT:g}, separated by commas; n/a: none"),
    Column("seconds", "Time of all stages", "s"),
    Column("warnings", "What was noted on the way, separated by semicolons"),
    Column("ratings", "Number of raters who rated the image"),
    Column("page", "Subject page, relative to this table"),
    Column("transform", "Forward transform (ITK), relative to this table"),
)


def write_pose_table(
    out_dir: str | Path,
    rows: Sequence[GroupRow],
    scores: Sequence[Mapping[str, float]],
    queue: Sequence[int],
    ratings: Ratings,
) -> Path:
    """Write ``group_pose.tsv`` and ``group_pose.json``: one line per row.

    ``scores`` are the robust z of each row (:func:`~posepipe.reports.group_outliers.similarity_z`), ``queue`` the
    indices of the rows to review, in order.
    """
    measures = list(dict.fromkeys(name for row in rows for name in row.similarity()))
    place = {index: n for n, index in enumerate(queue, start=1)}
    rated = ratings.by_image()
    middle = [column for name in measures for column in _similarity_columns(name)]
    lines: list[list[Cell]] = []
    for index, row in enumerate(rows):
        seen = row.similarity()
        values: list[Cell] = []
        for name in measures:
            values += [*seen.get(name, (None, None)), scores[index].get(name)]
        count = len(rated.get((row.subject, row.session, row.name), []))
        lines.append([*_pose_cells(row, place.get(index)), *values, *_rest_cells(row, scores[index], count)])
    return _write(Path(out_dir) / "group_pose.tsv", (*_POSE, *middle, *_REST), lines)


def _similarity_columns(name: str) -> list[Column]:
    what, key = _SIMILARITIES.get(name, f"Similarity {name} of image and template"), _snake(name)
    return [
        Column(f"{key}_before", f"{what}; at the initial pose"),
        Column(f"{key}_after", f"{what}; at the pose written"),
        Column(f"{key}_z", f"Robust z of {key}_after against age, among images of one contrast and atlas"),
    ]


def _snake(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _pose_cells(row: GroupRow, place: int | None) -> list[Cell]:
    known = row.sidecar
    reasons = (row.error,) if row.error else row.reasons
    texts: list[Cell] = [_text(known.get(k)) for k in ("Atlas", "Cohort")]
    texts.append(_text(row.resampled_sidecar.get("TemplateContrast")))
    texts += [_text(known.get(k)) for k in ("ContrastConversion", "Mask", "InitMethod", "RefineMethod")]
    return [
        f"sub-{row.subject}",
        f"ses-{row.session}" if row.session else None,
        row.image,
        row.contrast,
        row.verdict.key,
        "; ".join(reasons),
        row.confidence,
        place,
        row.age,
        _text(known.get("AgeSource")),
        *texts,
        row.angle,
        *_triple(known.get("RotationVector")),
        *_triple(known.get("TranslationMM")),
        *row.spread,
        row.shared_by,
    ]


def _rest_cells(row: GroupRow, scores: Mapping[str, float], count: int) -> list[Cell]:
    return [
        ",".join(outlying(dict(scores))),
        row.seconds,
        "; ".join(row.warnings),
        count,
        row.page if row.verdict.key != "missing" else None,
        row.forward,
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _triple(value: Any) -> list[Cell]:
    if isinstance(value, (list, tuple)) and len(value) == 3:
        return [number(v) for v in value]
    return [None, None, None]


_RATINGS = (
    Column("rater", "Name of the rater"),
    *_WHO,
    Column("image", "Name of the input image without its extension"),
    Column(
        "decision", "What is to be done with the pose",
        levels={"accept": "Use it", "adjust": "Correct it before use", "reject": "Do not use it"},
    ),
    Column("quality", "Quality of the pose", levels={"1": "Worst", "2": "Poor", "3": "Good", "4": "Best"}),
    Column("artefacts", f"Artefacts seen, separated by commas, of: {', '.join(ARTEFACTS)}"),
    Column("comment", "The rater's own words"),
    Column("rated", "When it was rated (ISO 8601)"),
    Column("file", "File that the rating was read from"),
)  # fmt: skip
_AGREEMENT = (
    Column("rater_1", "One rater"),
    Column("rater_2", "The other"),
    Column("images", "Images that both rated"),
    Column("same_decision", "Share of these images with the same decision, 0 to 1"),
    Column("decision_kappa", "Cohen's kappa of the decisions; n/a: not defined"),
    Column("qualities", "Images of which both gave the quality"),
    Column("quality_kappa", "Kappa of the quality with quadratic weights; n/a: not defined"),
)
_ORDER = (
    Column("rater", "Name of the rater"),
    Column("position", "Place in this rater's order, from 1"),
    Column("page", "Subject page without verdicts, relative to this table"),
    Column("images", "Images that the page shows with a pose, separated by commas"),
)


def write_ratings_tables(out_dir: str | Path, ratings: Ratings, agreement: Sequence[PairAgreement]) -> list[Path]:
    """Write ``group_ratings.tsv`` (one line per rating) and ``group_agreement.tsv`` (one per pair of raters), each with its dictionary."""
    rated: list[list[Cell]] = [
        [
            r.rater, f"sub-{r.subject}", f"ses-{r.session}" if r.session else None, r.image, r.decision, r.quality,
            ",".join(r.artefacts), r.comment, r.rated, filed.file,
        ]
        for filed in ratings.filed
        for r in (filed.rating,)
    ]  # fmt: skip
    pairs: list[list[Cell]] = [
        [*p.raters, p.images, p.same_decisions, p.decision_kappa, p.qualities, p.quality_kappa] for p in agreement
    ]
    out_dir = Path(out_dir)
    return [
        _write(out_dir / "group_ratings.tsv", _RATINGS, rated),
        _write(out_dir / "group_agreement.tsv", _AGREEMENT, pairs),
    ]


def write_order_table(out_dir: str | Path, turns: Sequence[Turn]) -> Path:
    """Write ``group_order.tsv``: the reading order of the pages for each rater, with its dictionary."""
    lines: list[list[Cell]] = [[t.rater, t.position, f"{link(t.page)}#blind", ",".join(t.images)] for t in turns]
    return _write(Path(out_dir) / "group_order.tsv", _ORDER, lines)


def _write(path: Path, columns: Sequence[Column], lines: Iterable[Sequence[Cell]]) -> Path:
    text = ["\t".join(column.name for column in columns)]
    text += ["\t".join(map(_cell, line)) for line in lines]
    write_text(path, "\n".join(text) + "\n")
    write_json(path.with_suffix(".json"), {column.name: column.entry() for column in columns})
    return path


def _cell(value: Cell) -> str:
    """The text of one cell: tabs and line breaks replaced by spaces; numbers with six significant digits."""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "n/a"
    text = " ".join(str("" if value is None else value).split()) or "n/a"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # lone surrogates cannot be encoded
