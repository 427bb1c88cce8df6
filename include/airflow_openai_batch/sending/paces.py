"""How fast a job's requests have gone out one by one, from one listing: every number stands in a name.

``paces/00003.2.flex.1500.62500.json``: send 2 of shard 3 got 1,500 answers through flex in 62.5 seconds. What one
shard has measured, the others find at their first send.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job import directory
from airflow_openai_batch.sending.realtime.slots import FLEX_SLOTS, SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.sending.policy import Lane
    from airflow_openai_batch.storage.location import Location

TELLING_ANSWERS = 20
"""Of fewer than these one slow answer says nothing of the pace."""
_NAME = re.compile(r"\d{5,}\.\d+\.(flex|realtime)\.(\d+)\.(\d+)\.json")


class MeasuredPace(msgspec.Struct, frozen=True, kw_only=True):
    """Of one send."""

    lane: str
    answers: int
    seconds: float

    @property
    def is_telling(self) -> bool:
        return self.answers >= TELLING_ANSWERS and self.seconds > 0


def record_pace(output: Location, shard: int, send: int, pace: MeasuredPace) -> None:
    """Leave what a send has measured, where it says something."""
    if pace.is_telling:
        ms = max(1, round(pace.seconds * 1000))
        name = f"{shard:05d}.{send}.{pace.lane}.{pace.answers}.{ms}.json"
        output.child(f"{directory.PACES}/{name}").write_bytes(msgspec.json.encode(pace))


def read_paces(output: Location) -> list[MeasuredPace]:
    """Of all shards. One listing, nothing is opened."""
    found = (_NAME.fullmatch(name) for name in output.child(directory.PACES).names())
    return [
        MeasuredPace(lane=each[1], answers=int(each[2]), seconds=int(each[3]) / 1000)
        for each in found
        if each
    ]


def share_pace(paces: Iterable[MeasuredPace], lane: Lane, shards: int) -> float:
    """Requests a second that one of so many shards may count on when all of them send at once; 0: not measured.

    :param shards: of the job; as many as an account has places for go side by side, the others wait for them.
    """
    telling = [pace for pace in paces if pace.lane == lane and pace.is_telling]
    seconds = sum(pace.seconds for pace in telling)
    if not seconds:
        return 0.0
    places = FLEX_SLOTS if lane == "flex" else SLOTS
    return sum(pace.answers for pace in telling) / seconds * min(places, shards) / max(1, shards)
