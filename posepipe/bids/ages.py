"""The age of the brain in an image: gestational weeks, or postmenstrual weeks after birth, and its source."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import AgeError
from .image import InputImage
from .links import Folders
from .tables import Row, Table, read_table, shortened

logger = logging.getLogger(__name__)

# the first of these with a value is used; the names of all but the last define the origin of the age
COLUMNS = (
    "gestational_age",
    "gestational_age_weeks",
    "gestational_weeks",
    "ga_weeks",
    "ga",
    "ga_at_scan",
    "pma_weeks",
    "postmenstrual_age",
    "postmenstrual_age_weeks",
    "postmenstrual_weeks",
    "pma",
    "pma_at_scan",
    "scan_age",
    "scan_age_weeks",
    "age",
)
BIRTH_COLUMNS = (
    "birth_age",
    "gestational_age_at_birth",
    "ga_birth_weeks",
    "ga_at_birth",
    "ga_birth",
    "birth_ga",
)
PLAUSIBLE_WEEKS = (10.0, 120.0)
"""Ages, weeks, that can be meant: outside of them a number is an error in a table (days, months, a date)."""

_NO_VALUE = {"", "n/a", "na", "nan", "none"}
_FROM_CONCEPTION = set(COLUMNS) - {"age"} | set(BIRTH_COLUMNS)
_DAYS_PER = {"days": 1.0, "weeks": 7.0, "months": 365.25 / 12, "years": 365.25}
_UNIT_WORDS = {
    "d": "days", "day": "days", "days": "days",
    "w": "weeks", "wk": "weeks", "wks": "weeks", "week": "weeks", "weeks": "weeks",
    "mo": "months", "month": "months", "months": "months",
    "y": "years", "yr": "years", "yrs": "years", "year": "years", "years": "years",
}  # fmt: skip
_UNIT_IN_NAME = re.compile(r"(?:^|_)(days?|weeks?|wks?|months?|years?)(?:_|$)")
_WEEKS_AND_DAYS = re.compile(r"(\d{1,3})\s*(?:\+|w(?:eeks?|ks?)?\s*\+?)\s*(?:([0-6])\s*d?(?:ays?)?)?", re.IGNORECASE)
_LONGEST = 40
"""Maximum length of a text that can be an age; the longest in words has about twenty characters. It also bounds the time of the
patterns."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Age:
    """An age in ``weeks`` since the last menstrual period, its source (file and column, ``--age``, or ``estimated``), and warnings.

    ``error`` is the standard error (weeks) of an estimated age; None for a known one. ``doubts`` are reasons why it may not be the age of
    this image.
    """

    weeks: float
    source: str
    warnings: tuple[str, ...] = ()
    error: float | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _NoAge:
    """Reason why a table or a cell gives no age; ``notable`` if it has a value that was ignored."""

    reason: str
    notable: bool = False


