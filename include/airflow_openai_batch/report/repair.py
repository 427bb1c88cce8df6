"""A repair: what has no good result in a finished job is asked again, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import Event, JobLedger, ShardLedger
from airflow_openai_batch.results.landing_summary import read_done
from airflow_openai_batch.storage.read_ahead import read_ahead
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.storage.location import Location


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair finds to do."""

    bad: dict[int, int]
    """Finished shards with rows that are not ``ok``, and how many."""
    unfinished: tuple[int, ...]
    """Shards that are not done, those that this run has reopened before among them."""
    doubted: tuple[int, ...] = ()
    """Of these: stopped because their results stayed in doubt. What is not there of them is given up."""

    @property
    def shards(self) -> list[int]:
        """All that is to be worked on."""
        return sorted({*self.bad, *self.unfinished})

    def __str__(self) -> str:
        if not self.shards:
            return "Nothing to repair: every request has a good result."
        text = (
            f"To repair: {number_of(sum(self.bad.values()), 'request')} without a good result in "
            f"{number_of(len(self.bad), 'finished shard')}; good answers are not asked again"
        )
        if self.unfinished:
            text += f". {number_of(len(self.unfinished), 'shard')} not done go on"
        if self.doubted:
            text += f", {number_of(len(self.doubted), 'shard')} of them without results that the server does not show"
        return f"{text}."


def find_repair(plan: Plan, output: Location, run_key: str) -> Repair:
    """What there is to repair. One listing, and one or two small files for each shard.

    :param run_key: ``dag_id/run_id``: what this run has reopened and seen to its end is not opened once more.
    :raises LedgerError: if a ledger is there but cannot be read.
    """
    ledger = JobLedger(output.child(directory.STATE), len(plan.shards))
    bad: dict[int, int] = {}
    unfinished, doubted = [], []
    numbers = range(len(plan.shards))
    found = read_ahead(lambda shard: read_done(ledger, shard, plan), numbers, output)
    for shard, done in zip(numbers, found, strict=True):
        if done is None:
            unfinished.append(shard)
            if ledger.list_kinds(shard)[-2:] == ["doubted", "stopped"]:
                doubted.append(shard)
            continue
        rows = 0 if done.landed is None else done.landed.requests - done.landed.rows.get("ok", 0)
        if rows and not _was_opened(ledger, shard, run_key):
            bad[shard] = rows
    return Repair(bad, tuple(unfinished), tuple(doubted))


def _was_opened(ledger: JobLedger, shard: int, run_key: str) -> bool:
    last = ledger.read_last(shard, "reopened")
    return last is not None and last.by.startswith(f"{run_key}/")


def reopen_shards(plan: Plan, output: Location, repair: Repair, *, by: str, now: float) -> None:
    """Say in the ledgers of the shards that a repair has begun; their tasks do the rest.

    :param by: who asks, as in `Event.by`.
    :param now: Unix seconds.
    """
    for shard in (*repair.bad, *repair.doubted):
        ledger = ShardLedger(output.child(directory.state_folder(shard)))
        send = max((event.send for event in ledger.read()), default=1)
        ledger.append(Event(kind="reopened", send=send, at=now, by=by, plan=plan.name))
