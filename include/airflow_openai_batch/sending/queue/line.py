"""Who may send next: the shards that wait for one connection's batch queues, first come first served as they fit.

Pure: told what the lists show and what time it is. A grant is a reservation until its batch is seen in a list, so
that no room is given away twice.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import BatchStatus
from airflow_openai_batch.sending.queue.backpressure import Backpressure
from airflow_openai_batch.sending.queue.room import Held, Need, Room, sum_held
from airflow_openai_batch.wording import describe_duration, format_amount

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.batch import BatchView

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


@dataclass(slots=True)
class _Queue:
    """One model's queue."""

    reserved: Held = field(default_factory=Held)
    """Granted, and not yet seen in a list."""
    refused: QueueLimit = field(default_factory=QueueLimit)
    """What refusals said of its limit, the latest."""
    wall: Backpressure = field(default_factory=Backpressure)


@dataclass(slots=True)
class _Pass:
    """One queue in one walk along the line."""

    granted: list[Waiter] = field(default_factory=list)
    head: Waiter | None = None
    """The first that does not fit."""
    closed: bool = False
    """It has waited long enough to let nobody pass."""
    probe: Waiter | None = None

    def would_probe(self, waiter: Waiter, wall: Backpressure) -> bool:
        """The smallest tries first, being the most likely to fit; the head, where it can go in no other way."""
        if self.closed:
            return False
        if waiter is self.head and not wall.is_clear(waiter.need.tokens):
            return True
        if self.probe is None:
            return True
        stays = self.probe is self.head and not wall.is_clear(self.probe.need.tokens)
        return not stays and waiter.need.tokens < self.probe.need.tokens


class AdmissionQueue:
    """The line before the queues of one connection."""

    def __init__(self) -> None:
        self._line: list[Waiter] = []
        self._granted: set[Waiter] = set()
        """Not yet seen in a list."""
        self._queues: dict[str, _Queue] = {}
        self._listed: dict[str, Held] = {}
        self._admitted: dict[str, Held] = {}
        """Of that, what is past validation."""
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
        :param not_before: patience after a refusal, Unix seconds; see `strangers` for what it means to the others.
        """
        waiter = Waiter(
            need=need,
            limit=limit,
            asked_at=now if asked_at is None else asked_at,
            not_before=not_before,
            holder=holder or need.job_key,
        )
        queue = self._queue(need)
        if not any(other.need.queue == need.queue for other in self._line) and not queue.reserved.tokens:
            queue.wall = Backpressure()  # what was learnt is old
        for former in [other for other in self._granted if waiter.holder and other.holder == waiter.holder]:
            self._release(former)
        queue.refused = queue.refused.overridden_by(limit.only_by("refusal"))
        if not_before > now:
            # what was sent beside it may have been refused, too: count what is known to be in
            level = self._admitted.get(need.queue, Held()).tokens + need.tokens
            queue.wall.note_refusal(waiter.holder, level, now, not_before)
        insort(self._line, waiter, key=lambda other: other.asked_at)
        return waiter

    def leave(self, waiter: Waiter, *, taken: bool) -> None:
        """Go out of the line; ``taken``: with what was granted, which is free again otherwise."""
        if waiter in self._line:
            self._line.remove(waiter)
        if not taken and waiter in self._granted:
            self._release(waiter)
            self._queue(waiter.need).wall.drop_probe(waiter.holder)

    def count_waiting(self) -> Counter[str]:
        """Shards in the line, by queue."""
        return Counter(waiter.need.queue for waiter in self._line)

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
        self._admitted = sum_held(batch for batch in batches if batch.status is not BatchStatus.VALIDATING)
        seen = {batch.job_key: batch for batch in batches if batch.job_key}
        for waiter in [waiter for waiter in self._granted if waiter.need.job_key in seen]:
            self._release(waiter)
        for queue in self._queues.values():
            probe = seen.get(queue.wall.probe)
            if probe is not None and probe.status in _ADMITTED:
                queue.wall.note_admission(queue.wall.probe)
        return True

    def _forget(self, now: float) -> None:
        """Reservations that nobody used."""
        for waiter in list(self._granted):
            if waiter.granted_at is not None and now - waiter.granted_at >= RESERVED_S:
                self._release(waiter)

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
        passes: dict[str, _Pass] = {}
        for waiter in self._line:
            if not self._creates_left:
                break
            one = passes.setdefault(waiter.need.queue, _Pass())
            if not one.closed and waiter.not_before <= now:
                self._consider(waiter, one, now)
        for name, one in passes.items():
            if one.probe is not None and not one.granted and self._queues[name].wall.may_be_tried(now):
                self._grant(one.probe, now)
                one.granted.append(one.probe)
        self._line = [waiter for waiter in self._line if waiter.granted_at is None]
        return [waiter for one in passes.values() for waiter in one.granted]

    def _consider(self, waiter: Waiter, one: _Pass, now: float) -> None:
        room, wall = self.find_room(waiter), self._queue(waiter.need).wall
        if room.fits and wall.is_clear(room.held.tokens + waiter.need.tokens):
            self._grant(waiter, now)
            one.granted.append(waiter)
            return
        could_be_clear = wall.is_clear(waiter.need.tokens)
        if one.head is None:
            one.head = waiter
            # A wall is only a guess: nobody is held up by one who waits for what may never be.
            one.closed = could_be_clear and self._is_tired(waiter, now)
        if room.fits and one.would_probe(waiter, wall):
            one.probe = waiter

    @property
    def _creates_left(self) -> int:
        return max(0, CREATES_PER_HOUR - self._created_last_hour - len(self._granted))

    def _grant(self, waiter: Waiter, now: float) -> None:
        queue, need = self._queue(waiter.need), waiter.need
        queue.wall.note_grant(need.job_key, waiter.holder, self._held(need).tokens + need.tokens, now)
        queue.reserved += need.held
        waiter.granted_at = now
        self._granted.add(waiter)

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
        elif self.find_room(waiter).fits and self._queue(waiter.need).wall.level is not None:
            text += "; others use the queue as well, since the server refused a batch: one shard at a time tries again"
        return text
