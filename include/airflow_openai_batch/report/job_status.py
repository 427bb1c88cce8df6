"""Where a job stands, in the words of an alert: what is wrong, how much of it, what it costs to go on, what to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.costs.estimate import estimate_plan
from airflow_openai_batch.costs.spending import find_open_requests, measure_means, read_spending
from airflow_openai_batch.errors import TooLargeError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import JobLedger
from airflow_openai_batch.report.report import Report
from airflow_openai_batch.results.landing_summary import count_bad
from airflow_openai_batch.wording import describe_duration, name_some, number_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_openai_batch.costs.spending import Spent
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.storage.location import Location

MOST_LOOKED_AT = 500
"""Ledgers of unfinished shards that are looked into for the oldest batch."""
_REASON_CHARS = 300
_CLEAR = "Clear the failed tasks: what was answered is kept, and nothing is paid for twice."


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """Each a sentence or two, without anything from requests or answers."""

    what: str
    numbers: str
    cost: str
    to_do: str
    see: str
    """URI of what says more."""
    is_fine: bool = False
    """Nothing is wrong with this job, or late."""


def describe_failure(output: Location, *, since: float) -> JobStatus | None:
    """Of a job whose run has failed; None where there is no plan.

    Costs three files and two listings, whatever its size; without a report a small file for each reopened shard, too.

    :param since: Unix seconds; a report that is older is of an earlier run.
    :raises JobError: if plan or ledger cannot be read.
    """
    plan = directory.read_plan(output)
    if plan is None:
        return None
    spent = read_spending(output)
    report = _read_report(output, since)
    if report is None:
        return _describe_unreported(plan, output, spent)
    counts, parts = report.counts, {line.shard: count_bad(line.rows) for line in report.shards}
    open_shards = [line for line in report.shards if not line.rows]
    if open_shards:
        reason, _ = Counter(line.state for line in open_shards).most_common(1)[0]
        what = f"{_name_shards(plan, [line.shard for line in open_shards])}: {reason[:_REASON_CHARS]}."
        parts, to_do = {line.shard: line.requests for line in open_shards}, _CLEAR
    elif counts.bad:
        what = (
            f"{counts.bad:,} of {counts.good + counts.bad:,} rows are not ok ({report.name_problems()}). "
            "All shards have landed."
        )
        to_do = (
            "Raise max_failed_fraction if that is good enough and clear publish; or run it again with the same output "
            "and repair=true, which asks for these rows alone."
        )
    else:
        what = "Every request has a good row: what failed is another task."
        to_do = "Clear the failed tasks; nothing is sent again."
    return JobStatus(
        what=what,
        numbers=_sum_up(counts.good + counts.bad, counts.requests, counts.good, spent),
        cost=_price(plan, parts, spent),
        to_do=to_do,
        see=output.child(directory.REPORT_MARKDOWN).uri,
        is_fine=not open_shards and not counts.bad,
    )


def describe_waiting(output: Location, *, now: float) -> JobStatus | None:
    """Of a job that takes long; None where there is no plan. Reads a small file or two for each unfinished shard.

    :param now: Unix seconds.
    :raises JobError: if plan or ledger cannot be read.
    """
    plan = directory.read_plan(output)
    if plan is None:
        return None
    spent = read_spending(output)
    parts = find_open_requests(output, spent, {shard.shard: shard.requests for shard in plan.shards})
    if not parts:
        return JobStatus(
            what="All shards have landed: what takes long is another task.",
            numbers=_sum_up(spent.answers, plan.counts.requests, None, spent),
            cost="Going on costs nothing.",
            to_do="Look at the tasks that still run.",
            see=output.uri,
            is_fine=True,
        )
    what = f"{_name_shards(plan, list(parts))}."
    if (oldest := _find_oldest(output, list(parts)[:MOST_LOOKED_AT])) is not None:
        created_at, number, batch_id = oldest
        age = describe_duration(max(0.0, now - created_at))
        what += f" The oldest batch, {batch_id} of shard {number}, was sent {age} ago."
    else:
        what += (
            " None of them has a batch: they wait for room in the batch queue, for a worker, or have failed."
        )
    return JobStatus(
        what=what,
        numbers=_sum_up(spent.answers, plan.counts.requests, None, spent),
        cost=_price(plan, parts, spent),
        to_do=(
            "Waiting holds no worker, and OpenAI ends a batch after 24 h at most; what it left out is sent again. If "
            "that is too late, run the DAG again for the same output with finish_within_h and on_deadline=flex, or "
            "realtime: it keeps what is finished and asks for the rest one by one, at the same price where flex has "
            "room, in real time at the full price."
        ),
        see=output.uri,
    )


def _read_report(output: Location, since: float) -> Report | None:
    try:
        report = Report.from_json(output.child(directory.REPORT_JSON).read_within(directory.MOST_PLAN_BYTES))
    except (OSError, TooLargeError, msgspec.DecodeError):
        return None
    return report if report.created_at >= since else None


def _describe_unreported(plan: Plan, output: Location, spent: Spent) -> JobStatus:
    parts = find_open_requests(output, spent, {shard.shard: shard.requests for shard in plan.shards})
    what = f"{_name_shards(plan, list(parts))}." if parts else "All shards have landed."
    return JobStatus(
        what=f"{what} The run ended before its report was written.",
        numbers=_sum_up(spent.answers, plan.counts.requests, None, spent),
        cost=_price(plan, parts, spent),
        to_do=_CLEAR,
        see=output.uri,
    )


def _name_shards(plan: Plan, numbers: list[int]) -> str:
    be = "is" if len(numbers) == 1 else "are"
    return f"{len(numbers):,} of {number_of(len(plan.shards), 'shard')} {be} not done ({name_some(numbers)})"


def _sum_up(rows: int, requests: int, good: int | None, spent: Spent) -> str:
    ok = "" if good is None else f", {good:,} of them ok"
    return f"{rows:,} of {number_of(requests, 'request')} answered{ok}; ${spent.paid_usd:,.4f} paid by the job so far."


def _price(plan: Plan, parts: Mapping[int, int], spent: Spent) -> str:
    """Of so many requests of each shard."""
    estimate = estimate_plan(plan, parts=parts, means=measure_means(plan, plan.shards, spent))
    if not estimate.requests:
        return "Going on costs nothing."
    what = f"Asking for the {number_of(estimate.requests, 'request')} left costs"
    if estimate.most_cost_usd is None:
        return f"{what} an amount that is not known: no price, or no bound on the output."
    about = estimate.expected_cost_usd
    return f"{what} ${estimate.most_cost_usd:,.4f} at most" + (
        f", about ${about:,.4f} by what was measured." if about is not None else "."
    )


def _find_oldest(output: Location, shards: list[int]) -> tuple[float, int, str] | None:
    """Creation in Unix seconds, shard and id of the batch that was created first among those that have not landed."""
    ledger = JobLedger(output.child(directory.STATE), max(shards, default=-1) + 1)
    found = []
    for shard in shards:
        newest, made = ledger.read_last(shard), ledger.read_last(shard, "created")
        if newest and made and newest.kind in ("created", "duplicate", "cancelling", "ended"):
            found.append((made.at, shard, made.batch_id or ""))
    return min(found, default=None)
