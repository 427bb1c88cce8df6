"""A sample: the first requests of a plan, sent alone to see what the rest would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.costs.estimate import estimate_plan
from airflow_openai_batch.costs.spending import measure_means
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.openai_api.prices import estimate_cost

if TYPE_CHECKING:
    from airflow_openai_batch.costs.spending import Spent
    from airflow_openai_batch.job.plan import Plan


def choose_sample(plan: Plan, requests: int | None) -> dict[int, int]:
    """By shard, how many of its requests are wanted: all, or the first so many of the plan.

    A later, larger sample wants what a smaller one wanted, and more.
    """
    wanted: dict[int, int] = {}
    left = plan.counts.requests if requests is None else requests
    for shard in plan.shards:
        if left <= 0:
            break
        wanted[shard.shard] = min(left, shard.requests)
        left -= shard.requests
    return wanted


def make_refs(plan: Plan, where: str, wanted: Mapping[int, int]) -> list[dict[str, Any]]:
    """One reference per shard that is wanted; with ``first`` where only its first requests are.

    :param where: URI of the job directory.
    :param wanted: as `choose_sample` returns it.
    """
    return [
        {"job": where, "shard": number}
        | ({} if requests == plan.shards[number].requests else {"first": requests})
        for number, requests in wanted.items()
    ]


class Extrapolation(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole job would cost if its requests are like those that were answered."""

    answers: int
    """That were measured."""
    spent_usd: float
    """For these."""
    requests: int
    """Of the whole job."""
    input_tokens: int
    output_tokens: int
    cost_usd: float
    """Of the whole job, the answered part included."""
    unmeasured_models: tuple[str, ...] = ()
    """Models of which nothing was answered, or whose price is not known; not in the sums."""

    def __str__(self) -> str:
        without = f", without {', '.join(self.unmeasured_models)}" if self.unmeasured_models else ""
        return (
            f"By {self.answers:,} answers, which cost ${self.spent_usd:,.4f}, all {self.requests:,} requests would "
            f"cost about ${self.cost_usd:,.4f}: {self.input_tokens:,} input and {self.output_tokens:,} output "
            f"tokens{without}."
        )


def extrapolate(
    plan: Plan,
    spent: Spent,
    *,
    in_realtime: Callable[[int], bool] = lambda requests: False,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> Extrapolation | None:
    """From the tokens of what was answered to the cost of the whole job; None where nothing was answered.

    Input as planned where it was counted exactly, else as measured per answer; output as measured per answer.

    :param in_realtime: whether so many requests of a shard go out in real time.
    :param own_prices: of the connection.
    """
    means = measure_means(plan, spent)
    if not means:
        return None
    measured = _replace_doubtful_input(plan, spent)
    known = {
        shard.shard: shard.requests
        for shard in measured.shards
        if (shard.model, shard.endpoint) in means
        and estimate_cost(shard.model, shard.endpoint, 1, 1, own_prices=own_prices) is not None
    }
    estimate = estimate_plan(
        measured, parts=known, means=means, in_realtime=in_realtime, own_prices=own_prices
    )
    missing = {shard.model for shard in plan.shards if shard.shard not in known}
    return Extrapolation(
        answers=spent.answers,
        spent_usd=spent.paid_usd,
        requests=plan.counts.requests,
        input_tokens=estimate.input_tokens,
        output_tokens=estimate.expected_output_tokens or 0,
        cost_usd=estimate.expected_cost_usd or 0.0,
        unmeasured_models=tuple(sorted(missing)),
    )


def _replace_doubtful_input(plan: Plan, spent: Spent) -> Plan:
    """The plan with the input tokens per answer that were measured, where a shard's are a bound."""
    tokens: Counter[tuple[str, str]] = Counter()
    answers: Counter[tuple[str, str]] = Counter()
    for number, paid in spent.paid.items():
        if number < len(plan.shards):
            shard = plan.shards[number]
            tokens[shard.model, shard.endpoint] += paid.input_tokens
            answers[shard.model, shard.endpoint] += paid.answers
    shards = []
    for shard in plan.shards:
        name = (shard.model, shard.endpoint)
        if shard.tokens == "exact" or not answers[name]:
            shards.append(shard)
            continue
        measured = round(shard.requests * tokens[name] / answers[name])
        shards.append(msgspec.structs.replace(shard, estimated_tokens=measured))
    return msgspec.structs.replace(plan, shards=tuple(shards))
