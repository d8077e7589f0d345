"""A rating is given in a subject page, exported, merged by the group level, and shown on the group page."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until

from posepipe.cli.app import main
from posepipe.phantom.demo_data import write_demo


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A dataset of two participants, and its outputs; the poses are only as good as principal axes are."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "home"))
        demo = write_demo(folder, n_subjects=2, spacing=2.0)
        places = str(demo.bids_dir), str(folder / "out")
        options = ["-w", str(folder / "work"), "--atlas-dir", str(demo.atlas_dir), "--atlas", "Phantom", "--nprocs", "1"]
        assert main([*places, "participant", *options, "--init", "axes", "--refine", "none"]) == 0
    return places


@pytest.mark.slow
def test_rated_exported_merged_and_shown(study: tuple[str, str], open_page: Callable, tmp_path: Path):
    out = Path(study[1])
    assert main([*study, "group", "--blind", "Ada"]) == 0
    group = open_page(out / "group_pose.html")
    assert group.text("#next-count") == "1 of 3"
    first = group.text("#next-name")
    with group.tab.expect_popup() as popup:
        group.tab.keyboard.press("n")
    page = popup.value
    page.wait_for_selector("html[data-forms]")
    assert page.evaluate("location.hash") == "#rate"
    form = page.locator("form.rating").first
    assert form.get_attribute("data-image") + ".nii.gz" == first
    page.fill("#rater", "Ada <b>")
    page.locator("#rater").blur()
    form.locator("[name=decision][value=adjust]").check(force=True)
    form.locator("[name=quality][value='3']").check(force=True)
    form.locator("[name=comment]").fill("a\ttab, <script>alert(1)</script>")
    # the group page takes it up by itself
    group.tab.bring_to_front()
    until(group.tab, "document.getElementById('next-count').textContent === '1 of 2'")
    assert "Ada <b>: adjust 3 (in this browser)" in group.text("#images tbody")
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "ratings" / "ada.json")

    assert main([*study, "group", "--ratings", str(tmp_path / "ratings")]) == 0
    with (out / "group_ratings.tsv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert (row["rater"], row["decision"], row["quality"]) == ("Ada <b>", "adjust", "3")
    assert row["image"] + ".nii.gz" == first and row["comment"] == "a tab, <script>alert(1)</script>"
    merged = open_page(out / "group_pose.html", same=group)
    assert merged.text("#next-count") == "1 of 2" and "Ada <b> 1 0 1 0 3.00" in merged.text("#raters")
    assert merged.tab.locator("#images tbody").inner_text().count("Ada <b>: adjust 3") == 1  # not counted twice
    assert "in this browser" not in merged.text("#images tbody")
    page.close()


def test_blind_order_leads_to_pages_without_verdicts(study: tuple[str, str], open_page: Callable):
    out = Path(study[1])
    assert main([*study, "group", "--blind", "Ada"]) == 0
    order = open_page(out / "group_order_Ada.html")
    assert order.tab.locator(".order a").count() == 3
    with order.tab.expect_popup() as popup:
        order.tab.locator(".order a").first.click()
    page = popup.value
    page.wait_for_selector("html[data-forms]")
    assert "blind" in page.evaluate("document.documentElement.className")
    assert not any(part.is_visible() for part in page.locator(".qc").all())
    page.close()