def parse_age(text: str) -> tuple[float, bool] | None:
    """Parse a number, or weeks and days in clinical notation: the value, and whether the notation implies weeks.

    None for any other text.

    >>> parse_age("29.5"), parse_age("29w"), parse_age("28+7")
    ((29.5, False), (29.0, True), None)
    >>> weeks, _ = parse_age("29+3"); round(weeks * 7)
    206
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    if _NUMBER.fullmatch(text):
        return float(text), False
    found = _WEEKS_AND_DAYS.fullmatch(text)
    if found is None or (found[2] is None and "+" in text):
        return None
    return int(found[1]) + int(found[2] or 0) / 7, True


class AgeReader:
    """Reads the age of each image of one dataset. Each table is read once.

    Args:
        bids_dir: the dataset.
        age: weeks for all images, as given with ``--age``.
        column: the one column to read, as given with ``--age-column``; default: the first of :data:`COLUMNS` with a
            value.
        estimate: function that estimates the age of an image without an age in the tables (``--age estimate``); None: such an image is
            an error.

    Raises :class:`~posepipe.errors.AgeError` for an implausible ``age``.
    """

    def __init__(
        self,
        bids_dir: str | Path,
        *,
        age: float | None = None,
        column: str | None = None,
        estimate: Callable[[InputImage], Age] | None = None,
    ) -> None:
        self._root = Path(bids_dir).absolute()
        self._age = None if age is None else _plausible(float(age), "--age")
        self._column = column
        self._estimate = estimate
        self._tables: dict[Path, Table | None] = {}
        self._warned: set[str] = set()
        self._folders = Folders()

    def age_of(self, image: InputImage) -> Age:
        """The age at the acquisition of ``image``: ``--age``, else its row in scans.tsv, sessions.tsv, participants.tsv, else an estimate.

        Raises :class:`~posepipe.errors.AgeError` if there is none and it is not to be estimated (the message says what each table lacks),
        for an age outside 10–120 weeks, and for two rows that disagree.
        """
        if self._age is not None:
            return Age(self._age, "--age")
        problems: list[_NoAge] = []
        for table, rows, where in self._rows_of(image):
            if table is None:
                problems.append(_NoAge(f"no {where}"))
            elif not rows:
                problems.append(_NoAge(f"{where} has no row for it"))
            elif found := self._from_rows(image, table, rows, where, problems):
                passed_over = [problem.reason for problem in problems if problem.notable]
                return Age(found.weeks, found.source, (*passed_over, *found.warnings), doubts=self._shared(image, table, where))
        if self._estimate is not None:
            found = self._estimate(image)
            unusable = (f"{problem.reason}; the age was estimated instead" for problem in problems if problem.notable)
            return replace(found, warnings=(*unusable, *found.warnings))
        reasons = "; ".join(problem.reason for problem in problems)
        msg = (
            f"{image.path}: no usable age: {reasons}. Give --age WEEKS, or a column such as ga_weeks or pma_weeks "
            f"in {self._root / 'participants.tsv'} (--age-column names another), or have it estimated from the image: --age estimate"
        )
        raise AgeError(msg)

    def _rows_of(self, image: InputImage) -> Iterator[tuple[Table | None, list[Row], str]]:
        """Table, rows of the image, and the table's name for messages; the most specific table first."""
        folder = image.path.parents[1]
        unit = f"sub-{image.subject}" + (f"_ses-{image.session}" if image.session else "")
        scans = self._read(folder / f"{unit}_scans.tsv", "filename", "scans.json")
        names = (image.path.relative_to(folder).as_posix(), image.relative.as_posix())
        yield scans, _rows(scans, *names), f"{unit}_scans.tsv" if scans is None else self._name(scans)
        if image.session:
            path = self._root / f"sub-{image.subject}" / f"sub-{image.subject}_sessions.tsv"
            sessions = self._read(path, "session_id", "sessions.json")
            yield sessions, _rows(sessions, image.session), path.relative_to(self._root).as_posix()
        yield self._participant(image)

    def _participant(self, image: InputImage) -> tuple[Table | None, list[Row], str]:
        table = self._read(self._root / "participants.tsv", "participant_id")
        where = "participants.tsv"
        if table is None:  # not BIDS, but what some pipelines have
            try:
                table = self._read(self._root / "participants.csv", "participant_id")
            except AgeError as error:  # it may be about something else, so that it must not keep an age from being estimated
                where = f"participants.tsv (and {error})"
            where = where if table is None else "participants.csv"
        rows = _rows(table, image.subject)
        if (column := _session_column(table)) and image.session:
            # one row per participant and session, as some longitudinal datasets write it
            rows = [row for row in rows if _same_session(row.get(column, ""), image.session, loosely=where.endswith(".csv"))]
        return table, rows, where

    def _shared(self, image: InputImage, table: Table, where: str) -> tuple[str, ...]:
        """A doubt if the age of one row is used for several sessions, which may be before and after birth."""
        if not image.session or where not in {"participants.tsv", "participants.csv"} or _session_column(table):
            return ()
        sessions = self._sessions_of(image.subject)
        if len(sessions) < 2:
            return ()
        unit = f"sub-{image.subject}"
        doubt = (
            f"the one age of {unit} in {where} is used for all its sessions ({', '.join(sessions)}), which may be at "
            f"different ages: give each its own in {unit}/{unit}_sessions.tsv"
        )
        if unit not in self._warned:
            self._warned.add(unit)
            logger.warning("%s", doubt)
        return (doubt,)

    def _sessions_of(self, subject: str) -> list[str]:
        """Labels of the sessions of a participant that have anatomical images."""
        folder = self._root / f"sub-{subject}"
        sessions = self._folders.folders(folder, "ses-")
        return [name.removeprefix("ses-") for name in sessions if "anat" in self._folders.folders(folder / name, "anat")]

    def _read(self, path: Path, key: str, inherited: str | None = None) -> Table | None:
        if path not in self._tables:
            self._tables[path] = read_table(path, key, *([self._root / inherited] if inherited else []))
        return self._tables[path]

    def _name(self, table: Table) -> str:
        return table.path.relative_to(self._root).as_posix()

    def _from_rows(
        self, image: InputImage, table: Table, rows: list[Row], where: str, problems: list[_NoAge]
    ) -> Age | None:
        """The first age in the row(s) of an image; reasons against the columns before it are added to ``problems``."""
        self._check_length(image, table, rows)
        names = (self._column,) if self._column else COLUMNS
        columns = [column for name in names for column in dict.fromkeys(table.columns) if column.lower() == name.lower()]
        if not columns:
            lacks = f"column {self._column!r}" if self._column else "age column"
            problems.append(_NoAge(f"{where} has no {lacks} (columns: {shortened(table.columns)})"))
        first: Age | None = None
        differing = []
        for column in columns:
            reading = self._one(image, table, rows, column)
            if first is None and isinstance(reading, _NoAge):
                problems.append(reading)
            elif first is None and isinstance(reading, Age):
                _plausible(reading.weeks, f"{table.path}: {column} of {image.relative}")
                first = reading
            elif isinstance(reading, Age) and first is not None and abs(reading.weeks - first.weeks) > 1:
                differing.append(f"{reading.source} says {reading.weeks:.2f} weeks")
        if first is None or not differing:
            return first
        note = f"{first.source} ({first.weeks:.2f} weeks) was used, but {', '.join(differing)}; --age-column chooses"
        return Age(first.weeks, first.source, (*first.warnings, note))

    def _check_length(self, image: InputImage, table: Table, rows: list[Row]) -> None:
        """Raise :class:`~posepipe.errors.AgeError` for a row with more cells than columns, in which the age is ambiguous."""
        for row in rows:
            if row.cells > len(table.columns):
                msg = (
                    f"{table.path}: line {row.line}, for {image.relative}, has {row.cells} cells for {len(table.columns)} columns; correct "
                    "it, or give --age WEEKS"
                )
                raise AgeError(msg)

    def _one(self, image: InputImage, table: Table, rows: list[Row], column: str) -> Age | _NoAge:
        """The age from all rows of the image in one column."""
        readings = [self._cell(image, table, row, column) for row in rows]
        ages = [reading for reading in readings if isinstance(reading, Age)]
        if len({round(age.weeks, 6) for age in ages}) > 1:
            values = " and ".join(sorted({row.get(column, "") for row in rows}))
            lines = {row.line for row in rows}
            what = f"{len(lines)} rows for {image.relative} disagree in" if len(lines) > 1 else f"{image.relative} has two columns"
            msg = (
                f"{table.path}: {what} {column!r} ({values}); "
                "keep one, use --age, or give each session its age in sessions.tsv"
            )
            raise AgeError(msg)
        return ages[0] if ages else readings[0]

    def _cell(self, image: InputImage, table: Table, row: Row, column: str) -> Age | _NoAge:
        where = f"{self._name(table)}:{column}"
        text = row.get(column, "")
        if text.lower() in _NO_VALUE:
            return _NoAge(f"{where} is {text or 'empty'}")
        parsed = parse_age(text)
        if parsed is None or not math.isfinite(parsed[0]):
            return _NoAge(f"{where} is {_quoted(text)}, neither a number nor weeks+days such as 29+3", notable=True)
        value, says_weeks = parsed
        unit, problem = _unit(table, column)
        if problem or (says_weeks and unit not in {None, "weeks"}):
            why = problem or f"{text!r} is weeks and days, but the unit is {unit}"
            return _NoAge(f"{where}: {why}", notable=True)
        named = column.lower() in _FROM_CONCEPTION
        sidecar = table.path.with_suffix(".json")
        if named and unit in {"months", "years"}:
            return _NoAge(f"{where} is in {unit}; an age by this name is read in weeks or days", notable=True)
        if unit is None and not says_weeks and not named:
            add = f'{{"{column}": {{"Units": "weeks"}}}}'
            why = f"has no unit: add {add} to {sidecar} if it counts weeks from the last menstrual period"
            return _NoAge(f"{where} {why}", notable=True)
        weeks = value * _DAYS_PER[unit or "weeks"] / 7
        if _counts_from_birth(column, unit, weeks):
            return self._since_birth(image, row, table, weeks, where)
        assumed = unit is None and not says_weeks
        warnings = (f"{where} has no Units in {sidecar.name}: read as weeks",) if assumed else ()
        if row.cells < len(table.columns):
            cells = f"{row.cells} cells for {len(table.columns)} columns"
            warnings = (*warnings, f"line {row.line} of {self._name(table)} has {cells}: see that {column} is right")
        return Age(weeks, where, warnings)

    def _since_birth(self, image: InputImage, row: Row, table: Table, weeks: float, where: str) -> Age | _NoAge:
        """Postmenstrual age = gestational age at birth + age since birth."""
        participants, rows, _ = self._participant(image)
        if participants is not None:
            self._check_length(image, participants, rows)
        places = [(table, row)] + [(participants, r) for r in rows if participants is not None]
        for place, candidate in places:
            by_lower = {column.lower(): column for column in candidate}
            for name in BIRTH_COLUMNS:
                if place is None or name not in by_lower:
                    continue
                birth = self._cell(image, place, candidate, by_lower[name])
                if isinstance(birth, Age):
                    note = f"{where} counts from birth: {weeks:.2f} weeks added to {birth.weeks:.2f} ({birth.source})"
                    return Age(birth.weeks + weeks, f"{birth.source} + {where}", (*birth.warnings, note))
        why = "counts from birth; that is no postmenstrual age without the gestational age at birth"
        return _NoAge(f"{where} {why} (a column such as {BIRTH_COLUMNS[0]} or {BIRTH_COLUMNS[2]})", notable=True)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _counts_from_birth(column: str, unit: str | None, weeks: float) -> bool:
    """Whether an age counts from birth: ages in months or years, and ages too small for a fetus, unless the column's name implies
    otherwise."""
    name = column.lower()
    if name in _FROM_CONCEPTION:
        return False
    return (
        unit in {"months", "years"}
        or name.startswith(("postnatal", "chronological"))
        or 0 <= weeks < PLAUSIBLE_WEEKS[0]
    )


