"""How far a job has come, from its directory alone: what a person beside Airflow wants to know of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.costs.spending import read_spending
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import JobLedger
from airflow_openai_batch.report.shard_words import DONE, NOT_BEGUN, PHASES, find_words
from airflow_openai_batch.results.landing_summary import ShardSummary, count_bad, read_done

if TYPE_CHECKING:
    from airflow_openai_batch.job.ledger import Event
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.storage.location import Location


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A job at one moment."""

    job: str
    """URI of the job directory."""
    generation: int
    created_at: float
    """When it was planned, Unix seconds."""
    requests: int
    rejected: int
    shards: dict[str, int]
    """Shards by state, in the order that they go through; states that no shard is in are left out."""
    rows: dict[str, int]
    """Rows of the shards that are done, by status."""
    unfinished_requests: int
    """Of shards that are not done."""
    answers: int
    """Paid for and landed so far."""
    cost_usd: float
    """Of these, and of answers that they replaced; models without a known price are not in it."""
    reserved_usd: float
    """What sends under way may cost; only where the job has a budget."""
    refusals: tuple[str, ...] = ()
    """What OpenAI said last to shards that it refused, each text once."""
    reported: bool
    """Whether ``report.json`` has been written."""

    @property
    def complete(self) -> bool:
        """Whether every shard is done."""
        return not self.unfinished_requests

    @property
    def bad_rows(self) -> int:
        return count_bad(self.rows)


class ProgressReader:
    """Reads a job's progress again and again; shards that are done are read once.

    :param plan: of the job.
    :param output: its directory.
    """

    def __init__(self, plan: Plan, output: Location) -> None:
        self._plan = plan
        self._output = output
        self._done: dict[tuple[int, int], ShardSummary] = {}
        """By shard, and how often it was reopened."""

    def read(self) -> JobProgress:
        """Three listings, and one small file for each shard that is not done.

        :raises LedgerError: if the ledger is there but cannot be read.
        """
        ledger = JobLedger(self._output.child(directory.STATE), len(self._plan.shards))
        states: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        refusals: dict[str, None] = {}
        open_requests = 0
        for shard in self._plan.shards:
            done = self._read_done(ledger, shard.shard)
            if done is not None:
                states[DONE.phase] += 1
                rows.update({} if done.landed is None else done.landed.rows)
                continue
            open_requests += shard.requests
            last = ledger.read_last(shard.shard)
            states[_find_phase(last, self._plan)] += 1
            if last is not None and last.kind == "refused":
                refusals[" ".join(text for text in (last.code, last.message) if text)] = None
        spent = read_spending(self._output)
        return JobProgress(
            job=self._output.uri,
            generation=self._plan.generation,
            created_at=self._plan.created_at,
            requests=self._plan.counts.requests,
            rejected=self._plan.counts.rejected,
            shards={state: states[state] for state in PHASES if states[state]},
            rows=dict(sorted(rows.items())),
            unfinished_requests=open_requests,
            answers=spent.answers,
            cost_usd=spent.paid_usd,
            reserved_usd=spent.reserved_usd,
            refusals=tuple(refusals)[:5],
            reported=self._output.child(directory.REPORT_JSON).exists(),
        )

    def _read_done(self, ledger: JobLedger, shard: int) -> ShardSummary | None:
        key = (shard, ledger.count(shard, "reopened"))
        if key not in self._done:
            done = read_done(ledger, shard, self._plan)
            if done is None:
                return None
            self._done[key] = done
        return self._done[key]


def _find_phase(last: Event | None, plan: Plan) -> str:
    if last is None or last.plan != plan.name:
        return NOT_BEGUN.phase
    return find_words(last.kind, is_done=False, told=last).phase
