"""What became of a job, from its directory, Airflow and the emulator: that all is there, and where the time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.job.directory import read_plan
from airflow_openai_batch.job.ledger import JobLedger
from airflow_openai_batch.job.plan import Plan
from airflow_openai_batch.report.report import Report
from airflow_openai_batch.storage.location import resolve_plain

if TYPE_CHECKING:
    from bench.million.process_watch import Look

STEPS = {
    "split": "split",
    "upload": "upload",
    "create": "create",
    "wait": "wait and leftovers",
    "resend_leftovers": "wait and leftovers",
    "download": "landing",
    "shard": "upload, create and landing",
    "publish": "report",
}
"""The steps of a job by the tasks of the DAG."""
SERVER_ONLY = "server alone"
AIRFLOW_ONLY = "Airflow alone"


@dataclass(frozen=True, slots=True)
class StepTime:
    """How long a step took."""

    wall_s: float
    """While at least one process was at it."""
    worker_s: float
    """Added up over all processes at it, their start and end included."""


def read_times(
    looks: Sequence[Look], tasks: Mapping[str, str], in_hand: Sequence[tuple[float, float]]
) -> dict[str, StepTime]:
    """The time of each step, of the server with all workers idle, and of Airflow with nothing under way.

    :param tasks: task ids by the ids of their instances.
    :param in_hand: from when till when the server had a batch, for each batch.
    """
    wall_s: Counter[str] = Counter()
    worker_s: Counter[str] = Counter()
    for look in looks:
        steps = [STEPS.get(tasks.get(each, "").rpartition(".")[2], "other") for each in look.tasks]
        for step in steps:
            worker_s[step] += look.took_s
        idle = SERVER_ONLY if any(begun <= look.at < ended for begun, ended in in_hand) else AIRFLOW_ONLY
        for step in set(steps) or {idle}:
            wall_s[step] += look.took_s
    order = (*dict.fromkeys(STEPS.values()), "other", SERVER_ONLY, AIRFLOW_ONLY)
    return {step: StepTime(wall_s[step], worker_s[step]) for step in order if wall_s[step]}


def read_hand_times(job: Path) -> list[tuple[float, float]]:
    """From when till when the server had each of the batches, by the ledgers."""
    place = resolve_plain(f"file://{job}")
    plan = read_plan(place)
    assert isinstance(plan, Plan)
    ledger = JobLedger(place.child("state"), len(plan.shards))
    found = []
    for shard in plan.shards:
        began = 0.0
        for event in ledger.read(shard.shard):
            if event.kind == "created":
                began = event.at
            elif event.kind == "ended":
                found.append((began, event.times.get("completed_at", event.at)))
    return found


def find_faults(job: Path, books: Mapping[str, Any], requests: int) -> list[str]:
    """Where the job is not what it should be: a row for each request, each answered and paid once, nothing left."""
    report = Report.from_json((job / "report.json").read_bytes())
    found = {
        "rows that are ok": report.counts.good,
        "answers the server was asked for": books["billed"].get("batch", 0),
    }
    faults = [f"{name}: {count:,} of {requests:,}" for name, count in found.items() if count != requests]
    if left := len(books.get("files", ())):
        faults.append(f"files left on the server: {left}")
    return faults