def _rows(table: Table | None, *keys: str) -> list[Row]:
    if table is None:
        return []
    return next((table.rows[key] for key in keys if key in table.rows), [])


def _session_column(table: Table | None) -> str | None:
    """The column of a table of participants that names the session of a row, if it has one; a CSV may name it otherwise."""
    if table is None:
        return None
    names = ("session_id", "ses", "session") if table.path.suffix == ".csv" else ("session_id",)
    return next((name for name in names if name in table.columns), None)


def _same_session(written: str, session: str, *, loosely: bool) -> bool:
    """Whether a cell names the session; ``loosely``: also as a number, from which spreadsheets take the leading zeros.

    >>> _same_session("ses-01", "01", loosely=False), _same_session("1", "01", loosely=True), _same_session("1", "01", loosely=False)
    (True, True, False)
    """
    label = written.removeprefix("ses-")
    return label == session or (loosely and label.isdecimal() and session.isdecimal() and int(label) == int(session))


def _unit(table: Table, column: str) -> tuple[str | None, str | None]:
    """The unit of a column, from its sidecar or its name, and a problem with it, if any."""
    found = _UNIT_IN_NAME.search(column.lower())
    by_name = _UNIT_WORDS[found[1]] if found else None
    written = table.units(column)
    if written is None:
        return by_name, None
    units = {_UNIT_WORDS[word] for word in re.findall(r"[a-z]+", written.lower()) if word in _UNIT_WORDS}
    if len(units) != 1:
        return None, f"the unit {_quoted(written)} is not one of weeks, days, months, years"
    unit = units.pop()
    if by_name not in {None, unit}:
        return None, f"its name says {by_name}, but its Units say {_quoted(written)}"
    return unit, None


def _plausible(weeks: float, what: str) -> float:
    low, high = PLAUSIBLE_WEEKS
    if not low <= weeks <= high:
        msg = (
            f"{what} is {weeks:.4g} weeks, which is no age of a fetus or infant counted from the last menstrual period "
            f"({low:g} to {high:g} weeks); correct it, or give --age WEEKS"
        )
        raise AgeError(msg)
    return weeks
