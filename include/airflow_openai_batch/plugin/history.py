"""Cost and failures run by run, for the chart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.plugin.iso import to_iso

if TYPE_CHECKING:
    from airflow_openai_batch.plugin.board import Job
    from airflow_openai_batch.report.report import Report


def describe_runs(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """One entry per run, oldest first; what a run's jobs come to together. None: not known (yet)."""
    runs: dict[str, list[Job]] = {}
    for job in jobs:
        runs.setdefault(job.row.id.run_id, []).append(job)
    return [_describe(found) for found in reversed(list(runs.values()))]


def _describe(jobs: list[Job]) -> dict[str, Any]:
    row = jobs[0].row
    known = [job.snapshot for job in jobs if job.snapshot is not None]
    reports = [snapshot.report for snapshot in known if snapshot.report is not None]
    return {
        "run_id": row.id.run_id,
        "run_started_at": to_iso(row.run_started_at),
        "cost_usd": _add(snapshot.spent.paid_usd for snapshot in known),
        "saving_usd": _add(snapshot.saving_usd() for snapshot in known),
        "rows_ok": _add(report.counts.good for report in reports),
        "rows_bad": _add(_count_bad(report, row.run_state) for report in reports),
        "rejected": _add(snapshot.plan.counts.rejected for snapshot in known),
        "state": row.run_state,
        "link": row.id.run_link,
    }


def _count_bad(report: Report, run_state: str) -> int:
    """In a run that failed, what has no answer at all is no good answer, either; a sample is no failure."""
    return report.counts.bad + (report.counts.unfinished if run_state == "failed" else 0)


def _add(amounts: Iterable[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
