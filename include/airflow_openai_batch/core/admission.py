"""Who may send next: the shards that wait for one connection's batch queues, first come first served as they fit.

Pure: told what the lists show and what time it is. A grant is a reservation until its batch is seen in a list, so
that no room is given away twice.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_openai_batch.core.batch_view import BatchStatus, describe_duration
from airflow_openai_batch.core.models import base_model
from airflow_openai_batch.core.queue_room import Held, Need, QueueLimit, Room, format_amount, sum_held

if TYPE_CHECKING:
    from airflow_openai_batch.core.batch_view import BatchView

CREATES_PER_HOUR = 2_000
"""Of the whole organisation. Source: the Batch API guide."""
RESERVED_S = 900.0
"""A grant whose batch is in no list after so long is void: its task died, or its batch is over already."""
HEAD_WAIT_S = 1_800.0
"""Whoever has been the first in line for so long and still does not fit lets nobody pass any more. Before that,
smaller ones that fit may go ahead, which keeps the queue full; for ever, that would starve a large one, since
whatever its predecessors leave would always go to the small."""

_ADMITTED = frozenset({BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.COMPLETED})


@dataclass(eq=False, slots=True, kw_only=True)
class Waiter:
    """One shard in the line. Times are Unix seconds."""

    need: Need
    limit: QueueLimit
    asked_at: float
    """Its place in the line."""
    not_before: float = 0.0
    holder: str
    """Names the shard, whichever send it is about."""
    head_since: float | None = None
    granted_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Wall:
    """A refusal said that the queue cannot take so many tokens now, whatever its limit and our lists say."""

    tokens: int
    until: float


@dataclass(slots=True)
class _Queue:
    """One model's queue."""

    reserved: Held = field(default_factory=Held)
    """Granted, and not yet seen in a list."""
    refused: QueueLimit = field(default_factory=QueueLimit)
    """What refusals said of its limit, the latest."""
    walls: dict[str, _Wall] = field(default_factory=dict)
    """By holder."""
    wary: bool = False
    """After a refusal one goes at a time until one was admitted: where strangers keep the queue full, each
    further shard would only learn the same."""
    probes: set[str] = field(default_factory=set)
    """job_keys granted while wary."""
    probing: bool = False
    """One of these is validating."""


