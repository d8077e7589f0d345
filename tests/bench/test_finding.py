"""The ablation of the brain finder: constants are set for a while, each row is counted for what it says."""

from __future__ import annotations

import pytest

from posepipe.bench.finding import SETTINGS, line, set_to
from posepipe.brainmask import detection, finder


def test_constants_are_set_for_a_while_wherever_they_are() -> None:
    before = finder.OUTLINED, detection.PEAK
    with pytest.raises(ValueError, match="stopped"), set_to({"OUTLINED": 1.4, "PEAK": 7}):
        assert (finder.OUTLINED, detection.PEAK) == (1.4, 7)
        raise ValueError("stopped")
    assert before == (finder.OUTLINED, detection.PEAK)
    with pytest.raises(AttributeError, match="NOSE"), set_to({"NOSE": 1}):
        pass


def test_every_setting_is_another_than_that_in_use() -> None:
    assert SETTINGS["as it is"] == {}
    for title, values in list(SETTINGS.items())[1:]:
        for name, value in values.items():
            assert vars(finder).get(name, vars(detection).get(name)) not in {None, value}, title


def test_a_line_counts_what_its_rows_say() -> None:
    row = {"mm": "4.0", "dice": "0.9", "degrees": "8.0", "seconds": "0.5"}
    rows = [row, row | {"mm": "11.0", "dice": "", "degrees": "31.0"}, row | {"mm": "", "dice": "0.0", "degrees": "180.0", "seconds": "2.5"}]
    assert line("one candidate", rows) == "| one candidate | 3 | 1 | 1 | 0.450 | 0.000 | 1 of 3 | 31.0° | 0.50 |"
