"""The drawing of a turned head, read back from its SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from posepipe.geometry import Rigid
from posepipe.reports.drawing import head_turn


def test_the_head_turns_as_the_pose_says() -> None:
    drawing = head_turn(Rigid.from_rotvec([0, 0, np.pi / 2]))
    root = ET.fromstring(drawing)
    assert root.get("role") == "img"
    text = root.findtext("title") or ""
    assert text == root.get("aria-label")
    assert "Head turned by 90 degrees." in text
    assert "The head's right points to the image's anterior (0° off)." in text
    assert "The head's anterior points to the image's left (0° off)." in text
    places = [(t, (float(t.get("x", 0)), float(t.get("y", 0)))) for t in root.iter("text")]
    bold = {t.text: place for t, place in places if t.get("font-weight")}
    plain = {t.text: place for t, place in places if not t.get("font-weight")}
    assert bold["R"] == pytest.approx(plain["A"], abs=6)  # the head's right lies along the image's anterior
    assert bold["A"][0] < 100 < 160 < plain["R"][0]  # and its anterior on the left, where the world's right is not
    assert bold["S"] == pytest.approx(plain["S"], abs=6)
