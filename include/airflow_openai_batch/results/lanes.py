"""Which way the answers of a shard came, and what a deadline has cost: small enough for the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import Ended
    from airflow_openai_batch.openai_api.prices import Cost, SentAs

LANES: tuple[SentAs, ...] = ("batch", "flex", "realtime")


class LaneSpending(msgspec.Struct, frozen=True, kw_only=True):
    """Of all answers that came one way and were paid for."""

    answers: int = 0
    cost_usd: float = 0.0
    """Of those whose price is known."""
    hurried: int = 0
    """Answers that came this way because of a deadline."""
    hurried_usd: float = 0.0
    """What these have cost beyond the price of a batch."""

    def __add__(self, other: LaneSpending) -> LaneSpending:
        return LaneSpending(
            answers=self.answers + other.answers,
            cost_usd=self.cost_usd + other.cost_usd,
            hurried=self.hurried + other.hurried,
            hurried_usd=self.hurried_usd + other.hurried_usd,
        )


class HurriedSend(msgspec.Struct, frozen=True, kw_only=True):
    """A send that went out one by one because of a deadline. Times are Unix seconds."""

    send: int
    sent_as: str
    """How the last of it went out."""
    requests: int
    began_at: float | None = None
    ended_at: float | None = None


class LaneTally:
    """Adds up answers, one at a time."""

    def __init__(self) -> None:
        self._answers = dict.fromkeys(LANES, 0)
        self._cost_usd = dict.fromkeys(LANES, 0.0)
        self._hurried = dict.fromkeys(LANES, 0)
        self._hurried_usd = dict.fromkeys(LANES, 0.0)

    def add(self, lane: SentAs, cost: Cost | None, *, answers: int) -> None:
        self._answers[lane] += answers
        if cost is not None:
            self._cost_usd[lane] += cost.actual_usd

    def add_hurried(self, lane: SentAs, cost: Cost | None, in_batch: Cost | None, *, answers: int) -> None:
        """Of an answer that came this way because of a deadline: what it cost, and would have cost in a batch."""
        self._hurried[lane] += answers
        if cost is not None and in_batch is not None:
            self._hurried_usd[lane] += max(0.0, cost.actual_usd - in_batch.actual_usd)

    def sum(self) -> dict[str, LaneSpending]:
        """Of the ways that any answer came."""
        return {
            lane: LaneSpending(
                answers=self._answers[lane],
                cost_usd=self._cost_usd[lane],
                hurried=self._hurried[lane],
                hurried_usd=self._hurried_usd[lane],
            )
            for lane in LANES
            if self._answers[lane]
        }


def merge_lanes(shards: Iterable[dict[str, LaneSpending]]) -> dict[str, LaneSpending]:
    """Sums over shards."""
    total: dict[str, LaneSpending] = {}
    for lanes in shards:
        for lane, spending in lanes.items():
            total[lane] = total.get(lane, LaneSpending()) + spending
    return {lane: total[lane] for lane in LANES if lane in total}


def list_hurried(ended: Iterable[Ended]) -> tuple[HurriedSend, ...]:
    """The sends of a shard that a deadline has made, oldest first."""
    return tuple(
        HurriedSend(
            send=each.send,
            sent_as=each.sent_as,
            requests=0 if each.content is None else each.content.requests,
            began_at=each.times.get("created_at"),
            ended_at=each.times.get("completed_at"),
        )
        for each in ended
        if each.is_hurried
    )