class QueueRoom:
    """The line before the queues of one connection."""

    def __init__(self) -> None:
        self._line: list[Waiter] = []
        self._granted: set[Waiter] = set()
        """Not yet seen in a list."""
        self._queues: dict[str, _Queue] = {}
        self._listed: dict[str, Held] = {}
        self._created_last_hour = 0
        self.seen_at: float | None = None
        """Of the newest lists."""

    # -- the line ------------------------------------------------------------------------------

    def join(
        self,
        need: Need,
        limit: QueueLimit,
        *,
        now: float,
        asked_at: float | None = None,
        not_before: float = 0.0,
        holder: str = "",
    ) -> Waiter:
        """Stand in line. What the same holder was granted before and did not use is void.

        :param limit: what the waiter knows of the queue. What a refusal said counts for all, the latest first.
        :param asked_at: when the shard asked first: it keeps its place after a refusal or a restart.
        :param not_before: patience after a refusal. As long as it lasts, others are not granted as much either.
        """
        waiter = Waiter(
            need=need,
            limit=limit,
            asked_at=now if asked_at is None else asked_at,
            not_before=not_before,
            holder=holder or need.job_key,
        )
        for former in [other for other in self._granted if waiter.holder and other.holder == waiter.holder]:
            self._release(former)
        queue = self._queue(need)
        queue.refused = queue.refused.overridden_by(limit.only_by("refusal"))
        if not_before > now:
            queue.wary = True
            queue.walls[waiter.holder] = _Wall(self._held(need).tokens + need.tokens, not_before)
        insort(self._line, waiter, key=lambda other: other.asked_at)
        return waiter

    def leave(self, waiter: Waiter, *, taken: bool) -> None:
        """Go out of the line; ``taken``: with what was granted, which is free again otherwise."""
        if waiter in self._line:
            self._line.remove(waiter)
        if not taken and waiter in self._granted:
            self._release(waiter)

    # -- what is known -------------------------------------------------------------------------

    def see(self, batches: Iterable[BatchView], *, created_last_hour: int, at: float) -> bool:
        """Take in what the lists show; false where that is old news.

        :param batches: at least those that are not final. Final ones hold nothing, but settle reservations.
        """
        if self.seen_at is not None and at <= self.seen_at:
            return False
        self.seen_at = at
        self._created_last_hour = created_last_hour
        batches = list(batches)
        self._listed = sum_held(batches)
        for queue in self._queues.values():
            queue.probing = False
        seen = {batch.job_key: batch for batch in batches if batch.job_key}
        for waiter in [waiter for waiter in self._granted if waiter.need.job_key in seen]:
            self._release(waiter)
        for batch in seen.values():
            self._judge_probe(batch)
        return True

    def _judge_probe(self, batch: BatchView) -> None:
        queue = self._queues.get(base_model(batch.model or ""))
        if queue is None or batch.job_key not in queue.probes:
            return
        if batch.status in _ADMITTED:
            _trust(queue)
        queue.probing |= batch.status is BatchStatus.VALIDATING

    def _forget(self, now: float) -> None:
        """Reservations that nobody used, and walls whose time is over."""
        for waiter in list(self._granted):
            if waiter.granted_at is not None and now - waiter.granted_at >= RESERVED_S:
                self._release(waiter)
                _trust(self._queue(waiter.need))
        for queue in self._queues.values():
            queue.walls = {name: wall for name, wall in queue.walls.items() if wall.until > now}

    def _queue(self, need: Need) -> _Queue:
        return self._queues.setdefault(need.queue, _Queue())

    def _held(self, need: Need) -> Held:
        return self._listed.get(need.queue, Held()) + self._queue(need).reserved

    def find_room(self, waiter: Waiter) -> Room:
        """The queue as this waiter finds it."""
        limit = waiter.limit.overridden_by(self._queue(waiter.need).refused)
        return Room(need=waiter.need, limit=limit, held=self._held(waiter.need))

    # -- decisions -----------------------------------------------------------------------------

    def admit(self, now: float) -> list[Waiter]:
        """Grant room to whoever may go, in the order of the line; nobody before a list was seen."""
        if self.seen_at is None:
            return []
        self._forget(now)
        granted: list[Waiter] = []
        heads: set[str] = set()
        closed: set[str] = set()
        for waiter in self._line:
            name = waiter.need.queue
            if not self._creates_left:
                break
            if name in closed or waiter.not_before > now:
                continue
            if self._may_go(waiter):
                self._grant(waiter, now)
                granted.append(waiter)
            elif name not in heads:
                heads.add(name)
                if self._is_tired(waiter, now):
                    closed.add(name)
        self._line = [waiter for waiter in self._line if waiter.granted_at is None]
        return granted

    @property
    def _creates_left(self) -> int:
        return max(0, CREATES_PER_HOUR - self._created_last_hour - len(self._granted))

    def _may_go(self, waiter: Waiter) -> bool:
        queue, room = self._queue(waiter.need), self.find_room(waiter)
        if queue.wary and (queue.probing or queue.reserved != Held()):
            return False
        after = room.held.tokens + waiter.need.tokens
        return room.fits and all(after < wall.tokens for wall in queue.walls.values())

    def _grant(self, waiter: Waiter, now: float) -> None:
        waiter.granted_at = now
        self._granted.add(waiter)
        queue = self._queue(waiter.need)
        queue.reserved += waiter.need.held
        if queue.wary:
            queue.probes.add(waiter.need.job_key)

    def _release(self, waiter: Waiter) -> None:
        self._granted.remove(waiter)
        self._queue(waiter.need).reserved -= waiter.need.held

    def _is_tired(self, waiter: Waiter, now: float) -> bool:
        if waiter.head_since is None:
            waiter.head_since = now
        return now - waiter.head_since >= HEAD_WAIT_S

    # -- words ---------------------------------------------------------------------------------

    def describe(self, waiter: Waiter, now: float) -> str:
        """``needs 1.9M tokens, 0.4M of 2.0M free, 3 shards before this one``."""
        if self.seen_at is None:
            return (
                f"needs {format_amount(waiter.need.tokens)} tokens; the batches in flight are not known yet"
            )
        text = str(self.find_room(waiter))
        before = 0
        for other in self._line:
            if other is waiter:
                break
            before += other.need.queue == waiter.need.queue
        if before:
            text += f", {before:,} shard{'s' * (before > 1)} before this one"
        if not self._creates_left:
            text += f"; {CREATES_PER_HOUR:,} batches were created in the last hour, OpenAI's limit"
        if waiter.not_before > now:
            text += f"; refused before, asks again in {describe_duration(waiter.not_before - now)} at the earliest"
        elif self._queue(waiter.need).walls or self._queue(waiter.need).wary:
            text += "; others were refused, so shards go one at a time"
        return text


def _trust(queue: _Queue) -> None:
    """A batch was admitted, or nothing was heard for long: go on as the numbers say."""
    queue.wary = False
    queue.probes.clear()
