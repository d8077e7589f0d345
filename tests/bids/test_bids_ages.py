from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posepipe.bids import Age, AgeReader, find_images, parse_age
from posepipe.errors import AgeError

IMAGE = "sub-01/anat/sub-01_T2w.nii.gz"
SESSION_IMAGE = "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz"


@pytest.fixture
def age_of(make_dataset, image_of):
    """Age of an image in a dataset with these tables; a dict becomes JSON."""

    def read(texts, image=IMAGE, **options):
        texts = {name: json.dumps(text) if isinstance(text, dict) else text for name, text in texts.items()}
        root = make_dataset(texts=texts)
        return AgeReader(root, **options).age_of(image_of(root, image))

    return read


def participants(column, value, units=None):
    texts = {"participants.tsv": f"participant_id\t{column}\nsub-01\t{value}\n"}
    return texts | ({"participants.json": {column: {"Units": units}}} if units else {})


@pytest.mark.parametrize("column", ["ga_weeks", "pma_weeks", "gestational_age_weeks", "PMA_weeks"])
def test_columns_that_carry_their_unit(age_of, column):
    age = age_of(participants(column, "29.5"))
    assert (age.weeks, age.source, age.warnings) == (29.5, f"participants.tsv:{column}", ())


@pytest.mark.parametrize("column", ["gestational_age", "ga", "pma", "postmenstrual_age", "scan_age"])
def test_weeks_are_assumed_for_ages_by_these_names_with_a_warning(age_of, column):
    age = age_of(participants(column, "29"))
    assert age.weeks == 29
    assert "no Units in participants.json: read as weeks" in age.warnings[0]
    assert age_of(participants(column, "29", "weeks")).warnings == ()


@pytest.mark.parametrize(
    ("units", "value", "weeks"),
    [
        ("Weeks", "29", 29),
        ("wk", "29", 29),
        ("gestational weeks", "29", 29),
        ("days", "203", 29),
        ("Day", "206", 206 / 7),
    ],
)
def test_units_of_the_sidecar(age_of, units, value, weeks):
    assert age_of(participants("age", value, units)).weeks == pytest.approx(weeks)


def test_bare_age_without_units_is_an_error_that_says_what_to_add(age_of):
    with pytest.raises(
        AgeError, match=r'participants.tsv:age has no unit: add \{"age": \{"Units": "weeks"\}\} to .*json.*--age'
    ):
        age_of(participants("age", "29"))


@pytest.mark.parametrize("units", ["fortnights", "weeks or days"])
def test_unknown_units_are_an_error(age_of, units):
    with pytest.raises(AgeError, match=f"'{units}' is not one of"):
        age_of(participants("age", "29", units))


def test_name_and_units_that_disagree_are_an_error(age_of):
    with pytest.raises(AgeError, match="name says weeks, but its Units say 'days'"):
        age_of(participants("ga_weeks", "29", "days"))


@pytest.mark.parametrize(
    ("units", "value", "since"), [("months", "3", 3 * 365.25 / 84), ("years", "0.5", 365.25 / 14), ("days", "14", 2)]
)
def test_age_since_birth_needs_gestational_age_at_birth(age_of, units, value, since):
    with pytest.raises(AgeError, match=r"counts from birth.*birth_age"):
        age_of(participants("age", value, units))
    texts = {
        "participants.tsv": f"participant_id\tage\tbirth_age\nsub-01\t{value}\t38+0\n",
        "participants.json": {"age": {"Units": units}},
    }
    age = age_of(texts)
    assert age.weeks == pytest.approx(38 + since)
    assert age.source == "participants.tsv:birth_age + participants.tsv:age"
    assert any("counts from birth" in warning for warning in age.warnings)


def test_birth_age_of_participants_serves_sessions(age_of):
    texts = {
        "participants.tsv": "participant_id\tbirth_age\n01\t40\n",
        "sub-01/sub-01_sessions.tsv": "session_id\tage\nses-1\t1\n",
        "sessions.json": {"age": {"Units": "months"}},
    }
    assert age_of(texts, SESSION_IMAGE).weeks == pytest.approx(40 + 365.25 / 84)


