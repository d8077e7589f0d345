"""The group page: all images of the output dataset in one table, and the review queue."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from .group_order import Turn
from .group_outliers import RULE, outlying
from .group_queue import rule_of
from .group_ratings import PairAgreement, Ratings, mean_kappa
from .group_rows import MISSING, UNREADABLE, GroupRow
from .page import link, render, write_page
from .prose import prose
from .ratings import DECISIONS, Rating
from .subject import pose_id
from .verdict import FAIL, FAILED, PASS, REVIEW

ORDER = (UNREADABLE, FAILED, FAIL, REVIEW, PASS, MISSING)
"""From the most to the least urgent."""
MAX_LISTED = 50
"""Maximum number of disagreements listed on the page; the tables contain all."""


@dataclass(frozen=True)
class GroupContent:
    """The content of the page. ``scores`` (robust z by measure) correspond to ``rows``; ``queue`` holds indices of rows; ``thumbnails`` are
    keyed by :attr:`~posepipe.reports.group_rows.GroupRow.resampled`; ``pages`` are the existing subject pages."""

    rows: Sequence[GroupRow]
    scores: Sequence[Mapping[str, float]]
    queue: Sequence[int]
    thumbnails: Mapping[str, bytes]
    pages: frozenset[str]
    ratings: Ratings = field(default_factory=Ratings)
    agreement: Sequence[PairAgreement] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    methods: str = ""


def write_group_page(path: str | Path, content: GroupContent, *, version: str, command: str = "") -> Path:
    """Write the page to ``path``: one self-contained HTML file with all thumbnails and numbers."""
    script = _static("group_charts.js") + _static("group.js")
    rows = content.rows
    counts = Counter(row.verdict for row in rows)
    measures = list(dict.fromkeys(name for row in rows for name in row.similarity()))
    html = render(
        "group.html",
        version=version,
        command=command,
        methods=prose(content.methods),
        group_css=_markup(_static("group.css")),
        script=_markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        data=_markup(_json(_data(content, measures))),
        summary=_summary(rows),
        verdicts=[(v, counts[v]) for v in ORDER if counts[v]],
        measures=measures,
        contrasts=sorted({row.contrast for row in rows if row.contrast}),
        atlases=sorted({str(row.sidecar["Atlas"]) for row in rows if row.has_pose}),
        outlier_rule=RULE,
        queue_rule=rule_of(rows),
        problems=content.problems,
        notes=content.notes,
        raters=_raters(content.ratings),
        pairs=[_pair(pair) for pair in content.agreement],
        means=_means(content.agreement),
        disagreements=_disagreements(content),
        max_listed=MAX_LISTED,
    )
    return write_page(path, html)


def write_order_page(path: str | Path, turns: Sequence[Turn], *, version: str) -> Path:
    """Write one rater's list of pages, in reading order, without verdicts."""
    pages = [(turn.position, f"{link(turn.page)}#blind", turn.page.removesuffix(".html"), turn.images) for turn in turns]
    html = render(
        "group_order.html", version=version, rater=turns[0].rater, pages=pages, group_css=_markup(_static("group.css"))
    )
    return write_page(path, html)


