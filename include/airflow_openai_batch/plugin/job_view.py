"""What the page is told of a job: the database's row, its directory and OpenAI's list, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.openai_api.model_ends import day_of, describe_ends
from airflow_openai_batch.plugin.iso import to_iso
from airflow_openai_batch.plugin.usual import describe_usual
from airflow_openai_batch.report.shard_words import STATES

if TYPE_CHECKING:
    from airflow_openai_batch.plugin.board import Job
    from airflow_openai_batch.plugin.job_rows import JobRow
    from airflow_openai_batch.plugin.shard_view import ShardView
    from airflow_openai_batch.report.snapshot import JobSnapshot


def describe_job(job: Job, *, now: float, may_edit: bool) -> dict[str, Any]:
    """A ``JOB`` of the page's API.

    :param now: Unix seconds.
    """
    row = job.row
    return {
        "dag_id": row.id.dag_id,
        "run_id": row.id.run_id,
        "task_id": row.id.task_id,
        "map_index": row.id.map_index,
        "uri": row.uri,
        "run_state": row.run_state,
        "run_started_at": to_iso(row.run_started_at),
        "run_ended_at": to_iso(row.run_ended_at),
        "loaded": job.directory.loaded,
        "error": job.error,
        "links": {"run": row.id.run_link, "task": row.id.task_link},
        "may_edit": may_edit,
        **(_EMPTY if job.snapshot is None else _describe(row, job.snapshot, job.shards, now)),
    }


_EMPTY: dict[str, Any] = {
    "state": "planned",
    "reported": False,
    "created_at": None,
    "age_s": None,
    "shards": {"total": 0, "by_state": dict.fromkeys(STATES, 0)},
    "requests": {"total": 0, "completed": 0, "failed": 0, "landed": 0, "rejected": 0},
    "tokens_in_flight": 0,
    "cost_usd": None,
    "reserved_usd": None,
    "saving_usd": None,
    "eta_s": None,
    "usual": None,
    "waits_for": None,
    "has_failed_rows": False,
    "notices": [],
}


def _describe(row: JobRow, snapshot: JobSnapshot, shards: list[ShardView], now: float) -> dict[str, Any]:
    plan, by_state = snapshot.plan, Counter(shard.state for shard in shards)
    total, completed = plan.counts.requests, sum(shard.completed for shard in shards)
    return {
        "state": judge(row, snapshot, by_state),
        "reported": snapshot.report is not None,
        "created_at": to_iso(plan.created_at),
        "age_s": max(0.0, now - plan.created_at),
        "shards": {"total": len(shards), "by_state": {state: by_state[state] for state in STATES}},
        "requests": {
            "total": total,
            "completed": completed,
            "failed": sum(shard.failed for shard in shards),
            "landed": sum(shard.plan.requests for shard in shards if shard.state == "done"),
            "rejected": plan.counts.rejected,
        },
        "tokens_in_flight": sum(shard.tokens_in_flight for shard in shards),
        "cost_usd": snapshot.spent.paid_usd,
        "reserved_usd": snapshot.spent.reserved_usd,
        "saving_usd": snapshot.saving_usd(),
        "eta_s": estimate_left(row, snapshot, shards, completed, now),
        "usual": _find_usual(shards),
        "waits_for": _find_reason(shards),
        "has_failed_rows": snapshot.has_failed_rows,
        "notices": list(describe_ends(plan.model_ends, day_of(now))),
    }


def judge(row: JobRow, snapshot: JobSnapshot, by_state: Mapping[str, int]) -> str:
    """``planned`` while nothing is sent, ``incomplete`` where the run is over and shards are not done."""
    if snapshot.is_done:
        return "done"
    begun = any(shard.last not in ("", "sampled") for shard in snapshot.shards)
    if row.is_over:
        return "incomplete" if begun or row.run_state == "failed" else "planned"
    return "running" if begun else "planned"


def estimate_left(
    row: JobRow, snapshot: JobSnapshot, shards: list[ShardView], completed: int, now: float
) -> float | None:
    """Seconds until all is answered, if it goes on as it went since the first batch was created; not less than what
    the slowest running batch needs at its own pace, or usually. Retries and waits to come are not in it. None where
    nothing is answered yet nor known of such batches, or nobody goes on with the job.
    """
    total = snapshot.plan.counts.requests
    if row.is_over or snapshot.is_done:
        return None
    if not completed:
        return max((left_s for shard in shards if (left_s := shard.eta_s(now)) is not None), default=None)
    began = [shard.began_at for shard in shards if shard.began_at is not None]
    # OpenAI's list goes back for a day: an older batch is not in it.
    if any(shard.completed and shard.began_at is None for shard in shards):
        began.append(snapshot.plan.created_at)
    own = max((shard.eta_s(now) or 0.0 for shard in shards), default=0.0)
    elapsed = now - min(began, default=snapshot.plan.created_at)
    whole = max(0.0, elapsed) * max(0, total - completed) / completed
    waiting = any(shard.state in ("waiting", "sending") for shard in shards)
    return max(own, whole) if waiting else own or whole


def _find_usual(shards: list[ShardView]) -> dict[str, Any] | None:
    """Of the batches that are like most of the shards that are not done."""
    known = Counter(shard.usual for shard in shards if shard.usual is not None and shard.state != "done")
    return describe_usual(known.most_common(1)[0][0]) if known else None


def _find_reason(shards: list[ShardView]) -> str | None:
    """What most waiting shards wait for; numbers differ from shard to shard, so what stands before them counts."""
    reasons = Counter(shard.short_reason for shard in shards if shard.short_reason)
    return reasons.most_common(1)[0][0] if reasons else None