def test_months_of_gestation_are_not_converted(age_of):
    with pytest.raises(AgeError, match="is in months; an age by this name is read in weeks or days"):
        age_of(participants("gestational_age", "7", "months"))


def test_order_of_tables(age_of):
    texts = {"participants.tsv": "participant_id\tga_weeks\nsub-01\t21\n"}
    assert age_of(texts, SESSION_IMAGE).source == "participants.tsv:ga_weeks"
    texts["sub-01/sub-01_sessions.tsv"] = "session_id\tga_weeks\nses-1\t22\nses-2\t32\n"
    age = age_of(texts, SESSION_IMAGE)
    assert (age.weeks, age.source) == (22, "sub-01/sub-01_sessions.tsv:ga_weeks")
    texts["sub-01/ses-1/sub-01_ses-1_scans.tsv"] = "filename\tga_weeks\nanat/sub-01_ses-1_T2w.nii.gz\t23\n"
    age = age_of(texts, SESSION_IMAGE)
    assert (age.weeks, age.source) == (23, "sub-01/ses-1/sub-01_ses-1_scans.tsv:ga_weeks")
    age = age_of(texts, SESSION_IMAGE, age=24)
    assert (age.weeks, age.source) == (24, "--age")


@pytest.mark.parametrize("empty", ["n/a", "", "unknown"])
def test_no_value_falls_through_to_the_next_table(age_of, empty):
    texts = {
        "participants.tsv": "participant_id\tga_weeks\nsub-01\t21\n",
        "sub-01/sub-01_sessions.tsv": f"session_id\tga_weeks\tx\n1\t{empty}\ty\n",
    }
    age = age_of(texts, SESSION_IMAGE)
    assert age.source == "participants.tsv:ga_weeks"
    assert bool(age.warnings) == (empty == "unknown")


def test_the_error_says_what_each_table_lacks(age_of):
    texts = {"sub-01/sub-01_sessions.tsv": "session_id\tga_weeks\n1\tunknown\n"}
    with pytest.raises(AgeError, match=r"sessions.tsv:ga_weeks is 'unknown', neither .*; no participants.tsv"):
        age_of(texts, SESSION_IMAGE)
    texts["participants.tsv"] = "participant_id\tsex\nsub-01\tF\n"
    with pytest.raises(AgeError, match=r"participants.tsv has no age column \(columns: participant_id, sex\)"):
        age_of(texts, SESSION_IMAGE)
    with pytest.raises(AgeError, match=r"participants.tsv has no row for it"):
        age_of({"participants.tsv": "participant_id\tga_weeks\nsub-02\t29\n"})


def test_order_of_columns_and_a_note_when_they_differ(age_of):
    texts = {"participants.tsv": "participant_id\tage\tpma_weeks\tga_weeks\nsub-01\tx\t41\t30\n"}
    age = age_of(texts)
    assert age.source == "participants.tsv:ga_weeks"
    assert "pma_weeks says 41.00 weeks" in age.warnings[0]
    age = age_of(texts, column="pma_weeks")
    assert (age.weeks, age.warnings) == (41, ())


def test_age_column_is_the_only_one_read(age_of):
    texts = {"participants.tsv": "participant_id\tga_weeks\tmri_days\nsub-01\t30\t210\n"}
    assert age_of(texts, column="mri_days").weeks == 30
    assert age_of(texts, column="mri_days").source == "participants.tsv:mri_days"
    with pytest.raises(AgeError, match=r"no column 'week' \(columns: participant_id, ga_weeks, mri_days\)"):
        age_of(texts, column="week")


