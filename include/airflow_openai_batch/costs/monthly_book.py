"""What a connection has spent in a month, over all jobs that use it, from a few listings: every number is in a name.

``2026-11/22/3f2ab0.reserved.250000.json``: on the 22nd of November (UTC) something was about to be sent that may cost
0.25 dollars. ``2026-11/22/3f2ab0.paid.198765.json``: it has cost 0.198765, whenever it landed. A day that is over is
summed up once, as ``2026-11/22.total.1234567.json``, so that a month never takes more listings than the days that
are still open; what lands later still is ``2026-11/22.late.3f2ab0.m51235.json``, so much less (``m``) or more (``p``)
than the total has. Nothing is ever changed, and two jobs that write at once do not meet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.costs.spending import MICRO, to_micro

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.storage.location import Location

_ENTRY = re.compile(r"([0-9a-f]+)\.(reserved|paid)\.(\d+)\.json")
_TOTAL = re.compile(r"(\d\d)\.total\.(\d+)\.json")
_LATE = re.compile(r"\d\d\.late\.[0-9a-f]+\.([mp])(\d+)\.json")
_KEY_CHARS = 20

CLOSE_AFTER_S = 3600.0
"""A day is summed up so long after its end at the earliest: clocks differ, and what began then is written."""
CLOSE_OPEN_AFTER_S = 48 * 3600.0
"""And so long after its end at the latest; what has not landed by then counts with what it may have cost."""


class DayTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What the total of a day is made of, in millionths of a dollar."""

    paid: dict[str, int]
    reserved: dict[str, int]
    """Had not landed."""

    @property
    def micro(self) -> int:
        return sum(self.paid.values()) + sum(self.reserved.values())


@dataclass(slots=True)
class _Day:
    paid: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MonthSpent:
    """Of one month, in US dollars."""

    month: str
    """``2026-11``, UTC."""
    paid_usd: float
    reserved_usd: float
    """What others that are under way may cost."""

    @property
    def total_usd(self) -> float:
        return self.paid_usd + self.reserved_usd


class MonthlyBook:
    """The book of one connection.

    :param folder: its own, in a place that all workers share.
    """

    def __init__(self, folder: Location) -> None:
        self._folder = folder

    def read(self, now: float, *, but: str = "") -> MonthSpent:
        """Of the month that it is now: one listing, and one for each day that is not summed up.

        :param now: Unix seconds.
        :param but: the key of a send whose own reservation does not count.
        """
        today = _date(now)
        month = today[:7]
        names = self._folder.child(month).names()
        totals = _read_totals(names)
        late = [each for name in names if (each := _LATE.fullmatch(name))]
        paid = sum(totals.values()) + sum(int(each[2]) * (1 if each[1] == "p" else -1) for each in late)
        reserved = 0
        for day in (f"{number:02d}" for number in range(1, int(today[8:]) + 1)):
            if day in totals:
                continue
            found = self._read_day(month, day)
            self._close(month, day, found, now)
            paid += sum(found.paid.values())
            reserved += sum(micro for key, micro in found.reserved.items() if key != _short(but))
        return MonthSpent(month, paid / MICRO, reserved / MICRO)

    def reserve(self, key: str, cost_usd: float, now: float) -> Location | None:
        """Write down what a send may cost, before it is sent.

        :param key: of the send, hexadecimal; unique over all jobs.
        :returns: for taking it back; None where an earlier try of the send has written the same, and may have paid.
        """
        date, micro = _date(now), to_micro(cost_usd)
        place = self._place(date, f"{_short(key)}.reserved.{micro}.json")
        return place if place.create_exclusive(b"{}") else None

    def settle(self, key: str, cost_usd: float, sent_at: float, now: float) -> None:
        """Write down what a send has cost, in the day it was sent on. May be repeated, with the same number."""
        date, micro, short = _date(sent_at), to_micro(cost_usd), _short(key)
        self._place(date, f"{short}.paid.{micro}.json").write_bytes(b"{}")
        if date == _date(now):
            return
        month, day = date[:7], date[8:]
        folder = self._folder.child(month)
        if (total := _read_totals(folder.names()).get(day)) is None:
            return
        counted = msgspec.json.decode(folder.child(f"{day}.total.{total}.json").read_bytes(), type=DayTotal)
        more = micro - counted.reserved.get(short, 0)
        if short not in counted.paid and more:
            folder.child(f"{day}.late.{short}.{'p' if more > 0 else 'm'}{abs(more)}.json").write_bytes(b"{}")

    def void(self, key: str, sent_at: Iterable[float], now: float) -> None:
        """Let go of what was reserved at these times, in vain."""
        for at in {_date(at): at for at in sent_at}.values():
            self.settle(key, 0.0, at, now)

    def _place(self, date: str, name: str) -> Location:
        return self._folder.child(f"{date[:7]}/{date[8:]}/{name}")

    def _read_day(self, month: str, day: str) -> _Day:
        found = _Day()
        for name in self._folder.child(f"{month}/{day}").names():
            if entry := _ENTRY.fullmatch(name):
                kind = found.paid if entry[2] == "paid" else found.reserved
                kind[entry[1]] = max(int(entry[3]), kind.get(entry[1], 0))
        found.reserved = {key: micro for key, micro in found.reserved.items() if key not in found.paid}
        return found

    def _close(self, month: str, day: str, found: _Day, now: float) -> None:
        """Sum up a day that is over. Where two do so at once, the larger total counts."""
        end = datetime.fromisoformat(f"{month}-{day}").replace(tzinfo=UTC) + timedelta(days=1)
        wait_s = CLOSE_OPEN_AFTER_S if found.reserved else CLOSE_AFTER_S
        if now < end.timestamp() + wait_s:
            return
        total = DayTotal(paid=found.paid, reserved=found.reserved)
        place = self._folder.child(f"{month}/{day}.total.{total.micro}.json")
        place.write_bytes(msgspec.json.encode(total))


def month_end(now: float) -> str:
    """The first day of the next month, ``2026-12-01``, UTC."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1)
    return f"{first + timedelta(days=32):%Y-%m}-01"


def same_day(one: float, other: float) -> bool:
    """Whether two moments (Unix seconds) are on one day, UTC."""
    return _date(one) == _date(other)


def _read_totals(names: Iterable[str]) -> dict[str, int]:
    """By day."""
    totals: dict[str, int] = {}
    for name in names:
        if found := _TOTAL.fullmatch(name):
            totals[found[1]] = max(int(found[2]), totals.get(found[1], 0))
    return totals


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def _short(key: str) -> str:
    return key[:_KEY_CHARS]
