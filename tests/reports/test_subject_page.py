"""The page of a subject: self-contained, escaped, verdict first, nothing left out."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posepipe.errors import ImageError, TransformError
from posepipe.geometry import Rigid
from posepipe.reports.facts import apply_command, image_rows, seconds_rows, similarity_rows
from posepipe.reports.page import data_uri, json_block, link, write_page
from posepipe.reports.prose import prose
from posepipe.reports.subject import Failure, PageImage, write_subject_page
from posepipe.reports.views import Views

POSE = Rigid.from_rotvec([0.3, -1.1, 0.4], [12.5, -3.25, 40.0])
STEM = "sub-01/anat/sub-01_rec-svr_"
OUTPUTS = [
    f"{STEM}from-T2w_to-CRL+29_mode-image_xfm.txt",
    f"{STEM}from-T2w_to-CRL+29_mode-image_xfm.json",
    f"{STEM}from-CRL+29_to-T2w_mode-image_xfm.txt",
    f"{STEM}space-CRL_cohort-29_T2w.nii.gz",
    f"{STEM}desc-reoriented_T2w.nii.gz",
    f"{STEM}desc-brain_mask.nii.gz",
]
NO_PICTURE = "It could not be made: the template is gone"
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def sidecar(**changes: object) -> dict:
    return {
        "Sources": ["bids::sub-01/anat/sub-01_rec-svr_T2w.nii.gz"],
        "Age": 28.7,
        "AgeSource": "participants.tsv, column gestational_age",
        "Atlas": "CRL",
        "Cohort": "29",
        "Contrast": "T2w",
        "Mask": "given",
        "InitMethod": "deep",
        "RefineMethod": "ants",
        "RotationMatrix": POSE.rotation.tolist(),
        "RotationVector": POSE.rotvec.tolist(),
        "RotationAngleDegrees": POSE.angle_degrees,
        "TranslationMM": POSE.translation.tolist(),
        "Similarity": {"NCC": {"before": 0.41234, "after": 0.92345}},
        "Confidence": 0.973,
        "QC": "pass",
        "QCReasons": [],
        "Seconds": {"init": 1.25, "refine": 3.5},
        "Weights": {"pose": "9f86d081884c"},
        "SoftwareVersions": {"posepipe": "0.1.0", "numpy": "2.1"},
        **changes,
    }


def page_image(name: str = "sub-01/anat/sub-01_rec-svr_T2w.nii.gz", **changes: object) -> PageImage:
    return PageImage(name, sidecar(**changes), NO_PICTURE, OUTPUTS)


class Reader(HTMLParser):
    """Tags with their attributes, the text a reader sees, and tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in {"meta", "img", "br", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script", "noscript"}:
            self.text.append(data)


def read(path: Path) -> tuple[Reader, str]:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader, re.sub(r"\s+", " ", " ".join(reader.text))


def write(tmp_path: Path, *images: PageImage, failures: tuple[Failure, ...] = (), **more: object) -> tuple[Reader, str]:
    path = tmp_path / "out" / "sub-01_ses-1.html"
    written = write_subject_page(
        path, subject="01", session="ses-1", images=images, failures=failures, version="0.1.0", **more
    )
    assert written == path
    return read(path)


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    reader, _ = write(tmp_path, page_image(), command="posepipe /data /out participant", methods="See doi.org.")
    for tag, attributes in reader.tags:
        assert tag not in {"link", "iframe", "object", "base"}
        for name in ("src", "srcset", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:")
        assert "//" not in attributes.get("href", "")
        assert not any(name.startswith("on") for name in attributes)
    html = (tmp_path / "out" / "sub-01_ses-1.html").read_text(encoding="utf-8")
    assert "@import" not in html and "url(" not in html and "http:" not in html and "https:" not in html


def test_the_page_shows_everything_in_the_sidecar(tmp_path: Path) -> None:
    reader, text = write(tmp_path, page_image(), command="posepipe /data /out participant", methods="As in the paper.")
    assert ("h1", {}) in reader.tags and "sub-01 ses-1" in text
    degrees = np.degrees(POSE.rotvec)
    for part in (
        f"{POSE.angle_degrees:.1f}°",
        f"R {degrees[0]:.1f}°, A {degrees[1]:.1f}°, S {degrees[2]:.1f}°",
        "R 12.5, A -3.2, S 40.0 mm",
        "97 % (that the pose is within 15°)",
        "28.7 weeks",
        "participants.tsv, column gestational_age",
        "CRL, cohort 29",
        "the cohort is 0.3 weeks older",
        "T2w", "given", "deep", "ants",
        "0.4123",
        "0.9234",
        "1.25", "3.50", "4.75",
        "SHA-256 9f86d081884c",
        "posepipe 0.1.0",
        "antsApplyTransforms -d 3 -i",
        "posepipe /data /out participant",
        "As in the paper.",
        "12.500000",
        "Head turned by",
    ):  # fmt: skip
        assert part in text, part
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    for output in OUTPUTS:
        assert output in text and link(output) in links


def test_the_verdict_comes_first_in_words(tmp_path: Path) -> None:
    _, text = write(tmp_path, page_image(), page_image(QC="review", QCReasons=["two poses fit nearly as well"]))
    parts = ("Review: 1 of 2 images", "two poses fit nearly as well", "Rotation vector")
    assert sorted(parts, key=text.index) == list(parts)
    _, text = write(tmp_path, page_image(QC="fail", QCReasons=["mask is empty on one side"]))
    assert "The image has a pose that is not to be trusted." in text and "Reasons for the verdict" in text
    _, text = write(tmp_path, page_image())
    assert "Pass The image is aligned, no doubt was raised." in text and "Reasons for the verdict" not in text


def test_an_unknown_verdict_is_for_review(tmp_path: Path) -> None:
    _, text = write(tmp_path, page_image(QC="splendid"))
    assert "Review" in text and "the sidecar's QC verdict 'splendid' is not known" in text


def test_the_most_urgent_stand_first(tmp_path: Path) -> None:
    stopped = Failure("sub-01/anat/c_T2w.nii.gz", "mask", "no mask")
    images = (page_image("sub-01/anat/a_T2w.nii.gz"), page_image("sub-01/anat/b_T2w.nii.gz", QC="fail"))
    reader, text = write(tmp_path, *images, failures=(stopped,))
    targets = [a["href"] for tag, a in reader.tags if tag == "a" and a["href"].startswith("#")]
    assert targets == ["#failure-1", "#image-2", "#image-1"]
    assert {t[1:] for t in targets} <= {a["id"] for _, a in reader.tags if "id" in a}
    assert "Failed: 1 of 3 images It has no pose: processing stopped. In all: 1 failed, 1 fail, 1 pass." in text


def test_poses_of_one_image_at_two_atlases_have_their_own_headings_and_ratings(tmp_path: Path) -> None:
    reader, text = write(tmp_path, page_image(), page_image(Atlas="Serag", Cohort="29", NamedBySpace=True))
    rated = {attributes["data-image"] for tag, attributes in reader.tags if tag == "form"}
    assert rated == {"sub-01_rec-svr_T2w", "sub-01_rec-svr_T2w at Serag+29"}
    assert "sub-01_rec-svr_T2w.nii.gz at CRL, cohort 29" in text and "sub-01_rec-svr_T2w.nii.gz at Serag, cohort 29" in text
    assert "T2w.nii.gz at CRL" not in write(tmp_path, page_image())[1]


def test_confidence_that_was_not_estimated_is_called_so(tmp_path: Path) -> None:
    _, text = write(tmp_path, page_image(Confidence=None))
    assert "Confidence not estimated" in text and "None" not in text and "97 %" not in text


def test_failures_are_shown_whole(tmp_path: Path) -> None:
    lines = ["MaskError: x.nii.gz: no usable brain mask", *["deep line <module>"] * 40, "the very last line"]
    failure = Failure("sub-01/anat/x.nii.gz", "brain mask", "\n".join(lines), "sub-01/log/run 1/crash#2.txt")
    reader, text = write(tmp_path, failures=(failure,))
    assert "stopped in brain mask: MaskError: x.nii.gz: no usable brain mask" in text
    assert text.count("deep line <module>") == 40 and "the very last line" in text
    assert "sub-01/log/run%201/crash%232.txt" in [a["href"] for tag, a in reader.tags if tag == "a"]


def test_nothing_written_by_others_becomes_markup(tmp_path: Path) -> None:
    image = PageImage(
        f"sub-01/{EVIL}.nii.gz",
        sidecar(
            Sources=[EVIL], AgeSource=EVIL, Atlas=EVIL, Cohort=EVIL, Contrast=EVIL, Mask=EVIL, QC=EVIL,
            QCReasons=[EVIL], Similarity={EVIL: EVIL}, Weights={EVIL: EVIL},
            SoftwareVersions={EVIL: EVIL}, Seconds={EVIL: 1.0},
        ),
        EVIL,
        [f"javascript:{EVIL}", *OUTPUTS],
        [EVIL],
        {"TemplateContrast": EVIL, "TemplateChoice": EVIL},
    )  # fmt: skip
    failure = Failure(EVIL, EVIL, EVIL, EVIL)
    reader, text = write(tmp_path, image, failures=(failure,), sessions=[(EVIL, EVIL)], command=EVIL, methods=EVIL)
    assert text.count(EVIL) > 15
    assert not [a for tag, a in reader.tags if tag == "img"]
    assert len([a for tag, a in reader.tags if tag == "script"]) == 2
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not attributes.get("href", "").startswith("javascript:")


def test_names_that_are_no_text_can_be_written(tmp_path: Path) -> None:
    name = "sub-01/anat/" + b"caf\xe9.nii.gz".decode("utf-8", "surrogateescape")
    _, text = write(tmp_path, PageImage(name, sidecar(), NO_PICTURE, [name]))
    assert "caf\\udce9.nii.gz" in text


def test_a_sidecar_without_a_pose_says_so(tmp_path: Path) -> None:
    reader, text = write(tmp_path, PageImage("a.nii.gz", {"QC": "pass"}, NO_PICTURE))
    assert "not recorded" in text and "None" not in text
    assert "svg" not in {tag for tag, _ in reader.tags} and "antsApplyTransforms" not in text
    with pytest.raises(TransformError, match="not a rotation"):
        write(tmp_path, page_image(RotationMatrix=(2 * np.eye(3)).tolist()))


def test_scripts_run_by_their_digest_only(tmp_path: Path) -> None:
    reader, _ = write(tmp_path, page_image())
    (policy,) = [a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy
    assert "script-src 'unsafe" not in policy and "connect-src" not in policy
    kinds = [a.get("type", "") for tag, a in reader.tags if tag == "script"]
    assert kinds == ["", "application/json"]


def test_data_cannot_end_their_script_element() -> None:
    block = json_block({"a": "</script><script>alert(1)</script>"})
    assert "<" not in block and json.loads(block) == {"a": "</script><script>alert(1)</script>"}


def test_the_images_of_one_template_share_its_pictures(tmp_path: Path, views: Views) -> None:
    images = [PageImage(f"sub-01/anat/run-{i}_T2w.nii.gz", sidecar(), views, OUTPUTS) for i in range(2)]
    block = views_of(tmp_path, images)
    assert list(block["images"]) == ["image-1", "image-2"]
    assert len(block["sheets"]) == len({s for layer in views.layers.values() for s in layer}) == 9
    assert all(sheet.startswith("data:image/webp;base64,") for sheet in block["sheets"])


@pytest.mark.slow
def test_twelve_images_stay_under_three_megabytes(tmp_path: Path, views: Views) -> None:
    rng = np.random.default_rng(0)
    images = []
    for number in range(12):
        noisy = {name: tuple(noise_like(sheet, rng) for sheet in layer) for name, layer in views.layers.items()}
        images.append(PageImage(f"sub-01/anat/run-{number}_T2w.nii.gz", sidecar(), replace(views, layers=noisy), OUTPUTS))
    assert sum(len(s) for i in images for layer in i.views.layers.values() for s in layer) > 3_000_000
    block = views_of(tmp_path, images)
    path = tmp_path / "p.html"
    assert 500_000 < path.stat().st_size < 3_000_000
    assert "fewer slices or pixels" in path.read_text(encoding="utf-8")
    assert all(len(plane["at"]) >= 3 for image in block["images"].values() for plane in image["planes"])


def noise_like(sheet: bytes, rng: np.random.Generator) -> bytes:
    """A sheet of the same size that hardly can be compressed."""
    picture = Image.open(io.BytesIO(sheet))
    noise = rng.integers(0, 256, (picture.height // 2 + 1, picture.width // 2 + 1), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(noise, np.ones((2, 2), np.uint8))[: picture.height, : picture.width]).save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def views_of(tmp_path: Path, images: list[PageImage]) -> dict:
    path = write_subject_page(tmp_path / "p.html", subject="01", session=None, images=images, version="1")
    block = re.search(r'<script type="application/json" id="views">(.*?)</script>', path.read_text(encoding="utf-8"))
    return json.loads(block[1])


def test_an_image_without_a_picture_says_why_and_shows_the_rest(tmp_path: Path) -> None:
    _, text = write(tmp_path, page_image())
    assert "No picture of this image. It could not be made: the template is gone" in text and "28.7 weeks" in text


def test_the_contrasts_are_named_if_they_differ(tmp_path: Path) -> None:
    image = PageImage("sub-01/anat/sub-01_T1w.nii.gz", sidecar(Contrast="T1w"), NO_PICTURE, [], [], {"TemplateContrast": "T2w"})
    assert "T1w image on a T2w template" in write(tmp_path, image)[1]
    assert "image on a T2w" not in write(tmp_path, page_image())[1]


def test_other_sessions_are_linked(tmp_path: Path) -> None:
    reader, text = write(tmp_path, page_image(), sessions=[("ses-2", "sub-01_ses-2.html")])
    assert "Session 1 ; also of this subject: ses-2" in text
    assert "sub-01_ses-2.html" in [a.get("href") for tag, a in reader.tags if tag == "a"]


def test_reasons_stand_in_the_banner_first_ones_only(tmp_path: Path) -> None:
    reasons = [f"reason {i}" for i in range(9)]
    _, text = write(tmp_path, page_image(QC="review", QCReasons=reasons))
    assert text.index("sub-01_rec-svr_T2w.nii.gz: reason 0") < text.index("most urgent first")
    assert "sub-01_rec-svr_T2w.nii.gz: reason 5" in text and "sub-01_rec-svr_T2w.nii.gz: reason 6" not in text
    assert "and 3 more, below" in text


def test_methods_are_set_as_text_with_its_references() -> None:
    html = prose("# Methods\n\nBy *posepipe*, 2 * 3 * 4.\n\n# References\n\n- <One> *Nature*\n- Two")
    assert html.count("<h3>") == 2 and "<em>posepipe</em>" in html and "<li>&lt;One&gt; <em>Nature</em></li>" in html
    assert prose("") == ""


def test_a_pose_that_changes_changes_what_a_rating_belongs_to(tmp_path: Path) -> None:
    def pose_of_form(image: PageImage) -> str:
        (form,) = [a for tag, a in write(tmp_path, image)[0].tags if tag == "form"]
        assert (form["data-subject"], form["data-session"], form["data-image"]) == ("01", "1", "sub-01_rec-svr_T2w")
        return form["data-pose"]

    first = pose_of_form(page_image())
    assert pose_of_form(page_image(QC="fail", Seconds={})) == first
    assert pose_of_form(page_image(Cohort="30")) != first
    assert pose_of_form(page_image(TranslationMM=[0, 0, 1])) != first


def test_writing_replaces_whole_pages_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "sub-01.html"
    write_page(path, "old")
    with pytest.raises(TransformError):
        write_subject_page(
            path, subject="01", session=None, version="1", images=[page_image(RotationMatrix=[[1, 2], [3]])]
        )
    assert path.read_text() == "old"
    write_page(path, "new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["sub-01.html"]


def test_a_page_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image or failure"):
        write(tmp_path)


def test_pictures_and_wrong_kinds() -> None:
    assert data_uri(b"RIFF....WEBP").startswith("data:image/webp;base64,")
    assert data_uri(b"\x89PNG\r\n\x1a\n").startswith("data:image/png;")
    with pytest.raises(ImageError, match="not a JPEG, PNG or WebP"):
        data_uri(b"<svg onload='alert(1)'/>")


def test_the_ants_line_survives_odd_names() -> None:
    line = apply_command("sub-01/anat/it's $(rm) me.nii.gz", OUTPUTS)
    assert line.startswith("antsApplyTransforms -d 3 -i \"$BIDS_DIR\"/'sub-01/anat/it'\"'\"'s $(rm) me.nii.gz'")
    assert f"-r {OUTPUTS[3]}" in line and f"-t {OUTPUTS[0]}" in line
    assert "-i /abs/a.nii.gz" in apply_command("/abs/a.nii.gz", OUTPUTS)
    assert apply_command("a.nii.gz", OUTPUTS[4:]) == ""


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({"MI": {"before": 0.1, "after": 0.2}}, [("MI", "0.1", "0.2")]),
        ({"before": {"MI": 0.1}, "after": {"MI": 0.2}}, [("MI", "0.1", "0.2")]),
        ({"before": 0.1, "after": 0.2}, [("similarity", "0.1", "0.2")]),
        ({"MI_before": 0.1, "MI_after": 0.2, "NCC": 0.5}, [("MI", "0.1", "0.2"), ("NCC", "", "0.5")]),
        (None, []),
    ],
)
def test_similarities_in_any_order(given: dict | None, rows: list[tuple[str, str, str]]) -> None:
    assert similarity_rows({"Similarity": given}) == rows


def test_why_a_cohort_was_chosen() -> None:
    assert dict(image_rows({"Age": 29, "Cohort": 29}))["Chosen for"] == "an image of 29 weeks: the cohort's own age"
    younger = dict(image_rows({"Age": 39.5, "Cohort": "38"}))["Chosen for"]
    assert younger == "an image of 39.5 weeks: the cohort is 1.5 weeks younger"
    assert dict(image_rows({"Age": 41, "Cohort": "00"}))["Chosen for"] == "an image of 41 weeks"
    assert dict(image_rows({}))["Chosen for"] == "not recorded"


def test_seconds_are_summed_once() -> None:
    assert seconds_rows({"Seconds": {"a": 1, "b": 2}})[-1] == ("total", "3.00")
    assert seconds_rows({"Seconds": {"a": 1, "Total": 2}})[-1] == ("Total", "2.00")
