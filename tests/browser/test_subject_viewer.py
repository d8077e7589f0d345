"""The subject page's viewer in a real browser: every control, keys, two widths, print, and the top of the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from head_truth import TRUTH, make_scene
from subject_pages import Pages
from waiting import until

from posepipe.reports.subject import Failure, PageImage, write_subject_page
from posepipe.reports.views import make_views

Open = Callable[..., Any]
EVIL = "</script><script>document.title='broken'</script>\"'&<img src=x onerror=document.title='broken'>"


def ready(visit: Any) -> Any:
    """The visit once its pictures are drawn."""
    visit.tab.wait_for_selector("html[data-viewers]")
    return visit


def picture(visit: Any, row: int = 0, plane: int = 0, image: str = "image-1") -> str:
    """What is drawn in a cell: rows in the order before, after, synth, atlas."""
    cells = visit.tab.locator(f"#{image} .cell:not([hidden]) canvas")
    return cells.nth(3 * row + plane).evaluate("canvas => canvas.toDataURL()")


def titles(visit: Any, image: str = "image-1") -> list[str]:
    return visit.tab.locator(f"#{image} .slice span").all_inner_texts()


def box(visit: Any, name: str, image: str = "image-1") -> Any:
    return visit.tab.locator(f"#{image} [name={name}]")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("05", ["Fail", "pose that is not to be trusted", "sub-05_T2w.nii.gz: the pose is within 15° of the right one with"]),
        ("06", ["sub-06_T2w.nii.gz: the brain mask holds", "check mask and age"]),
        ("07", ["Failed", "The image has no pose", "sub-07_T2w.nii.gz: stopped in image: ImageError", "is it a complete NIfTI file?"]),
        ("03", ["sub-03_T1w.nii.gz T1w", "sub-03_T2w.nii.gz T2w"]),
        ("02_ses-1", ["sub-02 ses-1", "Session 1; also of this subject: ses-2"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("width", [1280, 820])
def test_the_page_says_at_first_sight_what_is_the_matter(open_page: Open, pages: Pages, label: str, says: list[str], width: int) -> None:
    visit = ready(open_page(pages.page(label), width=width))
    seen = visit.tab.evaluate(
        "() => [...document.querySelectorAll('header, .verdict, table.summary tr')]"
        ".filter((one) => one.getBoundingClientRect().bottom <= innerHeight).map((one) => one.innerText).join(' ')"
    )
    for words in says:
        assert words in " ".join(seen.split())
    assert visit.tab.title().startswith("sub-") and visit.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert pages.page(label).stat().st_size < 3_000_000


def test_sessions_lead_to_one_another(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("02_ses-1")))
    visit.tab.get_by_role("link", name="ses-2").click()
    visit.tab.wait_for_selector("text=sub-02 ses-2")
    assert visit.requests == [pages.page("02_ses-2").as_uri()]
    visit.requests.clear()


def test_t1w_stands_beside_its_synthetic_t2w(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("03")))
    (image,) = (s for s in ("image-1", "image-2") if "T1w" in visit.text(f"#{s} h2"))
    (other,) = {"image-1", "image-2"} - {image}
    labels = visit.tab.locator(f"#{image} .cell:not([hidden]) span").all_inner_texts()
    assert labels[::3] == ["Before", "After, T1w", "After, synthetic T2w"]
    assert picture(visit, 1, image=image) != picture(visit, 2, image=image)
    assert visit.tab.locator(f"#{other} .cell:not([hidden]) span").all_inner_texts()[::3] == ["Before", "After"]
    assert "desc-synth_T2w.nii.gz" in visit.text(f"#{image} table.files")


def test_every_control_of_the_viewer_does_something(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("06")))
    start = [picture(visit, row) for row in (0, 1)]
    assert start[0] != start[1]
    for name, row in (("mask", 0), ("mask", 1), ("atlas-on-image", 1)):
        was = picture(visit, row)
        box(visit, name).uncheck()
        assert picture(visit, row) != was
        box(visit, name).check()
        assert picture(visit, row) == was
    box(visit, "row-atlas").check()
    atlas = picture(visit, 2)
    box(visit, "image-on-atlas").uncheck()
    assert picture(visit, 2) != atlas and [picture(visit, row) for row in (0, 1)] == start
    box(visit, "row-before").uncheck()
    assert picture(visit, 0) == start[1]
    for name in ("row-after", "row-atlas"):
        assert not visit.shown("#image-1 .no-row")
        box(visit, name).uncheck()
    assert visit.shown("#image-1 .no-row") and not visit.shown("#image-1 canvas")


def test_the_atlas_is_mixed_in_and_blinks(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("06")))
    box(visit, "row-atlas").check()
    for name in ("mask", "atlas-on-image", "image-on-atlas"):
        box(visit, name).uncheck()
    plain, atlas = picture(visit, 1), picture(visit, 2)
    box(visit, "opacity").fill("50")
    assert picture(visit, 1) not in (plain, atlas) and "50 %" in visit.text("#image-1 .amount")
    box(visit, "opacity").fill("100")
    assert picture(visit, 1) == atlas
    box(visit, "opacity").fill("0")
    box(visit, "blink").click()
    assert box(visit, "blink").get_attribute("aria-pressed") == "true" and picture(visit, 1) == atlas
    until(
        visit.tab, "was => document.querySelectorAll('#image-1 .cell:not([hidden]) canvas')[3].toDataURL() === was", arg=plain
    )
    box(visit, "blink").click()
    assert box(visit, "blink").get_attribute("aria-pressed") == "false" and picture(visit, 1) == plain
    box(visit, "blink").click()
    box(visit, "opacity").fill("20")  # taking the slider ends the blinking
    assert box(visit, "blink").get_attribute("aria-pressed") == "false"


def test_slices_are_scrolled_in_three_planes(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("06")))
    for plane, name in enumerate(("axial", "coronal", "sagittal")):
        was, pictures = titles(visit), [picture(visit, 1, n) for n in range(3)]
        slider = box(visit, f"slice-{name}")
        slider.focus()
        visit.tab.keyboard.press("ArrowRight")
        now = titles(visit)
        assert [a == b for a, b in zip(was, now, strict=True)] == [n != plane for n in range(3)]
        other = (plane + 1) % 3
        assert picture(visit, 1, plane) != pictures[plane] and picture(visit, 1, other) == pictures[other]
        assert slider.get_attribute("aria-valuetext") == now[plane]
        for end in ("0", slider.get_attribute("max")):
            slider.fill(end)
            assert titles(visit)[plane] != now[plane]


def test_a_click_brings_the_other_planes_there_and_the_wheel_moves_slices(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("06")))
    canvas = visit.tab.locator("#image-1 .cell:not([hidden]) canvas").nth(3)
    canvas.scroll_into_view_if_needed()
    was, scrolled = titles(visit), visit.tab.evaluate("scrollY")
    canvas.hover()
    visit.tab.mouse.wheel(0, 100)
    until(visit.tab, "was => scrollY !== was", arg=scrolled)
    assert titles(visit) == was  # the page was moved: nobody had taken hold of the viewer
    size = canvas.bounding_box()
    canvas.click(position={"x": 0.3 * size["width"], "y": 0.25 * size["height"]})
    now = titles(visit)
    assert now[0] == was[0] and now[1].endswith(" A") and now[2].endswith(" L")
    canvas.hover()
    visit.tab.mouse.wheel(0, 100)
    until(visit.tab, "was => document.querySelector('#image-1 .slice span').innerText !== was", arg=now[0])


def test_keys_do_what_the_list_says(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("03")))
    press = visit.tab.keyboard.press
    press("n")
    assert visit.tab.evaluate("document.activeElement.closest('section').id") == visit.tab.evaluate(
        "document.querySelector('main > section.image').id"
    )
    first = visit.tab.evaluate("document.querySelector('main > section.image').id")
    for key, name in (("m", "mask"), ("a", "atlas-on-image"), ("i", "image-on-atlas")):
        press(key)
        assert not box(visit, name, first).is_checked()
        press(key)
        assert box(visit, name, first).is_checked()
    was = titles(visit, first)
    press(".")
    assert all(a != b for a, b in zip(was, titles(visit, first), strict=True))
    press(",")
    assert titles(visit, first) == was
    press("+")
    press("+")
    press("-")
    assert box(visit, "opacity", first).input_value() == "10"
    press("b")
    assert box(visit, "blink", first).get_attribute("aria-pressed") == "true"
    press("b")
    press("2")
    assert visit.tab.locator(f"#{first} [value=adjust]").is_checked()
    press("n")
    second = visit.tab.evaluate("document.activeElement.closest('section').id")
    assert second != first
    press("p")
    assert visit.tab.evaluate("document.activeElement.closest('section').id") == first
    visit.tab.locator(f"#{first} textarea").fill("")
    visit.tab.locator(f"#{first} textarea").press_sequentially("1 bam")
    assert visit.tab.locator(f"#{first} [value=adjust]").is_checked() and box(visit, "mask", first).is_checked()
    visit.tab.locator("summary").click()
    visit.tab.locator("#shortcuts").uncheck()
    visit.tab.locator(f"#{first} h2").focus()
    press("m")
    press("3")
    assert box(visit, "mask", first).is_checked() and visit.tab.locator(f"#{first} [value=adjust]").is_checked()


@pytest.mark.parametrize("width", [1280, 820, 390])
def test_the_page_fits_its_window(open_page: Open, pages: Pages, width: int) -> None:
    visit = ready(open_page(pages.page("03"), width=width, height=1000))
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width
    for part in visit.tab.locator("#image-1 .viewer input, #image-1 .viewer button, #image-1 .viewer canvas, #image-1 .rating label").all():
        if part.is_visible():
            place = part.bounding_box()
            assert place["x"] >= 0 and place["x"] + place["width"] <= width + 0.5
    assert visit.tab.locator("#image-1 canvas").first.bounding_box()["width"] > width / 5


def test_print_shows_pictures_and_the_rating_but_no_controls(open_page: Open, pages: Pages) -> None:
    visit = ready(open_page(pages.page("06")))
    visit.tab.locator("#rater").fill("Ada")
    visit.tab.locator("#rater").blur()
    visit.tab.locator("#image-1 [value=reject]").check()
    visit.tab.emulate_media(media="print")
    assert visit.shown("#image-1 canvas") and visit.shown(".verdict")
    for part in (".tools", ".slice input", ".rating-bar", ".rating fieldset", "textarea", "button", "details"):
        assert not visit.shown(part), part
    assert visit.text("#image-1 .rating .print-only") == "Ada: reject"
    paper = visit.tab.pdf(format="A4")
    assert paper.startswith(b"%PDF") and len(paper) > 50_000


def test_without_scripts_the_page_says_so_and_shows_the_numbers(browser: Any, pages: Pages) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(pages.page("06").as_uri())
    said = tab.locator("noscript p")
    assert said.is_visible() and "need JavaScript, which is switched off here" in said.inner_text()
    assert not tab.locator(".viewer").is_visible() and not tab.locator("#export").is_visible()
    assert tab.get_by_text("Rotation vector").is_visible()
    context.close()


def test_names_and_metadata_do_no_harm(open_page: Open, tmp_path: Path) -> None:
    sidecar = {
        "QC": EVIL, "QCReasons": [EVIL], "Sources": [EVIL], "Age": 29, "AgeSource": EVIL, "Atlas": EVIL, "Cohort": EVIL,
        "Contrast": EVIL, "Mask": EVIL, "Similarity": {EVIL: {"before": EVIL, "after": 1}}, "SoftwareVersions": {EVIL: EVIL},
        "Seconds": {EVIL: 1}, "Weights": {EVIL: EVIL}, "InitMethod": EVIL, "RefineMethod": EVIL,
        "RotationMatrix": TRUTH.rotation.tolist(), "TranslationMM": TRUTH.translation.tolist(),
    }  # fmt: skip
    grid = {"TemplateContrast": "T2w", "TemplateChoice": EVIL}
    views = make_views(*make_scene(), TRUTH)
    page = write_subject_page(
        tmp_path / "sub-<b>.html", subject=EVIL, session=EVIL, version=EVIL, command=EVIL, methods=f"*{EVIL}*\n\n- {EVIL}",
        images=[PageImage(f"sub-01/{EVIL}.nii.gz", sidecar, views, [EVIL], [EVIL], grid), PageImage(EVIL, sidecar, EVIL)],
        failures=[Failure(EVIL, EVIL, EVIL, EVIL)], sessions=[(EVIL, EVIL)],
    )  # fmt: skip
    visit = ready(open_page(page, "#blind"))
    assert EVIL in visit.tab.title() and visit.tab.locator("main img").count() == 0 and visit.tab.locator("script").count() == 2
    visit.tab.locator("#rater").fill(EVIL)
    visit.tab.locator("#image-1 textarea").fill(EVIL)
    visit.tab.locator("#image-1 [value=accept]").check()
    assert EVIL in visit.tab.title() and visit.tab.locator("main img").count() == 0
    assert visit.text("#image-2 .no-picture").startswith("No picture of this image. </script>")
