"""Rating files: what is read, what is rejected, and the messages."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from posepipe.errors import RatingError
from posepipe.reports.ratings import ARTEFACTS, Rating, read_ratings


def rating(**changes):
    return {
        "subject": "01", "session": "1", "image": "sub-01_ses-1_T2w", "decision": "adjust", "quality": 3,
        "artefacts": ["mask", "motion"], "comment": "frontal lobe cut\noff", "rated": "2026-11-23T15:00:00.250Z",
    } | changes  # fmt: skip


def content(*ratings, **changes):
    return {"posepipe_ratings": 1, "rater": "Ada", "exported": "2026-11-23T15:01:00Z", "ratings": list(ratings)} | changes


@pytest.fixture
def write(tmp_path):
    def put(obj) -> object:
        path = tmp_path / "ratings.json"
        path.write_text(obj if isinstance(obj, str) else json.dumps(obj), encoding="utf-8")
        return path

    return put


def test_every_field_is_read(write):
    found = read_ratings(write(content(rating(), rating(image="b", session=None, quality=None, artefacts=[], comment=""))))
    assert found[0] == Rating(
        rater="Ada", subject="01", session="1", image="sub-01_ses-1_T2w", decision="adjust", quality=3,
        artefacts=("mask", "motion"), comment="frontal lobe cut\noff", rated="2026-11-23T15:00:00.250Z",
    )  # fmt: skip
    assert (found[1].session, found[1].quality, found[1].artefacts, found[1].comment) == (None, None, (), "")


def test_a_file_without_ratings_is_no_error(write):
    assert read_ratings(write(content())) == []


def test_all_artefacts_are_known(write):
    (found,) = read_ratings(write(content(rating(artefacts=list(ARTEFACTS)))))
    assert found.artefacts == ("wrong-orientation", "left-right", "mask", "atlas-age", "motion")


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2026-11-23T15:00:00Z", 15), ("2026-11-23T15:00:00", 15), ("2026-11-23T15:00:00+02:00", 13)],
)
def test_times_compare_whatever_zone_they_are_written_in(write, text, hour):
    (found,) = read_ratings(write(content(rating(rated=text))))
    assert found.rated_at == datetime(2026, 11, 23, hour, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "there is no key 'posepipe_ratings'"),
        ({"ratings": []}, "there is no key 'posepipe_ratings'"),
        (content(posepipe_ratings=2), "ratings of version 2, but this posepipe reads version 1"),
        (content(posepipe_ratings=True), "ratings of version True"),
        (content(rater=" "), "'rater' is empty: give the rater a name"),
        (content(rater=None), "'rater' is None, not text"),
        (content(exported="yesterday"), "'exported' is 'yesterday', not an ISO time"),
        (content(ratings={}), "'ratings' is not a list"),
        (content("x"), "rating 1 is not an object"),
        (content(rating(), rating()), "rating 2: 'sub-01_ses-1_T2w' is rated twice"),
        (content({k: v for k, v in rating().items() if k != "quality"}), "rating 1 lacks 'quality'"),
        (content(rating(artifacts=[])), "rating 1 has unknown 'artifacts'"),
        (content(rating(subject="")), "'subject' is empty"),
        (content(rating(image=3)), "'image' is 3, not text"),
        (content(rating(session=1)), "'session' is 1, not text"),
        (content(rating(decision="maybe")), "'decision' is 'maybe', not one of accept, adjust, reject"),
        (content(rating(decision=[])), r"'decision' is \[\], not one of"),
        (content(rating(quality=5)), "'quality' is 5, not one of 1, 2, 3, 4"),
        (content(rating(quality=True)), "'quality' is True, not one of"),
        (content(rating(quality=2.0)), "'quality' is 2.0, not one of"),
        (content(rating(artefacts="mask")), "'artefacts' is 'mask', not a list"),
        (content(rating(artefacts=["mask", "mask"])), "not a list of different words"),
        (content(rating(artefacts=["blur"])), "'artefacts' is 'blur', not one of wrong-orientation"),
        (content(rating(comment=None)), "'comment' is None, not text"),
        (content(rating(rated="12:00")), "'rated' is '12:00', not an ISO time"),
    ],
)  # fmt: skip
def test_what_no_page_exports_is_refused_with_the_file_and_the_reason(write, obj, says):
    path = write(obj)
    with pytest.raises(RatingError, match=says) as raised:
        read_ratings(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "export the ratings again" in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RatingError, match=r"gone\.json: cannot be read"):
        read_ratings(tmp_path / "gone.json")
