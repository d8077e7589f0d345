"""The group page in a real browser: every control, without console messages and without requests."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from group_outputs import Output, rating, write_failure, write_output, write_ratings
from PIL import Image
from waiting import until, until_titled

from posepipe.reports.group_order import reading_order
from posepipe.reports.group_outliers import similarity_z
from posepipe.reports.group_page import GroupContent, write_group_page, write_order_page
from posepipe.reports.group_queue import review_queue
from posepipe.reports.group_ratings import Ratings, gather
from posepipe.reports.group_rows import GroupRow, collect

ROWS = "#images tbody tr.row"
SCRIPT = "<script>document.title='broken'</script><img src=x onerror=document.title='broken'>"


def picture(seed: int) -> bytes:
    """A thumbnail's worth of noise."""
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (56, 112), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "WEBP", quality=10)
    return stream.getvalue()


def build(out: Path, ratings: Ratings | None = None, **more: Any) -> Path:
    rows = collect(out).rows
    rated = (ratings or Ratings()).by_image()
    content = GroupContent(
        rows=rows,
        scores=similarity_z(rows),
        queue=review_queue(rows, rated.keys()),
        thumbnails={row.resampled: picture(n) for n, row in enumerate(rows) if row.has_pose},
        pages=frozenset(row.page for row in rows if (out / row.page).is_file()),
        ratings=ratings or Ratings(),
        agreement=(ratings or Ratings()).agreement(),
        **more,
    )
    return write_group_page(out / "group_pose.html", content, version="1.2.3", command="posepipe a b group")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Twenty images: one fails, one is to be reviewed, an outlier, a T1w, one without a page, one that stopped."""
    rng = np.random.default_rng(0)
    for n in range(1, 17):
        special = {3: {"qc": "fail", "ncc": 0.2, "reasons": ("low overlap",)}, 5: {"qc": "review", "reasons": ("odd mask",)}}
        more = {"ncc": 0.9 + 0.005 * float(rng.standard_normal()), "confidence": round(0.5 + n / 40, 3)} | special.get(n, {})
        write_output(tmp_path, Output(f"{n:02d}", age=22.0 + n, angle=10.0 * n, **more), page=n != 7)
    write_output(tmp_path, Output("17", "1", contrast="T1w", age=40.0, confidence=0.99))
    write_output(tmp_path, Output("17", "2", age=41.0, confidence=0.05, more={"Atlas": "Serag", "Cohort": "41"}))
    (tmp_path / "sub-17/ses-2/anat/sub-17_ses-2_space-Serag_cohort-41_T2w.json").write_text('{"TemplateContrast": "T2w"}')
    write_failure(tmp_path, "sub-18/anat/sub-18_T2w.nii.gz", "MaskError: nothing in it")
    (tmp_path / "sub-18.html").write_text("<!DOCTYPE html><p>page of sub-18</p>")
    return tmp_path


def names(visit: Any) -> list[str]:
    return visit.tab.locator(f"{ROWS} .name").all_inner_texts()


def subjects(visit: Any) -> list[str]:
    return [name.split("_")[0].removeprefix("sub-") for name in names(visit)]


def test_first_sight(study: Path, open_page: Callable):
    visit = open_page(build(study, problems=["/o/sub-9.json: cannot be read"], notes=["a note"], methods="# Methods\n\ntext"))
    assert visit.text("header p") == "19 images of 18 participants in 19 sessions, 23.0 to 41.0 weeks"
    assert "1 file could not be read" in visit.text(".problems") and "/o/sub-9.json" in visit.text(".problems")
    assert visit.text(".notes") == "a note" and "text" in visit.text(".methods-text")
    assert visit.text("#shown") == "19 of 19 shown"
    assert "Ordered by confidence, the least first." in visit.text("#next")
    # what stopped comes first, then the queue by confidence
    assert subjects(visit)[:4] == ["18", "17", "01", "02"]
    first = visit.tab.locator(ROWS).first
    assert "Failed" in first.inner_text() and "MaskError: nothing in it" in first.inner_text()
    assert not visit.shown("#ratings") and not visit.shown("noscript div")


def test_next_to_review(study: Path, open_page: Callable):
    visit = open_page(build(study))
    tab = visit.tab
    assert (visit.text("#next-name"), visit.text("#next-count")) == ("sub-17_ses-2_T2w.nii.gz", "1 of 18")
    assert "41.0 weeks, Serag+41, confidence 5 %" in visit.text("#next-why") and tab.locator("#next-back").is_disabled()
    tab.click("#next-skip")
    assert visit.text("#next-name") == "sub-01_T2w.nii.gz"
    tab.click("#next-back")
    with tab.expect_popup() as popup:
        tab.click("#next-open")
    assert popup.value.text_content("p") == "page of sub-17_ses-2"
    assert visit.text("#next-count") == "2 of 18"
    tab.keyboard.press("s")
    assert visit.text("#next-name") == "sub-02_T2w.nii.gz"
    tab.keyboard.press("n")  # the same other tab is used again
    until_titled(popup.value, "sub-02")
    assert visit.text("#next-name") == "sub-03_T2w.nii.gz" and visit.text("#next-badge") == "✕ Fail"
    assert "low overlap" in visit.text("#next-why") and "outlier: NCC −" in visit.text("#next-why")
    for _ in range(30):
        tab.keyboard.press("s")
    assert visit.text("#next-count") == "18 of 18" and tab.locator("#next-skip").is_disabled()


def test_sorting_by_every_column(study: Path, open_page: Callable):
    visit = open_page(build(study))
    tab = visit.tab
    expected = {
        "path": (["01", "02"], ["18", "17"]),
        "verdict": (["18", "03", "05"], ["01", "02"]),
        "confidence": (["17", "01"], ["17", "16"]),
        "angle": (["01", "02"], ["16", "15"]),
        "age": (["01", "02"], ["17", "17"]),
        "z": (["03"], None),
        "0": (["03"], None),
        "raters": (["01"], None),
        "space": (["01"], ["17", "01"]),
        "queue": (["18", "17"], None),
    }
    assert {b.get_attribute("data-sort") for b in tab.locator("#images th button").all()} == {*expected, "1", "spread"}
    for key, (up, down) in expected.items():
        button = tab.locator(f'#images th button[data-sort="{key}"]')
        button.click()
        assert subjects(visit)[: len(up)] == up, key
        assert tab.locator("#images th[aria-sort=ascending]").count() == 1
        button.click()
        assert tab.locator("#images th[aria-sort=descending] button").get_attribute("data-sort") == key
        if down:
            assert subjects(visit)[: len(down)] == down, key
    tab.click('#images th button[data-sort="confidence"]')
    assert subjects(visit)[-1] == "18"  # not known: last, whichever way


def test_every_filter(study: Path, open_page: Callable):
    write_ratings(study / "r" / "a.json", "AB", [rating("sub-04_T2w", "adjust", 2)])
    visit = open_page(build(study, gather(study / "r")))
    tab = visit.tab

    def reset() -> None:
        tab.click("#show-all")
        assert visit.text("#shown") == "19 of 19 shown"

    tab.fill("#search", "sub-17 t1w")
    assert names(visit) == ["sub-17_ses-1_T1w.nii.gz"]
    tab.fill("#search", "ODD MASK")
    assert subjects(visit) == ["05"]
    tab.fill("#search", "ab: adjust 2")
    assert subjects(visit) == ["04"]
    reset()
    tab.uncheck(".by-verdict[value=pass]")
    assert subjects(visit) == ["18", "03", "05"] and visit.text("#shown") == "3 of 19 shown"
    tab.uncheck(".by-verdict[value=failed]")
    assert subjects(visit) == ["03", "05"]
    reset()
    tab.select_option("#contrast", "T1w")
    assert names(visit) == ["sub-17_ses-1_T1w.nii.gz"]
    reset()
    tab.select_option("#atlas", "Serag")
    assert names(visit) == ["sub-17_ses-2_T2w.nii.gz"]
    reset()
    tab.fill("#age-from", "25.5")
    tab.fill("#age-to", "28")
    assert subjects(visit) == ["05", "06", "04"]  # 04 is rated: after the queue
    reset()
    tab.check("#only-outliers")
    assert subjects(visit) == ["03"]
    reset()
    tab.check("#only-unrated")
    assert "04" not in subjects(visit) and visit.text("#shown") == "18 of 19 shown"
    tab.fill("#search", "no such thing")
    assert names(visit) == [] and "None of the rows shown" in visit.text("#chart-angle")
    tab.press("#search", "Escape")
    assert visit.text("#shown") == "19 of 19 shown" and tab.evaluate("document.activeElement.id") != "search"


def test_rows_and_keys_open_pages(study: Path, open_page: Callable):
    visit = open_page(build(study), height=1600)
    tab = visit.tab
    with tab.expect_popup() as popup:
        tab.locator(f"{ROWS} a.name, {ROWS} .name a").first.click()
    assert popup.value.text_content("p") == "page of sub-18"
    assert tab.locator(f"{ROWS}.selected").count() == 1
    tab.locator(ROWS).nth(2).locator("td").nth(4).click()
    until_titled(popup.value, "sub-01")
    tab.bring_to_front()
    tab.keyboard.press("j")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("k")
    assert "sub-02" in visit.text(f"{ROWS}.selected")
    tab.keyboard.press("Enter")
    until_titled(popup.value, "sub-02")
    tab.keyboard.press("/")
    tab.keyboard.type("sub-07")
    assert tab.locator(f"{ROWS} a").count() == 0 and names(visit) == ["sub-07_T2w.nii.gz"]  # it has no page
    assert not tab.locator("#help").evaluate("e => e.open")
    tab.keyboard.press("Escape")
    tab.keyboard.press("?")
    assert tab.locator("#help").evaluate("e => e.open") and visit.shown("#help p")


def test_charts(study: Path, open_page: Callable):
    visit = open_page(build(study))
    tab = visit.tab
    for chart in ("angle", "confidence", "similarity"):
        assert tab.locator(f"#chart-{chart} svg .pass-marks").count() == 1, chart
        assert tab.locator(f"#chart-{chart} svg .fail-marks").count() == 1
        assert tab.locator(f"#chart-{chart} svg .rings").get_attribute("d").count("M") == 1
    assert tab.locator("#chart-angle svg").get_attribute("aria-label") == "Rotation angle in degrees against age of 18 images"
    place = tab.locator("#chart-angle svg .fail-marks").bounding_box()
    middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    tab.mouse.move(*middle)
    assert "sub-03_T2w.nii.gz: Fail, 25.0 weeks, turned 30.0°" in visit.text("#readout") and "outlier (NCC −" in visit.text("#readout")
    with tab.expect_popup() as popup:
        tab.mouse.click(*middle)
    assert popup.value.text_content("p") == "page of sub-03"
    tab.mouse.move(5, 5)
    assert visit.text("#readout").startswith("Point at a mark")
    tab.select_option("#measure", label="Dice")
    assert tab.locator("#chart-similarity svg").get_attribute("aria-label") == "Dice against age of 18 images"
    tab.check("#only-outliers")
    assert tab.locator("#chart-angle svg").get_attribute("aria-label").endswith("of 1 images")


def test_without_confidence_it_says_so(tmp_path: Path, open_page: Callable):
    for n, qc in enumerate(("pass", "fail", "review")):
        write_output(tmp_path, Output(f"0{n}", qc=qc))
    visit = open_page(build(tmp_path))
    assert "No confidence was estimated: ordered by verdict" in visit.text("#next")
    assert visit.text("#chart-confidence") == "No confidence was estimated for these images."
    assert subjects(visit) == ["01", "02", "00"]


def test_ratings_and_agreement(study: Path, open_page: Callable):
    images = [f"sub-{n:02d}_T2w" for n in range(1, 7)]
    for rater, accepted in (("AB", 5), ("C <D>", 4)):
        said = [rating(i, "accept", 4) for i in images[:accepted]] + [rating(i, "reject", 1) for i in images[accepted:]]
        write_ratings(study / "r" / f"{accepted}.json", rater, said)
    visit = open_page(build(study, gather(study / "r")))
    assert "C <D> 6 4 0 2 3.00" in visit.text("#raters")
    assert "AB and C <D> 6 83 % 0.57 6 0.57" in visit.text("#agreement")
    assert visit.text("#disagreements") == "sub-05_T2w: AB: accept 4; C <D>: reject 1"
    assert visit.text("#next-count") == "1 of 12"
    with visit.tab.expect_popup() as popup:
        visit.tab.click("#disagreements a")
    assert popup.value.text_content("p") == "page of sub-05"


def test_markup_in_metadata_does_no_harm(tmp_path: Path, open_page: Callable):
    odd = {
        "QCReasons": [SCRIPT, "</script>"], "AgeSource": SCRIPT, "Cohort": "29",
        "Similarity": {SCRIPT: {"after": 0.5}, "NCC": {"after": 0.9}},
    }  # fmt: skip
    write_output(tmp_path, Output("01", qc=SCRIPT, more=odd))
    write_failure(tmp_path, "sub-02/anat/sub-02_T2w.nii.gz", SCRIPT)
    write_ratings(tmp_path / "r" / "a.json", SCRIPT, [rating("sub-01_T2w", comment=SCRIPT)])
    path = build(tmp_path, gather(tmp_path / "r"), problems=[SCRIPT], notes=[SCRIPT], methods=SCRIPT)
    visit = open_page(path)
    assert visit.tab.title() == "Group – posepipe"
    assert SCRIPT in visit.text(".problems") and "<script>" in visit.text("#images") and SCRIPT in visit.text("#raters")
    visit.tab.fill("#search", "<script>")
    assert visit.tab.locator(ROWS).count() == 2
    visit.tab.select_option("#measure", label=SCRIPT)
    assert visit.tab.title() == "Group – posepipe"


def many(out: Path, count: int) -> tuple[GroupRow, ...]:
    """Rows of which no file is written."""
    rng = np.random.default_rng(0)
    base = Output("x")
    write_output(out, base, page=False)
    (row,) = collect(out).rows
    rows = []
    for n in range(count):
        age = float(rng.uniform(21, 38))
        output = Output(f"{n:04d}", age=age, ncc=0.7 + age / 200 + 0.01 * float(rng.standard_normal()), confidence=float(rng.beta(8, 1)))
        sidecar = output.sidecar() | {"RotationAngleDegrees": float(rng.uniform(0, 180))}
        reasons = ("after alignment the brain mask and the template's overlap by only 0.83 (Dice)",)
        names = {"subject": output.subject, "image": output.image, "resampled": str(output.resampled)}
        rows.append(replace(row, sidecar=sidecar, reasons=reasons, **names))
    return tuple(rows)


@pytest.mark.slow
def test_two_thousand_images(tmp_path: Path, open_page: Callable):
    rows = many(tmp_path, 2000)
    content = GroupContent(
        rows=rows, scores=similarity_z(rows), queue=review_queue(rows, ()), pages=frozenset(row.page for row in rows),
        thumbnails={row.resampled: picture(n) for n, row in enumerate(rows)},
    )  # fmt: skip
    path = write_group_page(tmp_path / "group_pose.html", content, version="1")
    visit = open_page(path)
    timing = json.loads(visit.tab.evaluate("JSON.stringify(performance.getEntriesByType('navigation')[0])"))
    print(f"2,000 rows: {path.stat().st_size / 1e6:.1f} MB, open in {timing['loadEventEnd']:.0f} ms")
    assert visit.text("#shown") == "2000 of 2000 shown"
    assert visit.tab.locator(ROWS).count() < 60
    visit.tab.evaluate("document.getElementById('table-box').scrollTop = 64 * 1000")
    until(visit.tab, "document.querySelector('#images tbody tr.row').getAttribute('aria-rowindex') > 900")
    assert visit.tab.locator(ROWS).count() < 60
    visit.tab.evaluate("document.getElementById('table-box').scrollTop = 1e9")
    until(visit.tab, "document.querySelector('#images tbody tr.row:last-child')?.getAttribute('aria-rowindex') === '2001'")
    visit.tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert visit.tab.locator(ROWS).count() == 2000
    visit.tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert visit.tab.locator(ROWS).count() < 60


def test_rows_have_the_height_that_scrolling_counts_on(study: Path, open_page: Callable):
    for width in (1280, 820):
        visit = open_page(build(study), width=width)
        assert set(visit.tab.evaluate(f"[...document.querySelectorAll('{ROWS}')].map(r => r.getBoundingClientRect().height)")) == {64}
        # the page itself never scrolls sideways: the table does
        assert visit.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_reading_order_leads_to_blind_pages(study: Path, open_page: Callable):
    turns = reading_order(collect(study).rows, ["AB"], seed=0)
    visit = open_page(write_order_page(study / "group_order_AB.html", turns, version="1"))
    links = visit.tab.locator(".order a")
    assert [a.get_attribute("href") for a in links.all()] == [f"{turn.page}#blind" for turn in turns]
    with visit.tab.expect_popup() as popup:
        links.first.click()
    assert popup.value.url.endswith("#blind")
    assert "Reading order of AB" in visit.text("h1") and "fail" not in visit.text("main").lower()
