"""The report of a run: from the plan and one small summary per shard, never from the rows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from airflow_openai_batch.costs.estimate import Estimate, estimate_plan
from airflow_openai_batch.openai_api.batch_durations import UsualDuration, UsualDurations
from airflow_openai_batch.openai_api.model_ends import day_of, describe_ends
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.results.landing_summary import (
    EXAMPLES_PER_PROBLEM,
    Example,
    LandingSummary,
    Problem,
    ShardSummary,
    Spending,
    Tokens,
)
from airflow_openai_batch.results.lanes import HurriedSend, LaneSpending, merge_lanes
from airflow_openai_batch.results.media_files import MediaCount
from airflow_openai_batch.results.phases import Spread, spread_phases
from airflow_openai_batch.wording import name_some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.report.row_check import RowCheck

_Key = TypeVar("_Key", str, int)

HURRIED_LISTED = 50
NOTHING_USUAL = UsualDurations()
REPORT_SCHEMA_VERSION = 1
"""Raised when an older reader could misread ``report.json``."""


class ShardLine(msgspec.Struct, frozen=True, kw_only=True):
    """One shard in the report."""

    shard: int
    state: str
    model: str
    endpoint: str
    requests: int
    rows: dict[str, int] = {}
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    sends: int = 0
    batch_ids: tuple[str, ...] = ()
    phases_s: dict[str, float] = {}


class ReportCounts(msgspec.Struct, frozen=True, kw_only=True):
    """``positions == requests + rejected``, ``requests == sum(rows) + unfinished``."""

    positions: int
    requests: int
    rows: dict[str, int]
    """Rows by status."""
    good: int
    bad: int
    unfinished: int
    """Requests of shards that are not done."""
    rejected: int
    blank_lines: int
    bad_fraction: float
    """``bad / (good + bad)``; what ``max_failed_fraction`` is held against."""


class ReportCost(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars. None where no price is known."""

    estimated_usd: float | None
    """Before anything was sent; of the input alone unless ``estimated_output_tokens``."""
    estimated_output_tokens: int
    actual_usd: float | None
    """All answers that were paid for, also those that a later send replaced."""
    standard_usd: float | None
    """The same at the price of real time."""
    saving_usd: float | None
    replaced_usd: float
    """Of answers that were paid for and then replaced."""
    unfinished_usd: float = 0.0
    """Paid so far for shards that are not done; in none of the other amounts."""
    unpriced_answers: int
    unpriced_models: tuple[str, ...]


class HurriedLine(HurriedSend, frozen=True, kw_only=True):
    """One send that a deadline has made."""

    shard: int


class SampleLine(msgspec.Struct, frozen=True, kw_only=True):
    """Of a run that sent only the first requests of the plan, which have landed."""

    requests: int
    """That the sample was of."""
    answers: int
    """That the whole job has so far."""
    outlook: str
    """What all would cost."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``report.json``."""

    schema_version: int = REPORT_SCHEMA_VERSION
    job: str
    """URI of the job directory."""
    fingerprint: str
    generation: int
    created_at: float
    """Unix seconds."""
    started_at: float
    """When the plan was written, Unix seconds."""
    complete: bool
    """Whether every shard is done."""
    counts: ReportCounts
    problems: tuple[Problem, ...]
    tokens: Tokens
    planned_input_tokens: int
    cost: ReportCost
    attempts: dict[int, int]
    lanes: dict[str, LaneSpending] = {}
    """Which way the answers came, those that were replaced too; of shards that are done."""
    usual: tuple[UsualDuration, ...] = ()
    """How long batches like those of the plan take in this account; empty where too few are known."""
    hurried: tuple[HurriedLine, ...] = ()
    """Sends that a deadline has made, the first of them."""
    phases: dict[str, Spread]
    sources: tuple[str, ...]
    shards: tuple[ShardLine, ...]
    notes: tuple[str, ...]
    sample: SampleLine | None = None
    media: MediaCount = MediaCount()
    """Files in ``media/``, of shards that are done."""

    def name_problems(self) -> str:
        """The most frequent codes: ``12 truncated, 3 refusal``."""
        return ", ".join(f"{problem.count:,} {problem.code}" for problem in self.problems[:5])

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @classmethod
    def from_json(cls, data: bytes) -> Report:
        """:raises msgspec.DecodeError: if the bytes are no report."""
        return msgspec.json.decode(data, type=cls)


