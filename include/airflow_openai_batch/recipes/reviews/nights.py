"""Which day a nightly run is about, and where that day's files lie."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_openai_batch.access.givers import Giver, find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.permissions import check_uri
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.sources import explained

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

PLACEHOLDER = "{day}"
_MARK = "0000-00-00"
_BY_ITSELF = frozenset({"scheduled", "backfill"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One day of a nightly DAG.

    :param source: URI of the day's input, perhaps a glob.
    :param root: what all days lie below.
    """

    day: date
    source: str
    root: str

    def open_root(self) -> Location:
        """What all days lie below; no link in it leads out. Whoever found the night has looked at who named it."""
        return open_place(self.root, "output", Giver.CODE)

    def open_folder(self) -> Location:
        """All that is made on the way to the day's result."""
        return self.open_root().child(f"days/{self.day}")

    def open_table(self) -> Location:
        return self.open_root().child(f"table/day={self.day}/reviews.parquet")

    def check_bounds(self) -> None:
        """That no link leads out of what is written by other tasks."""
        for name in ("prepared", "job", "answers.parquet", "late"):
            self.open_folder().child(name).check_bounds()

    @property
    def table(self) -> str:
        """Partitioned as Hive does it, so that any reader takes ``<root>/table`` as one table with a column day."""
        return f"{self.root}/table/day={self.day}/reviews.parquet"

    def days_before(self, days: int) -> Iterator[Night]:
        """As many calendar days, the latest first; whether there is anything is for the reader to see."""
        for back in range(1, days + 1):
            yield Night(day=self.day - timedelta(days=back), source=self.source, root=self.root)

    def to_xcom(self) -> dict[str, str]:
        """References only; what is asked of the day comes to it as ``source``."""
        return {"day": str(self.day), "file": self.source, "root": self.root}

    @classmethod
    def from_xcom(cls, value: dict[str, str]) -> Night:
        source = value["file"] if "file" in value else value["source"]  # as earlier releases have it
        return cls(day=date.fromisoformat(value["day"]), source=source, root=value["root"])


def find_night(
    pattern: str,
    root: str,
    *,
    run_type: str,
    run_after: datetime,
    interval_start: datetime | None,
    timezone: str,
    day: str | None = None,
) -> Night | None:
    """The night that a run is about; None where it is a quiet one, without a file.

    It is the day on which the run's data interval begins, in ``timezone``, or that of ``run_after`` in a run without
    an interval. A run that a person started takes the newest day up to that which has a file, since a person who
    presses a button at noon means "the latest".

    :param pattern: URI or path of a day's input, with ``{day}`` where ``2025-06-02`` stands; may be a glob.
    :param run_type: of the DAG run: ``scheduled``, ``backfill``, ``manual`` ...
    :param day: exactly this day, whatever the run is for.
    :raises ConfigError: for a pattern without ``{day}``, a day that is none, or a place that is not allowed.
    """
    if PLACEHOLDER not in pattern:
        raise ConfigError(
            f"{pattern}: holds no {PLACEHOLDER}, so every night would ask about the same rows again."
        )
    root = check_root(root)
    chosen = _read_day(day)
    wanted = find_day(run_after=run_after, interval_start=interval_start, timezone=timezone, day=day)
    if chosen is None and run_type not in _BY_ITSELF:
        own, wanted = wanted, _find_newest(_open_pattern(pattern), wanted) or wanted
        if own != wanted:
            log.info("%s has no file; started by hand, this run takes the newest day that has one.", own)
    night = Night(day=wanted, source=pattern.replace(PLACEHOLDER, str(wanted)), root=root)
    place = open_place(night.source, "input", find_giver_of(pattern, "reviews"))
    found = _glob(place, place.path)
    for path in found:  # who prepares them takes what it gets from here
        place.at(path, path).check_bounds()
    if not found:
        log.info("%s: there is no such file.", night.source)
        return None
    night.check_bounds()
    log.info("The night of %s: %s", night.day, night.source)
    return night


def find_day(
    *, run_after: datetime, interval_start: datetime | None, timezone: str, day: str | None = None
) -> date:
    """The day on which a run's data interval begins, in ``timezone``, or that of ``run_after`` without one.

    :param day: exactly this day, whatever the run is for.
    """
    return _read_day(day) or (interval_start or run_after).astimezone(ZoneInfo(timezone)).date()


def check_root(root: str) -> str:
    """Where all days lie, as everything below it begins.

    :raises ConfigError: if it may not be written.
    """
    root = root.strip().rstrip("/")
    check_uri(root, "output", find_giver_of(root, "output_uri"))
    return root


def find_newest_table(root: str) -> Night | None:
    """The latest day below ``root`` that has a table."""
    root = root.strip().rstrip("/")
    table = open_place(
        f"{root}/table/day={_MARK}/reviews.parquet", "output", find_giver_of(root, "output_uri")
    )
    day = _find_newest(table, date.max)
    return None if day is None else Night(day=day, source="", root=root)


def read_event(extra: dict[str, Any]) -> Night:
    """The night that an asset event is about. Who may write events may put any place into one.

    :raises ConfigError: if it may not be written to.
    """
    night = Night(day=date.fromisoformat(str(extra["day"])), source="", root=str(extra["root"]).rstrip("/"))
    check_uri(night.root, "output", find_giver_of(night.root, "output_uri"))
    return night


def _open_pattern(pattern: str) -> Location:
    giver = find_giver_of(pattern, "reviews")
    return open_place(pattern.replace(PLACEHOLDER, _MARK), "input", giver)


def _read_day(value: Any) -> date | None:
    if value is None or str(value).strip().lower() in ("", "none"):
        return None
    try:
        return date.fromisoformat(str(value).strip())
    except ValueError:
        raise ConfigError(
            f"day={value!r}: must be a day such as 2025-06-02; leave it empty for the run's own."
        ) from None


def _find_newest(place: Location, until: date) -> date | None:
    """:param place: with `_MARK` where the day stands."""
    first, *others = re.split(re.escape(_MARK), place.path)
    named = "(?P=day)".join(_to_regex(part) for part in others)
    expression = re.compile(rf"{_to_regex(first)}(?P<day>\d{{4}}-\d\d-\d\d){named}")
    found = [
        match["day"]
        for path in _glob(place, place.path.replace(_MARK, "*"))
        if (match := expression.fullmatch(path))
    ]
    return max((day for day in map(_parse, found) if day is not None and day <= until), default=None)


def _to_regex(text: str) -> str:
    return re.escape(text).replace(r"\*", "[^/]*")


def _parse(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _glob(place: Location, path: str) -> list[str]:
    place.fs.invalidate_cache()
    with explained(place.uri):
        return list(place.fs.glob(path))
