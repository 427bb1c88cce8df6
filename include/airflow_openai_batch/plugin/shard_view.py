"""What the page is told of a shard: the plan, the ledger's names, OpenAI's list and Airflow's task instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.job import directory
from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView, estimate_left
from airflow_openai_batch.openai_api.batch_durations import UsualDuration, UsualDurations
from airflow_openai_batch.operators.links import OPENAI_PAGE
from airflow_openai_batch.plugin.instances import FAILED
from airflow_openai_batch.plugin.iso import to_iso
from airflow_openai_batch.results.landing_summary import count_bad
from airflow_openai_batch.sending.queue.room import read_held

if TYPE_CHECKING:
    from airflow_openai_batch.costs.spending import Paid
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.plugin.instances import Instance
    from airflow_openai_batch.report.report import ShardLine
    from airflow_openai_batch.report.snapshot import JobSnapshot, ShardSnapshot

NOTHING_USUAL = UsualDurations()


@dataclass(slots=True, kw_only=True, eq=False)
class ShardView:
    """One shard at one moment. Not frozen, which would take three times as long for 2,000 of them."""

    plan: Shard
    ledger: ShardSnapshot
    paid: Paid | None
    line: ShardLine | None
    """From the report, where the shard was done when it was written."""
    send: int | None
    batch: BatchView | None
    """Of the newest send that OpenAI's list knows."""
    usual: UsualDuration | None
    """How long batches like it take."""
    instance: Instance | None
    state: str = field(init=False)

    def __post_init__(self) -> None:
        self.state = self._judge()

    def _judge(self) -> str:
        """The ledger's word, corrected by what has happened since: OpenAI may be further, or the task may have
        given up."""
        state = self.ledger.words.state
        if state == "done":
            return state
        if self.instance is not None and self.instance.state in FAILED:
            return "failed"
        if self.waits_for is not None and state != "running":
            return "waiting"
        if state == "running" and self.batch is not None and self.batch.status.is_final:
            return "landing" if self.batch.status is not BatchStatus.FAILED else "waiting"
        return state

    @property
    def waits_for(self) -> str | None:
        if self.ledger.is_done or self.instance is None:
            return None
        return self.instance.waits_for

    @property
    def short_reason(self) -> str | None:
        if self.state != "waiting" or self.waits_for is None:
            return None
        if self.waits_for.startswith("waits for room"):
            return f"room in the batch queue of {self.plan.model}"
        return self.waits_for.partition(":")[0]

    @property
    def live(self) -> BatchView | None:
        """Its batch, while OpenAI has it."""
        if self.batch is None or self.batch.status.is_final or self.ledger.is_done:
            return None
        return self.batch

    @property
    def completed(self) -> int:
        """Requests with an answer, at OpenAI or landed."""
        if self.ledger.is_done:
            return self.plan.requests - self.failed
        landed = 0 if self.paid is None else self.paid.answers
        return min(self.plan.requests, landed + (0 if self._new is None else self._new.completed))

    @property
    def failed(self) -> int:
        if self.line is not None:
            return self.bad_rows or 0
        return 0 if self._new is None else self._new.failed

    @property
    def _new(self) -> BatchView | None:
        """Its batch, while what that has answered is not among what has landed."""
        return self.batch if self.paid is None or (self.send or 0) > self.paid.send else None

    @property
    def bad_rows(self) -> int | None:
        return None if self.line is None else count_bad(self.line.rows)

    @property
    def tokens_in_flight(self) -> int:
        return 0 if self.live is None else read_held(self.live).tokens

    @property
    def began_at(self) -> float | None:
        return None if self.batch is None else self.batch.created_at or None

    def eta_s(self, now: float) -> float | None:
        """At the pace of its own batch so far, or, before the first answer, as long as others usually take."""
        if self.live is None:
            return None
        own_s = estimate_left(self.live, now)
        if own_s is not None or self.usual is None or self.live.status is BatchStatus.CANCELLING:
            return own_s
        return self.usual.estimate_left(max(0.0, now - self.live.created_at))

    def describe(self, uri: str, now: float, *, may_edit: bool) -> dict[str, Any]:
        """A ``SHARD`` of the page's API.

        :param uri: of the job directory.
        """
        batch_id = (
            self.batch.id if self.batch else next(reversed(self.line.batch_ids if self.line else ()), None)
        )
        return {
            "shard": self.plan.shard,
            "state": self.state,
            "phase": self.ledger.words.phase,
            "model": self.plan.model,
            "requests": self.plan.requests,
            "completed": self.completed,
            "failed": self.failed,
            "bad_rows": self.bad_rows,
            "input_tokens": self.plan.expected_tokens,
            "cost_usd": None if self.paid is None else self.paid.cost_usd,
            "send": self.send or (self.line.sends if self.line else None),
            "batch_id": batch_id,
            "batch_status": self._find_status(),
            "batch_created_at": to_iso(self.began_at),
            "age_s": None if self.live is None else max(0.0, now - self.live.created_at),
            "eta_s": self.eta_s(now),
            "waits_for": self._find_wait(),
            "problem": self._find_problem(),
            "task": None if self.instance is None else self.instance.describe(),
            "links": {
                "openai": OPENAI_PAGE.format(batch_id=batch_id) if batch_id else None,
                "result": f"{uri}/{directory.part(self.plan.shard)}" if self.state == "done" else None,
            },
            "cancellable": may_edit
            and self.live is not None
            and self.live.status is not BatchStatus.CANCELLING,
        }

    def _find_status(self) -> str | None:
        """Nobody looks at the batches of a job that is done: what was seen of them last may be from before."""
        if self.batch is None or (self.ledger.is_done and not self.batch.status.is_final):
            return None
        return str(self.batch.status)

    def _find_wait(self) -> str | None:
        if self.state == "landing" and self.instance is not None and self.instance.state == "deferred":
            return "waits for its task's next look (poll_interval): the batch is over"
        return self.waits_for if self.state == "waiting" else None

    def _find_problem(self) -> str | None:
        if self.ledger.problem is not None:
            return self.ledger.problem
        if self.ledger.is_done or self.batch is None:
            return None
        errors = self.batch.errors[:1]
        return " ".join(text for error in errors for text in (error.code, error.message) if text) or None


def view_shards(
    snapshot: JobSnapshot,
    batches: Mapping[str, BatchView],
    instances: Mapping[int, Instance],
    maker: Instance | None = None,
    usual: UsualDurations = NOTHING_USUAL,
) -> list[ShardView]:
    """All shards of a job.

    :param batches: by job_key.
    :param usual: how long batches take in the account.
    :param instances: by shard.
    :param maker: the task that holds all of them, where one does.
    """
    newest: dict[int, tuple[int, BatchView]] = {}
    for key in snapshot.keys.keys() & batches.keys():
        shard, send = snapshot.keys[key]
        if shard not in newest or newest[shard][0] < send:
            newest[shard] = (send, batches[key])
    return [
        ShardView(
            plan=planned,
            ledger=found,
            paid=snapshot.spent.paid.get(planned.shard),
            line=snapshot.lines.get(planned.shard),
            send=newest[planned.shard][0] if planned.shard in newest else None,
            batch=newest[planned.shard][1] if planned.shard in newest else None,
            usual=usual.find(planned.model, planned.requests),
            instance=instances.get(planned.shard, maker),
        )
        for planned, found in zip(snapshot.plan.shards, snapshot.shards, strict=True)
    ]
