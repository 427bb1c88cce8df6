"""What must hold when a run has ended: read from its directory, from Airflow, and from the emulator's books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.job.directory import read_plan
from airflow_openai_batch.job.plan import job_key
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.testing.books import body_key

if TYPE_CHECKING:
    from airflow_openai_batch.testing.control_client import ControlClient
    from chaos.scenario import Scenario
    from demo.api import AirflowApi, Run
    from fixtures.job import Job

MAX_SENDS = 40
MAX_ATTEMPTS = 3
LOST_IN_KILLS = 2
"""A worker that is killed takes with it the real-time answers that were in the air or not yet flushed."""
IDLE = frozenset({"success", "failed", "skipped", "upstream_failed", "removed", "none"})
OVER = frozenset({"completed", "failed", "expired", "cancelled"})


def find_problems(
    scenario: Scenario,
    job: Job,
    runs: Sequence[Run],
    given_up: Sequence[Run],
    airflow: AirflowApi,
    emulator: ControlClient,
) -> Iterator[str]:
    """One sentence for each thing that is not as promised; none where all is well.

    :param runs: of the job, which have to have ended well.
    :param given_up: runs of the job that somebody has left behind for another.
    """
    states = {run.run_id: airflow.state(run) for run in runs}
    for run_id, state in states.items():
        if state != "success":
            yield f"{run_id} ended {state}"
    for run in (*runs, *given_up):
        # What the scheduler was about to queue when somebody failed the run stays so for ever, and is never begun.
        idle = IDLE | {"scheduled"} if run in given_up else IDLE
        busy = {place: state for place, state in airflow.states(run).items() if state not in idle}
        if busy:
            yield f"{run.run_id}: tasks are left unfinished: {busy}"
    yield from _find_report_problems(scenario, job)
    if (job.output / "results").exists():
        rows = job.rows()
        yield from _find_row_problems(scenario, rows)
        yield from _find_paid_problems(scenario, rows, job, emulator)
    yield from _find_batch_problems(job, emulator)
    if (twins := find_twins(job, emulator)) and not scenario.shows_late:
        yield f"second batches of a send though lists are up to date, by shard: {dict(twins)}"
    if set(states.values()) <= {"success", "skipped"}:
        yield from _find_left_files(job, emulator)


def _find_report_problems(scenario: Scenario, job: Job) -> Iterator[str]:
    if not (job.output / "report.json").exists():
        yield "there is no report.json"
        return
    report = job.report()
    if not report["complete"]:
        yield "report.json says the job is not complete"
    counted = sum(report["counts"]["rows"].values())
    if counted != scenario.requests or report["counts"]["unfinished"]:
        yield f"report.json counts {counted} rows of {scenario.requests} requests: {report['counts']}"


def _find_row_problems(scenario: Scenario, rows: list[dict[str, Any]]) -> Iterator[str]:
    positions = [row["position"] for row in rows]
    if positions != list(range(scenario.requests)):
        lost = sorted(set(range(scenario.requests)) - set(positions))
        twice = [position for position, times in Counter(positions).items() if times > 1]
        yield f"positions: {len(lost)} lost {lost[:5]}, {len(twice)} twice {twice[:5]}, in order or not"
        return
    for n, row in enumerate(rows):
        evil = scenario.line_evils.get(n)
        if row["custom_id"] != f"{scenario.name}/{n}":
            yield f"row {n} has the custom_id {row['custom_id']}"
        if (row["status"] == "ok") != scenario.expects_ok(n):
            yield f"row {n} ({evil}) is {row['status']} {row['error_code']} after {row['attempts']} attempts"
        if not 1 <= row["attempts"] <= MAX_ATTEMPTS:
            yield f"row {n} ({evil}) took {row['attempts']} attempts"


def _find_paid_problems(
    scenario: Scenario, rows: list[dict[str, Any]], job: Job, emulator: ControlClient
) -> Iterator[str]:
    """Every good answer is in a row, and was paid for once.

    Twice only where a lost reply made two batches, or a kill lost a real-time answer on its way.
    """
    paid_for, twins = _read_paid(job, emulator), find_twins(job, emulator)
    for row in rows:
        paid = paid_for[row["position"]]
        allowed = 1 + twins.get(row["position"] // scenario.per_shard, 0)
        allowed += LOST_IN_KILLS if row["sent_as"] in ("flex", "realtime") else 0
        if paid > allowed:
            yield f"row {row['position']}: {paid} good answers were paid for"
        elif (row["status"] == "ok") != bool(paid):
            yield f"row {row['position']} is {row['status']} with {paid} good answers paid for"


def count_paid_again(job: Job, emulator: ControlClient) -> Counter[str]:
    """Good answers beyond the first, by how the row's came: within what `_find_paid_problems` allows."""
    paid_for = _read_paid(job, emulator)
    again = Counter[str]()
    for row in job.rows():
        again[row["sent_as"] or "none"] += max(0, paid_for[row["position"]] - 1)
    return +again


