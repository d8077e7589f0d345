"""Tables of the bench of sessions, and its brains."""

from __future__ import annotations

import pytest

from posepipe.bench.session import SUBJECTS, main, report
from posepipe.training.split import load_split


def row(subject: str, contrast: str, error: float, shared: float, spread: float, how: str = "joint") -> dict[str, str]:
    values = {"subject": subject, "refine": "torch", "contrast": contrast, "error": error, "mm": 1}
    values |= {"shared_error": shared, "shared_mm": 0.5}
    return {key: str(value) for key, value in {**values, "spread": spread, "spread_mm": spread / 2, "how": how}.items()}


def test_the_tables():
    rows = [
        *(row("a", c, e, 1.0, 2.0) for c, e in (("T1w", 1.0), ("T2w", 2.0))), *(row("b", c, 1.4, 2.0, 4.0, "mean") for c in ("T1w", "T2w")),
    ]  # fmt: skip
    pairs = [{"refine": "torch", "degrees": "17.06", "mm": "6.2"}, {"refine": "torch", "degrees": "0.31", "mm": "2.7"}]
    text = report(rows, pairs)
    assert "| torch | 2 | 2 | 3.00 | 3.90 | 4.00 | 1.50 | 1.95 | 2.00 |" in text
    assert "| torch | T1w | 2 | 1.20 / 1.4 | 1.50 / 2.0 | 1.00 | 0.50 | 1 | 0 | 1 |" in text
    assert "| torch | T2w | 2 | 1.70 / 2.0 | 1.50 / 2.0 | 1.00 | 0.50 | 1 | 1 | 1 |" in text
    assert "Pairs of raw stacks (torch), ° and mm: 0.3 (2.7), 17.1 (6.2)" in text


def test_no_brain_that_is_kept_for_testing_is_measured():
    assert len(SUBJECTS) == 12 and not any(load_split().part(subject) == "test" for subject in SUBJECTS)


def test_options(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "one in each bin of 30°" in " ".join(capsys.readouterr().out.split())
