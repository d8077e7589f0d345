"""Rating in a real browser: what is stored, exported, imported, hidden from blind raters, and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from head_truth import TRUTH
from waiting import until

from posepipe.geometry import Rigid
from posepipe.reports.ratings import ARTEFACTS, read_ratings
from posepipe.reports.subject import PageImage, write_subject_page

Open = Callable[..., Any]
NO_STORAGE = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"


def write(
    folder: Path, subject: str = "01", pose: Rigid = TRUTH, session: str | None = None, qc: tuple[str, ...] = ("pass", "fail")
) -> Path:
    """A page of some images without pictures."""
    stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    images = [
        PageImage(
            f"sub-{subject}/anat/{stem}_run-{n}_T2w.nii.gz",
            {
                "QC": verdict, "QCReasons": [f"doubt {n}"] if verdict != "pass" else [], "Confidence": 0.31, "Age": 29, "Cohort": 29,
                "Similarity": {"NCC": {"before": 0.123, "after": 0.876}}, "Atlas": "CRL",
                "RotationMatrix": pose.rotation.tolist(), "TranslationMM": pose.translation.tolist(),
            },
            "There is none in this test",
            warnings=[f"warning {n}"],
        )
        for n, verdict in enumerate(qc, start=1)
    ]  # fmt: skip
    return write_subject_page(folder / f"{stem}.html", subject=subject, session=session, images=images, version="1.0")


def name(visit: Any, rater: str) -> None:
    visit.tab.locator("#rater").fill(rater)
    visit.tab.locator("#rater").blur()


def rate(visit: Any, image: int, decision: str, quality: int | None = None, artefacts: tuple[str, ...] = (), comment: str = "") -> None:
    form = visit.tab.locator(f"#image-{image} form")
    form.locator(f"[value={decision}]").check()
    if quality:
        form.locator(f"[name=quality][value='{quality}']").check()
    for artefact in artefacts:
        form.locator(f"[value={artefact}]").check()
    if comment:
        form.locator("textarea").fill(comment)


def given(visit: Any, image: int) -> tuple[Any, ...]:
    """What the form of an image shows."""
    form = visit.tab.locator(f"#image-{image} form")

    def ticked(field: str) -> list[str]:
        return form.locator(f"[name={field}]:checked").evaluate_all("boxes => boxes.map((box) => box.value)")

    return ticked("decision"), ticked("quality"), ticked("artefacts"), form.locator("textarea").input_value()


def export(visit: Any, path: Path) -> Path:
    with visit.tab.expect_download() as download:
        visit.tab.get_by_role("button", name="Export ratings").click()
    download.value.save_as(path)
    visit.requests[:] = [r for r in visit.requests if not r.startswith("blob:")]  # the file that is handed to the reader
    return path


def test_a_rating_is_kept_exported_and_imported_again(open_page: Open, tmp_path: Path) -> None:
    page = write(tmp_path, session="2")
    visit = open_page(page)
    name(visit, "Ada L.")
    rate(visit, 2, "adjust", 3, tuple(ARTEFACTS), "first line\n<second> \"line\"")
    rate(visit, 1, "accept")
    assert visit.text("#progress") == "2 of 2 images of this page rated" and visit.text("#image-1 .status") == "Rated."
    filled = (["adjust"], ["3"], list(ARTEFACTS), "first line\n<second> \"line\"")
    again = open_page(page, same=visit)
    assert again.tab.locator("#rater").input_value() == "Ada L." and given(again, 2) == filled
    file = export(again, tmp_path / "ada.json")
    one, two = read_ratings(file)
    assert (one.rater, one.subject, one.session, one.image) == ("Ada L.", "01", "2", "sub-01_ses-2_run-1_T2w")
    assert (one.decision, one.quality, one.artefacts, one.comment) == ("accept", None, (), "")
    assert (two.decision, two.quality, two.artefacts) == ("adjust", 3, tuple(ARTEFACTS)) and two.comment == filled[3]
    other = open_page(page)
    assert given(other, 2) == ([], [], [], "")
    other.tab.locator("#import").set_input_files(file)
    until(other.tab, "document.getElementById('message').textContent.includes('imported')")
    assert other.text("#message") == "Ratings of Ada L.: 2 imported." and given(other, 2) == filled
    assert read_ratings(export(other, tmp_path / "again.json")) == [one, two]


def test_the_file_is_named_after_the_rater(open_page: Open, tmp_path: Path) -> None:
    visit = open_page(write(tmp_path))
    name(visit, "Zoë / X")
    rate(visit, 1, "reject")
    with visit.tab.expect_download() as download:
        visit.tab.locator("#export").click()
    assert download.value.suggested_filename == "posepipe_ratings_Zoë_X.json"
    visit.requests.clear()


def test_ratings_of_all_pages_of_a_folder_go_into_one_file(open_page: Open, tmp_path: Path) -> None:
    visit = open_page(write(tmp_path, "01"))
    name(visit, "Ada")
    rate(visit, 1, "accept")
    second = open_page(write(tmp_path, "02"), same=visit)
    rate(second, 2, "reject")
    (tmp_path / "other").mkdir()
    third = open_page(write(tmp_path / "other", "03"), same=visit)
    rate(third, 1, "adjust")
    found = read_ratings(export(second, tmp_path / "all.json"))
    assert [(r.image, r.decision) for r in found] == [("sub-01_run-1_T2w", "accept"), ("sub-02_run-2_T2w", "reject")]
    assert visit.text("#message") == "" and second.text("#message") == "2 ratings exported."


def test_raters_who_share_a_browser_do_not_mix(open_page: Open, tmp_path: Path) -> None:
    visit = open_page(write(tmp_path))
    rate(visit, 1, "accept")  # before the name was given
    name(visit, "Ada")
    assert given(visit, 1)[0] == ["accept"]
    name(visit, "Bob")
    assert given(visit, 1)[0] == []
    rate(visit, 1, "reject")
    name(visit, "Ada")
    assert given(visit, 1)[0] == ["accept"]
    (found,) = read_ratings(export(visit, tmp_path / "ada.json"))
    assert (found.rater, found.decision) == ("Ada", "accept")


def test_what_is_not_decided_is_kept_but_not_exported(open_page: Open, tmp_path: Path) -> None:
    page = write(tmp_path)
    visit = open_page(page)
    visit.tab.locator("#export").click()
    assert visit.text("#message") == "Give your name first." and visit.tab.evaluate("document.activeElement.id") == "rater"
    name(visit, "Ada")
    visit.tab.locator("#export").click()
    assert "no image is rated" in visit.text("#message")
    visit.tab.locator("#image-1 [name=quality][value='2']").check()
    assert visit.text("#image-1 .status") == "Not rated yet: choose accept, adjust or reject."
    visit.tab.locator("#export").click()
    assert "no image is rated" in visit.text("#message")
    assert given(open_page(page, same=visit), 1)[1] == ["2"]
    rate(visit, 1, "accept", 2)
    visit.tab.locator("#image-1 [name=clear]").click()
    assert given(visit, 1) == ([], [], [], "") and given(open_page(page, same=visit), 1) == ([], [], [], "")


def test_without_storage_the_page_says_so_and_still_exports(open_page: Open, tmp_path: Path) -> None:
    visit = open_page(write(tmp_path), before=NO_STORAGE)
    assert "keeps nothing for pages opened from disk" in visit.text("#no-storage") and visit.shown("#no-storage")
    name(visit, "Ada")
    rate(visit, 1, "accept", 4)
    assert visit.shown("#unsaved")
    (found,) = read_ratings(export(visit, tmp_path / "ada.json"))
    assert found.quality == 4 and not visit.shown("#unsaved")
    normal = open_page(write(tmp_path))
    rate(normal, 1, "accept")
    assert not normal.shown("#no-storage") and not normal.shown("#unsaved")


def test_a_rating_of_an_earlier_pose_is_not_taken_as_one_of_this(open_page: Open, tmp_path: Path) -> None:
    visit = open_page(write(tmp_path))
    name(visit, "Ada")
    rate(visit, 1, "accept")
    rate(visit, 2, "adjust")
    moved = open_page(write(tmp_path, pose=Rigid.from_rotvec([0.1, 0, 0])), same=visit)
    assert given(moved, 1)[0] == [] and "rated an earlier pose of this image (accept)" in moved.text("#image-1 .status")
    rate(moved, 1, "reject")
    (found,) = read_ratings(export(moved, tmp_path / "ada.json"))
    assert (found.image, found.decision) == ("sub-01_run-1_T2w", "reject")


def test_what_is_newer_here_is_kept_when_ratings_are_imported(open_page: Open, tmp_path: Path) -> None:
    def stored(image: str, when: str, decision: str) -> dict[str, Any]:
        return {"subject": image[4:6], "session": None, "image": image, "decision": decision, "quality": None, "artefacts": [],
                "comment": "", "rated": when}  # fmt: skip

    rows = [stored("sub-01_run-1_T2w", "2020-01-01T00:00:00Z", "reject"), stored("sub-01_run-2_T2w", "2020-01-01T00:00:00Z", "reject"),
            stored("sub-09_T2w", "2020-01-01T00:00:00Z", "adjust")]  # fmt: skip
    file = tmp_path / "old.json"
    file.write_text(json.dumps({"posepipe_ratings": 1, "rater": "Ada", "exported": "2020-01-01T00:00:00Z", "ratings": rows}))
    visit = open_page(write(tmp_path))
    name(visit, "Ada")
    rate(visit, 1, "accept")
    visit.tab.locator("#import").set_input_files(file)
    until(visit.tab, "document.getElementById('message').textContent.includes('imported')")
    assert visit.text("#message") == (
        "Ratings of Ada: 1 imported, 1 left as they are here, which is newer, 1 of images on other pages."
    )
    assert given(visit, 1)[0] == ["accept"] and given(visit, 2)[0] == ["reject"]
    found = {r.image: r.decision for r in read_ratings(export(visit, tmp_path / "new.json"))}
    assert found == {"sub-01_run-1_T2w": "accept", "sub-01_run-2_T2w": "reject", "sub-09_T2w": "adjust"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "it is no JSON"),
        ('{"a": 1}', "no posepipe ratings of version 1"),
        ('{"posepipe_ratings": 1, "rater": " ", "ratings": []}', "it names no rater"),
        ('{"posepipe_ratings": 1, "rater": "A", "ratings": [{"image": "x", "decision": "perhaps"}]}', "a rating in it is not complete"),
    ],
)
def test_a_file_that_is_no_ratings_is_refused_by_name(open_page: Open, tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    visit = open_page(write(tmp_path))
    visit.tab.locator("#import").set_input_files(file)
    until(visit.tab, "document.getElementById('message').textContent")
    assert visit.text("#message").startswith("mine.json was not imported: ") and says in visit.text("#message")
    assert visit.tab.locator("#rater").input_value() == ""


@pytest.mark.slow
@pytest.mark.parametrize("address", ["#blind", "?blind#rate"])
def test_a_blind_rater_sees_no_verdict_until_all_is_rated(open_page: Open, tmp_path: Path, address: str) -> None:
    page = write(tmp_path, qc=("pass", "review", "fail"))
    visit = open_page(page, address)
    hints = ("Pass", "Review", "Fail", "31 %", "doubt", "warning", "0.876", "urgent")
    assert not [hint for hint in hints if hint in visit.text()]
    assert "Blind rating" in visit.text()
    order = visit.tab.locator("section.image h2").all_inner_texts()
    assert order == sorted(order) and len(order) == 3
    assert visit.tab.locator("table.summary a").all_inner_texts() == [one.rsplit("/", 1)[1] for one in order]
    rate(visit, 3, "reject")
    assert "Fail" in visit.text("#image-3") and "doubt 3" in visit.text("#image-3") and "0.876" in visit.text("#image-3")
    assert "Review" not in visit.text() and "doubt 2" not in visit.text() and "31 %" not in visit.text("#image-1")
    rate(visit, 1, "accept")
    assert not visit.shown(".verdict")
    rate(visit, 2, "accept")
    assert visit.shown(".verdict") and "Fail: 1 of 3 images" in visit.text(".verdict")
    assert not [hint for hint in hints[:3] if hint in open_page(page, address).text()]
    seeing = open_page(page)
    assert "Fail: 1 of 3 images" in seeing.text() and not seeing.shown(".blind-only")
    assert seeing.tab.locator("section.image h2").first.inner_text().endswith("run-3_T2w.nii.gz")


def test_rate_in_the_address_leads_to_the_first_image_that_is_not_rated(open_page: Open, tmp_path: Path) -> None:
    page = write(tmp_path)
    visit = open_page(page, "#rate")
    assert visit.tab.evaluate("document.activeElement.id") == "rater"
    name(visit, "Ada")
    rate(visit, 2, "accept")
    again = open_page(page, "#rate", same=visit)
    assert again.tab.evaluate("document.activeElement.closest('section').id") == "image-1"
    assert again.tab.evaluate("document.activeElement.name") == "decision"
