"""The ablation of the brain finder: constants are changed temporarily, and rows are counted correctly."""

from __future__ import annotations

from importlib import import_module

from posepipe.bench.finding import SETTINGS, line


def test_every_setting_is_another_than_that_in_use() -> None:
    assert SETTINGS["as it is"] == {}
    for title, values in list(SETTINGS.items())[1:]:
        for path, value in values.items():
            home, _, name = path.rpartition(".")
            assert getattr(import_module(f"posepipe.{home}"), name) != value, title


def test_a_line_counts_what_its_rows_say() -> None:
    row = {"mm": "4.0", "dice": "0.9", "degrees": "8.0", "seconds": "0.5"}
    rows = [row, row | {"mm": "11.0", "dice": "", "degrees": "31.0"}, row | {"mm": "", "dice": "0.0", "degrees": "180.0", "seconds": "2.5"}]
    assert line("one candidate", rows) == "| one candidate | 3 | 1 | 1 | 0.450 | 0.000 | 1 of 3 | 31.0° | 0.50 |"