def _data(content: GroupContent, measures: Sequence[str]) -> dict[str, Any]:
    """The data for the page's script."""
    place = {index: n for n, index in enumerate(content.queue, start=1)}
    rated = content.ratings.by_image()
    rows = []
    for index, row in enumerate(content.rows):
        scores = dict(content.scores[index])
        names = outlying(scores)
        picture = content.thumbnails.get(row.resampled)
        given = rated.get((row.subject, row.session, row.name), [])
        rows.append({
            "name": PurePosixPath(row.image).name or row.image,
            "path": row.image,
            "image": row.name,
            "pose": pose_id(row.sidecar),
            "page": link(row.page) if row.page in content.pages else "",
            "verdict": row.verdict.key,
            "reasons": "; ".join((row.error,) if row.error else row.reasons),
            "warnings": "; ".join(row.warnings),
            "contrast": row.contrast,
            "atlas": str(row.sidecar.get("Atlas", "")),
            "space": row.space,
            "age": _short(row.age),
            "angle": _short(row.angle),
            "spread": _short(row.spread[0]),
            "confidence": _short(row.confidence),
            "similarity": [_short(row.after(name)) for name in measures],
            "outlier": ", ".join(f"{name} {scores[name]:.1f}".replace("-", "−") for name in names),
            "z": _short(min(scores.values(), default=None)),
            "queue": place.get(index),
            "ratings": "; ".join(_said(rating) for rating in given),
            "raters": len(given),
            "picture": "" if picture is None else base64.b64encode(picture).decode("ascii"),
        })  # fmt: skip
    words = {v.key: {"word": v.word, "sign": v.sign, "rank": n} for n, v in enumerate(ORDER)}
    return {"rows": rows, "measures": list(measures), "verdicts": words}


def _said(rating: Rating) -> str:
    quality = "" if rating.quality is None else f" {rating.quality}"
    return f"{rating.rater}: {rating.decision}{quality}"


def _short(value: float | None) -> float | None:
    """Rounded to four significant digits, which keeps the page small."""
    return None if value is None else float(f"{value:.4g}")


def _summary(rows: Sequence[GroupRow]) -> str:
    people, visits = len({row.subject for row in rows}), len({row.label for row in rows})
    ages = [row.age for row in rows if row.age is not None]
    parts = [_count(len(rows), "image"), f"of {_count(people, 'participant')}"]
    if visits > people:
        parts.append(f"in {visits} sessions")
    text = " ".join(parts)
    return f"{text}, {min(ages):.1f} to {max(ages):.1f} weeks" if ages else text


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _raters(ratings: Ratings) -> list[tuple[str, int, list[int], str]]:
    """For each rater: name, number of images, number of each decision, mean quality."""
    found = []
    for name in ratings.raters:
        mine = [rating for rating in ratings.ratings if rating.rater == name]
        qualities = [rating.quality for rating in mine if rating.quality is not None]
        mean = f"{sum(qualities) / len(qualities):.2f}" if qualities else "–"
        found.append((name, len(mine), [sum(r.decision == d for r in mine) for d in DECISIONS], mean))
    return found


def _pair(pair: PairAgreement) -> tuple[str, ...]:
    return (
        " and ".join(pair.raters), str(pair.images), _percent(pair.same_decisions), _kappa(pair.decision_kappa),
        str(pair.qualities), _kappa(pair.quality_kappa),
    )  # fmt: skip


def _means(agreement: Sequence[PairAgreement]) -> tuple[str, str] | None:
    """Mean kappas over the pairs; None for fewer than two pairs."""
    if len(agreement) < 2:
        return None
    return _kappa(mean_kappa([p.decision_kappa for p in agreement])), _kappa(mean_kappa([p.quality_kappa for p in agreement]))


def _kappa(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _disagreements(content: GroupContent) -> list[tuple[str, str, str]]:
    """Image, address of its page, and the ratings, for images with different decisions or with qualities that differ by two or more."""
    known = {(row.subject, row.session, row.name): row.page for row in content.rows}
    found = []
    for key, given in content.ratings.by_image().items():
        qualities = [rating.quality for rating in given if rating.quality is not None]
        far = len(qualities) > 1 and max(qualities) - min(qualities) >= 2
        if far or len({rating.decision for rating in given}) > 1:
            page = known.get(key, "")
            address = link(page) if page in content.pages else ""
            found.append((key[2], address, "; ".join(_said(rating) for rating in given)))
    return found


def _static(name: str) -> str:
    return (resources.files(__package__) / "static" / name).read_text(encoding="utf-8")


def _json(content: Any) -> str:
    """JSON with escapes for all characters that HTML would interpret as markup."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # safe: the package's own files, and escaped JSON