def build_report(
    plan: Plan,
    summaries: Iterable[ShardSummary],
    *,
    job_uri: str,
    created_at: float,
    accounts: RowCheck | None = None,
    output_tokens_per_request: float = 0.0,
    notes: Sequence[str] = (),
    unfinished_usd: float = 0.0,
    sample: SampleLine | None = None,
    own_prices: OwnPrices = NO_OWN_PRICES,
    usual: UsualDurations = NOTHING_USUAL,
) -> Report:
    """Add up what the shards found. Free of I/O.

    :param summaries: one per shard; a shard without one counts as not begun.
    :param accounts: what `check_accounts` counted; a note says so.
    :param output_tokens_per_request: the mean that was assumed for the estimate.
    :param unfinished_usd: paid so far for shards that are not done.
    :param sample: where the run sent a sample, and that has landed.
    :param own_prices: of the connection, for the estimate.
    :param usual: how long batches take in the account.
    """
    by_shard = {summary.shard: summary for summary in summaries}
    known = [
        by_shard.get(shard.shard, ShardSummary(shard=shard.shard, state="not begun")) for shard in plan.shards
    ]
    landed = [summary.landed for summary in known if summary.landed is not None]
    counts = _count(plan, landed)
    spending = sum((item.spending for item in landed), Spending())
    estimate = estimate_plan(plan, output_tokens_per_request=output_tokens_per_request, own_prices=own_prices)
    return Report(
        job=job_uri,
        fingerprint=plan.fingerprint,
        generation=plan.generation,
        created_at=created_at,
        started_at=plan.created_at,
        complete=counts.unfinished == 0,
        counts=counts,
        problems=merge_problems(problem for item in landed for problem in item.problems),
        tokens=spending.tokens,
        planned_input_tokens=sum(shard.expected_tokens for shard in plan.shards),
        cost=_add_cost(estimate, landed, spending, unfinished_usd),
        attempts=_add_counts(item.attempts for item in landed),
        lanes=merge_lanes(item.lanes for item in landed),
        usual=_find_usual(plan, usual),
        hurried=tuple(itertools.islice(_list_hurried(known), HURRIED_LISTED)),
        phases=spread_phases(summary.phases_s for summary in known),
        sources=tuple(source.uri for source in plan.sources),
        shards=tuple(_to_line(plan, index, summary) for index, summary in enumerate(known)),
        notes=(
            *notes,
            *_find_notes(plan, landed, known, accounts, sample),
            *describe_ends(plan.model_ends, day_of(created_at)),
        ),
        sample=sample,
        media=sum((item.media for item in landed), MediaCount()),
    )


def asset_extra(report: Report) -> dict[str, Any]:
    """What the event of the output directory's asset carries: counts and cost, small and flat."""
    return {
        "job": report.job,
        "fingerprint": report.fingerprint,
        "generation": report.generation,
        "requests": report.counts.requests,
        "rows": dict(report.counts.rows),
        "rejected": report.counts.rejected,
        "input_tokens": report.tokens.input,
        "output_tokens": report.tokens.output,
        "cost_usd": report.cost.actual_usd,
        "saving_usd": report.cost.saving_usd,
    }