def _read_paid(job: Job, emulator: ControlClient) -> list[int]:
    """Good answers that were paid for, by position."""
    good = emulator.good_by_body()
    lines = job.input.read_bytes().splitlines()
    return [good.get(body_key(msgspec.json.decode(line)["body"]), 0) for line in lines]


def find_twins(job: Job, emulator: ControlClient) -> Counter[int]:
    """By shard: batches beyond the first of a send. `_find_batch_problems` looks whether each was noticed."""
    books = emulator.books()
    twins: Counter[int] = Counter()
    for key, (shard, _) in job_keys(job).items():
        ran = [
            batch for batch in books["batches_by_job_key"].get(key, []) if books["batches"][batch] != "failed"
        ]
        twins[shard] += max(0, len(ran) - 1)
    return +twins


def _find_batch_problems(job: Job, emulator: ControlClient) -> Iterator[str]:
    """At most one kept batch per send, and nothing still running."""
    books = emulator.books()
    noticed = set(_read_duplicates(job.output))
    for key, (shard, send) in job_keys(job).items():
        batches = books["batches_by_job_key"].get(key, [])
        kept = [batch for batch in emulator.kept_batches(key) if batch not in noticed] if batches else []
        if len(kept) > 1:
            yield f"shard {shard}, send {send}: kept {kept} of {batches}"
        running = {batch: books["batches"][batch] for batch in batches if books["batches"][batch] not in OVER}
        if running:
            yield f"shard {shard}, send {send}: left running {running}"


def _read_duplicates(output: Path) -> Iterator[str]:
    """Batches that the ledger says are duplicates."""
    for path in (output / "state").glob("*/*-duplicate.json"):
        yield str(msgspec.json.decode(path.read_bytes())["batch_id"])


def _find_left_files(job: Job, emulator: ControlClient) -> Iterator[str]:
    """The job's files at OpenAI are deleted when it is done."""
    books, keys = emulator.books(), job_keys(job)
    names = {f"{key}.jsonl" for key in keys}
    for batch in (batch for key in keys for batch in books["batches_by_job_key"].get(key, [])):
        names |= {f"{batch}_output.jsonl", f"{batch}_error.jsonl"}
    left = [file["filename"] for file in books["files"] if file["filename"] in names]
    if left:
        yield f"{len(left)} files are left at OpenAI: {left[:4]}"


def job_keys(job: Job) -> dict[str, tuple[int, int]]:
    """The keys of all sends that a job may have made, with shard and send."""
    plan = read_plan(resolve_plain(f"file://{job.output}"))
    if plan is None:
        return {}
    return {
        job_key(job.uri, plan.fingerprint, plan.generation, shard.shard, send): (shard.shard, send)
        for shard in plan.shards
        for send in range(1, MAX_SENDS)
    }
