"""A job directory at one moment, shard by shard, from a few listings: what a page about it shows.

Kinds of events and amounts stand in the names of files, so that 2,000 shards cost three listings. Events themselves
are read only of shards that were refused or stopped, once each, since an event is never rewritten.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.costs.spending import Spent, read_spending
from airflow_openai_batch.errors import JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import Event, JobLedger, is_done
from airflow_openai_batch.job.open_plan import read_begin
from airflow_openai_batch.job.plan import Plan, job_key
from airflow_openai_batch.report.report import Report, ShardLine
from airflow_openai_batch.report.shard_words import ShardWords, find_words

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

MOST_EVENTS = 100
"""Events that one look reads; the next look goes on with the others."""
MOST_SENDS = 50
MOST_BYTES = 256 * 2**20
"""Of a plan or a report that are read, in a process that serves everybody; of 100,000 shards they have a fifth."""
_REPORT_BEGIN_BYTES = 4_096
"""They say which report it is, and when it was written."""

_TOLD = frozenset({"refused", "stopped", "declined", "crowded"})


class ShardSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One shard, by its ledger's file names."""

    shard: int
    last: str = ""
    """Kind of the last event."""
    events: int = 0
    is_done: bool = False
    in_realtime: bool = False
    """Some of its requests went out one by one, at the full price."""
    told: Event | None = None
    """The last event, where it says what went wrong."""

    @property
    def words(self) -> ShardWords:
        """Where it stands."""
        return find_words(self.last, is_done=self.is_done, told=self.told)

    @property
    def problem(self) -> str | None:
        """What OpenAI or the ledger said; never a body."""
        if self.told is None:
            return None
        return " ".join(text for text in (self.told.code, self.told.message) if text) or None


class JobSnapshot:
    """What one look found. Not changed afterwards."""

    def __init__(
        self,
        *,
        uri: str,
        plan: Plan,
        shards: tuple[ShardSnapshot, ...],
        spent: Spent,
        report: Report | None,
        has_failed_rows: bool,
        keys: dict[str, tuple[int, int]],
    ) -> None:
        self.uri = uri
        self.plan = plan
        self.shards = shards
        self.spent = spent
        self.report = report
        self.has_failed_rows = has_failed_rows
        self.keys = keys
        """(shard, send) by job_key, of every send that there may have been: each leaves an event at least."""

    @property
    def is_done(self) -> bool:
        return all(shard.is_done for shard in self.shards)

    @property
    def is_final(self) -> bool:
        """Nothing changes any more, unless somebody repairs or restarts the job."""
        return self.is_done and self.report is not None

    @cached_property
    def lines(self) -> dict[int, ShardLine]:
        """What the report says of the shards that were done when it was written."""
        if self.report is None or self.report.fingerprint != self.plan.fingerprint:
            return {}
        return {line.shard: line for line in self.report.shards if line.sends}

    def saving_usd(self) -> float | None:
        """What the same would have cost in real time, less what it cost.

        The report's number where all is done. Until then half the price is what a batch costs, so that a shard
        that went out in batches alone has saved what it has cost; the others count for nothing.
        """
        if self.report is not None and self.is_done and self.report.cost.saving_usd is not None:
            return self.report.cost.saving_usd
        if not self.spent.paid:
            return None
        by_batch = {shard.shard for shard in self.shards if not shard.in_realtime}
        return sum(paid.cost_usd for shard, paid in self.spent.paid.items() if shard in by_batch)


class SnapshotReader:
    """Looks at one job directory again and again; what cannot have changed is not read twice."""

    def __init__(self, output: Location) -> None:
        self._output = output
        self._plan: tuple[bytes, Plan] | None = None
        """With the bytes that tell them from others."""
        self._report: tuple[bytes, Report | None] | None = None
        self._events: dict[tuple[int, int], Event | None] = {}
        """By shard and number."""
        self._keys: dict[tuple[int, int], str] = {}

    def read(self) -> JobSnapshot:
        """Three listings, the first bytes of plan and report, which are read whole when they have changed, and new
        events of shards that were refused or stopped.

        :raises JobError: if there is no plan (any more), or one that this release cannot read.
        """
        plan = self._read_plan()
        files = self._output.names()
        shards = self._read_shards(plan)
        return JobSnapshot(
            uri=self._output.uri,
            plan=plan,
            shards=shards,
            spent=read_spending(self._output),
            report=self._read_report() if directory.REPORT_JSON in files else None,
            has_failed_rows=directory.FAILED in files and self._output.child(directory.FAILED).size() > 0,
            keys=self._make_keys(plan, shards),
        )

    def _make_keys(self, plan: Plan, shards: tuple[ShardSnapshot, ...]) -> dict[str, tuple[int, int]]:
        """Each is made once."""
        for found in shards:
            for send in range(1, min(MOST_SENDS, found.events + 1) + 1):
                if (found.shard, send) not in self._keys:
                    key = job_key(self._output.uri, plan.fingerprint, plan.generation, found.shard, send)
                    self._keys[found.shard, send] = key
        return {key: place for place, key in self._keys.items()}

    def _read_plan(self) -> Plan:
        place = self._output.child(directory.PLAN)
        self._output.fs.invalidate_cache()
        try:
            begin = read_begin(place)
            if self._plan is None or self._plan[0] != begin:
                plan = directory.parse_plan(place, _read_whole(place))
                self._plan, self._events, self._keys = (begin, plan), {}, {}
        except FileNotFoundError:
            raise JobError(f"{place.uri} is not there (any more).") from None
        return self._plan[1]

    def _read_report(self) -> Report | None:
        place = self._output.child(directory.REPORT_JSON)
        try:
            begin = place.read_range(0, _REPORT_BEGIN_BYTES)
            if self._report is None or self._report[0] != begin:
                self._report = (begin, _parse_report(_read_whole(place)))
        except FileNotFoundError:
            return None
        return self._report[1]

    def _read_shards(self, plan: Plan) -> tuple[ShardSnapshot, ...]:
        ledger = JobLedger(self._output.child(directory.STATE), len(plan.shards))
        left = MOST_EVENTS
        shards = []
        for planned in plan.shards:
            kinds = ledger.list_kinds(planned.shard)
            last, event = kinds[-1] if kinds else "", (planned.shard, len(kinds))
            if last in _TOLD and event not in self._events and left:
                left -= 1
                self._events[event] = _read_last(ledger, planned.shard)
            shards.append(
                ShardSnapshot(
                    shard=planned.shard,
                    last=last,
                    events=len(kinds),
                    is_done=is_done(kinds),
                    in_realtime="realtime" in kinds,
                    told=self._events.get(event),
                )
            )
        return tuple(shards)


def _read_whole(place: Location) -> bytes:
    """:raises JobError: for what is no file of ours by its size: whoever may write there could stop the server."""
    size = place.size()
    if size > MOST_BYTES:
        raise JobError(f"{place.uri} has {size:,} bytes; what the page reads has {MOST_BYTES:,} at the most.")
    return place.read_bytes()


def _parse_report(data: bytes) -> Report | None:
    try:
        return Report.from_json(data)
    except msgspec.DecodeError:  # of another release: the page can do without
        return None


def _read_last(ledger: JobLedger, shard: int) -> Event | None:
    """A page shows what it can: one unreadable event is no reason to show nothing."""
    try:
        return ledger.read_last(shard)
    except JobError:
        return None