def merge_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems of all shards by code, most frequent first, with the first examples."""
    counts: dict[str, int] = {}
    examples: dict[str, list[Example]] = {}
    for problem in problems:
        counts[problem.code] = counts.get(problem.code, 0) + problem.count
        kept = examples.setdefault(problem.code, [])
        kept.extend(problem.examples[: EXAMPLES_PER_PROBLEM - len(kept)])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Problem(code=code, count=count, examples=tuple(examples[code])) for code, count in ordered)


def _count(plan: Plan, landed: Sequence[LandingSummary]) -> ReportCounts:
    rows = _add_counts(item.rows for item in landed)
    total = sum(rows.values())
    good = rows.get("ok", 0)
    return ReportCounts(
        positions=plan.counts.positions,
        requests=plan.counts.requests,
        rows=rows,
        good=good,
        bad=total - good,
        unfinished=plan.counts.requests - total,
        rejected=plan.counts.rejected,
        blank_lines=plan.counts.blank,
        bad_fraction=(total - good) / total if total else 0.0,
    )


def _add_cost(
    estimate: Estimate,
    landed: Sequence[LandingSummary],
    spending: Spending,
    unfinished_usd: float,
) -> ReportCost:
    replaced = sum((item.replaced for item in landed), Spending())
    paid = spending + replaced
    known = paid.answers == 0 or paid.unpriced < paid.answers
    return ReportCost(
        estimated_usd=estimate.cost_usd,
        estimated_output_tokens=estimate.output_tokens,
        actual_usd=paid.cost_usd if known else None,
        standard_usd=paid.standard_cost_usd if known else None,
        saving_usd=paid.standard_cost_usd - paid.cost_usd if known else None,
        replaced_usd=replaced.cost_usd,
        unfinished_usd=unfinished_usd,
        unpriced_answers=paid.unpriced,
        unpriced_models=tuple(sorted({model for item in landed for model in item.unpriced_models})[:10]),
    )


def _add_counts(counts: Iterable[dict[_Key, int]]) -> dict[_Key, int]:
    total: dict[_Key, int] = {}
    for count in counts:
        for key, number in count.items():
            total[key] = total.get(key, 0) + number
    return dict(sorted(total.items()))


def _to_line(plan: Plan, index: int, summary: ShardSummary) -> ShardLine:
    shard = plan.shards[index]
    landed = summary.landed
    spending = landed.spending + landed.replaced if landed else Spending()
    return ShardLine(
        shard=shard.shard,
        state=summary.state,
        model=shard.model,
        endpoint=shard.endpoint,
        requests=shard.requests,
        rows=landed.rows if landed else {},
        input_tokens=spending.tokens.input,
        output_tokens=spending.tokens.output,
        cost_usd=spending.cost_usd if landed and spending.unpriced < max(1, spending.answers) else None,
        sends=summary.sends if landed else 0,
        batch_ids=summary.batch_ids,
        phases_s=summary.phases_s,
    )


def _find_usual(plan: Plan, usual: UsualDurations) -> tuple[UsualDuration, ...]:
    found = {usual.find(shard.model, shard.requests) for shard in plan.shards}
    return tuple(sorted(filter(None, found), key=lambda each: (each.model, each.up_to)))


def _list_hurried(known: Sequence[ShardSummary]) -> Iterable[HurriedLine]:
    for summary in known:
        for send in summary.hurried:
            yield HurriedLine(shard=summary.shard, **msgspec.structs.asdict(send))


def _find_notes(
    plan: Plan,
    landed: Sequence[LandingSummary],
    known: Sequence[ShardSummary],
    accounts: RowCheck | None,
    sample: SampleLine | None,
) -> Iterable[str]:
    """What a reader of the numbers should know."""
    if accounts is not None:
        yield (
            f"Every one of the {accounts.positions:,} positions of the input was found in exactly one place: "
            f"{accounts.rows:,} rows, {accounts.rejected:,} rejected lines, {accounts.unfinished:,} "
            "requests of unfinished shards."
        )
    unfinished = [summary.shard for summary in known if summary.landed is None]
    if unfinished and sample is None:
        names = name_some(unfinished)
        yield f"Shards that are not done: {names}. Clear their tasks; nothing that was paid is sent again."
    kinds = {shard.tokens for shard in plan.shards}
    if "lower" in kinds:
        yield "The planned input tokens are a lower bound: some requests name content that only OpenAI has."
    if "upper" in kinds:
        yield "The planned input tokens are an upper bound: not everything could be counted exactly."
    yield from _find_landing_notes(landed)


def _find_landing_notes(landed: Sequence[LandingSummary]) -> Iterable[str]:
    if unpriced := sum(item.spending.unpriced + item.replaced.unpriced for item in landed):
        models = ", ".join(sorted({model for item in landed for model in item.unpriced_models})[:10])
        yield (
            f"{unpriced:,} answers are not in the costs: price unknown, or no usage was sent ({models}). A price can "
            'be said as "prices" in the connection\'s extra.'
        )
    if replaced := sum(item.replaced.answers for item in landed):
        yield f"{replaced:,} answers were paid for and then replaced by those of a later send."
    if strays := sum(item.strays for item in landed):
        yield f"{strays:,} lines in raw/ belong to no request of their shard; they are in no row."
    if duplicates := sum(item.duplicates for item in landed):
        yield f"{duplicates:,} lines in raw/ stood there twice; a good answer won, else the first."
    if unchecked := sum(item.unchecked for item in landed):
        yield f"{unchecked:,} answers could not be checked against their request's schema, which is unusable."
    if account := sum(item.account_errors for item in landed):
        yield f"{account:,} requests were refused for the account (key, rights, quota or billing limit)."