@pytest.mark.parametrize("written", ["01", "sub-01"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_labels_line_ends_and_bom(age_of, written, newline, bom):
    text = bom + newline.join(["participant_id\tga_weeks", f"{written}\t29", "02\t30", ""])
    assert age_of({"participants.tsv": text}).weeks == 29


def test_implausible_ages_are_errors(age_of):
    for value in ("203", "3", "-29", "inf"):
        with pytest.raises(AgeError, match=r"is \S+ weeks, which is no age|neither a number"):
            age_of(participants("ga_weeks", value))
    for weeks in (9.9, 121, float("nan")):
        with pytest.raises(AgeError, match="--age is"):
            AgeReader("anywhere", age=weeks)


def test_rows_that_disagree_are_an_error_and_equal_ones_are_not(age_of):
    head = "participant_id\tga_weeks\n"
    assert age_of({"participants.tsv": head + "sub-01\t29+3\n01\t29w3d\nsub-01\tn/a\n"}).weeks == pytest.approx(206 / 7)
    with pytest.raises(AgeError, match=r"2 rows for .*sub-01_T2w.nii.gz disagree in 'ga_weeks' \(29 and 30\)"):
        age_of({"participants.tsv": head + "sub-01\t29\n01\t30\n"})


def test_one_row_per_participant_and_session(age_of):
    texts = {"participants.tsv": "participant_id\tsession_id\tga_weeks\n01\tses-1\t29\n01\t2\t33\n"}
    assert age_of(texts, SESSION_IMAGE).weeks == 29
    assert age_of(texts, SESSION_IMAGE.replace("ses-1", "ses-2")).weeks == 33


def test_broken_tables_name_the_file(age_of):
    with pytest.raises(AgeError, match=r"participants.tsv: no column 'participant_id'.*separated by tabs"):
        age_of({"participants.tsv": "participant_id,ga_weeks\nsub-01,29\n"})
    with pytest.raises(AgeError, match=r"participants.json: cannot be read as JSON"):
        age_of(participants("ga_weeks", "29") | {"participants.json": "{"})


def test_each_table_is_read_once(make_dataset, image_of):
    root = make_dataset(texts={"participants.tsv": "participant_id\tga_weeks\n01\t29\n02\t30\n"})
    reader = AgeReader(root)
    assert reader.age_of(image_of(root, IMAGE)).weeks == 29
    (root / "participants.tsv").unlink()
    assert reader.age_of(image_of(root, IMAGE.replace("01", "02"))).weeks == 30


@given(
    st.integers(10, 60),
    st.integers(0, 6),
    st.sampled_from(["{}+{}", "{}w{}d", "{} + {}", "{}W{}D", "{}w+{}d", "{} weeks {} days"]),
)
def test_weeks_and_days(weeks, days, pattern):
    parsed = parse_age(pattern.format(weeks, days))
    assert parsed is not None
    value, says_weeks = parsed
    assert says_weeks
    assert round(value * 7) == weeks * 7 + days


@given(st.floats(0, 200).map(lambda x: round(x, 3)))
def test_plain_numbers(number):
    assert parse_age(f" {number} ") == (number, False)


@pytest.mark.parametrize("text", ["29+", "29+7", "29w9d", "w3", "29,5", "twenty", "29+3+1", "1e", "", "29-3", "29 3"])
def test_what_is_no_age(text):
    assert parse_age(text) is None


@pytest.mark.data
def test_real_ages(data_dir):
    reader = AgeReader(data_dir / "ds-neonates")
    ages = [reader.age_of(image) for image in find_images(data_dir / "ds-neonates")]
    assert ages[0].weeks == ages[1].weeks == 41
    assert {age.source for age in ages} == {"participants.tsv:pma_weeks"}
    assert all(37 <= age.weeks <= 44 for age in ages)
    stack = find_images(data_dir / "ds-stacks")[0]
    with pytest.raises(AgeError, match=r"participants.tsv:age is n/a"):
        AgeReader(data_dir / "ds-stacks").age_of(stack)
    (fetal,) = find_images(data_dir / "ds-fetal")
    with pytest.raises(AgeError, match=r"no participants.tsv. Give --age WEEKS"):
        AgeReader(data_dir / "ds-fetal").age_of(fetal)
    assert AgeReader(data_dir / "ds-fetal", age=29).age_of(fetal).weeks == 29


def test_estimate_is_asked_only_where_no_table_has_an_age(age_of):
    asked = []

    def estimate(image):
        asked.append(image.path.name)
        return Age(31.4, "estimated", ("guessed",), 1.1)

    known = age_of(participants("ga_weeks", "29.5"), estimate=estimate)
    assert (known.weeks, known.source, known.error, asked) == (29.5, "participants.tsv:ga_weeks", None, [])
    assert age_of(participants("ga_weeks", "29.5"), estimate=estimate, age=30).source == "--age"
    found = age_of(participants("ga_weeks", "n/a"), estimate=estimate)
    assert found == Age(31.4, "estimated", ("guessed",), 1.1) and asked == ["sub-01_T2w.nii.gz"]
    assert age_of({}, estimate=estimate).source == "estimated"


def test_an_unusable_age_is_reported_beside_the_estimate(age_of):
    found = age_of(participants("age", "29"), estimate=lambda _: Age(31.4, "estimated", ("guessed",), 1.1))
    assert found.weeks == 31.4 and len(found.warnings) == 2
    assert "has no unit" in found.warnings[0] and "estimated instead" in found.warnings[0]


def test_an_impossible_age_is_no_reason_to_guess(age_of):
    with pytest.raises(AgeError, match="no age of a fetus"):
        age_of(participants("ga_weeks", "400"), estimate=lambda _: Age(31.4, "estimated"))


def test_message_names_the_way_out(age_of):
    with pytest.raises(AgeError, match=r"no usable age: .*--age WEEKS, .*--age estimate"):
        age_of({})


@pytest.mark.parametrize(
    "text",
    [
        "participant_id,ses,ga\n01,1,23\n02,1,30\n", "participant_id;session_id;ga\nsub-01;ses-1;23\n", "participant_id\tga\n01\t23\n",
        'participant_id,note,ga\n01,"quiet, then not",23\n', "participant_id,session,ga\n01,2,31\n01,01,23\n",
    ],
)  # fmt: skip
def test_a_csv_of_participants_is_read_where_there_is_no_tsv(age_of, text):
    age = age_of({"participants.csv": text}, SESSION_IMAGE)
    assert (age.weeks, age.source) == (23, "participants.csv:ga") and "read as weeks" in age.warnings[0]
    both = age_of({"participants.csv": text, **participants("ga_weeks", "29.5")}, SESSION_IMAGE)
    assert (both.weeks, both.source) == (29.5, "participants.tsv:ga_weeks")


def test_a_csv_that_holds_no_age_of_the_image_is_told(age_of):
    for text, says in (
        ("subject,ga\n01,23\n", "participants.csv: no column 'participant_id' in its first line (subject, ga); is it separated by commas"),
        ("participant_id,ga\n02,23\n", "participants.csv has no row for it"),
        ("participant_id,ses,ga\n01,2,23\n", "participants.csv has no row for it"),
        ("participant_id,weight\n01,3\n", "participants.csv has no age column (columns: participant_id, weight)"),
    ):
        with pytest.raises(AgeError) as told:
            age_of({"participants.csv": text}, SESSION_IMAGE)
        assert says in str(told.value) and "Give --age WEEKS" in str(told.value)
        guess = age_of({"participants.csv": text}, SESSION_IMAGE, estimate=lambda image: Age(30.0, "estimated", error=1.0))
        assert guess.source == "estimated"


def test_the_session_of_a_tsv_is_named_as_its_folder(age_of):
    texts = {"participants.tsv": "participant_id\tsession_id\tga_weeks\n01\t01\t23\n"}
    with pytest.raises(AgeError, match=r"participants.tsv has no row for it"):
        age_of(texts, SESSION_IMAGE)


@pytest.mark.parametrize("name", ["participants.tsv", "participants.csv"])
def test_one_row_for_two_sessions_is_a_doubt(make_dataset, image_of, name):
    second = SESSION_IMAGE.replace("ses-1", "ses-2")
    root = make_dataset(SESSION_IMAGE, second, texts={name: "participant_id\tga_weeks\n01\t23\n"})
    (doubt,) = AgeReader(root).age_of(image_of(root, SESSION_IMAGE)).doubts
    assert f"the one age of sub-01 in {name} is used for all its sessions (1, 2)" in doubt
