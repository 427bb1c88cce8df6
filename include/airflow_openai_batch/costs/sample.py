"""A sample: the first requests of a plan, sent alone to see what the rest would cost."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from airflow_openai_batch.costs.estimate import Name, estimate_plan
from airflow_openai_batch.costs.spending import measure_means
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.openai_api.prices import estimate_cost

if TYPE_CHECKING:
    from airflow_openai_batch.costs.spending import Spent
    from airflow_openai_batch.job.plan import Plan, Shard

Lane = Literal["batch", "flex", "realtime"]
"""As `sending.policy` has it."""


def _always(requests: int) -> bool:
    return True


def _never(requests: int) -> bool:
    return False


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
    """Of the whole job: what was paid, and the rest at the price of the lane that it goes."""
    full_price_requests: int = 0
    """Of the rest, those that go out in real time."""
    unmeasured_models: tuple[str, ...] = ()
    """Models of which nothing was answered, or whose price is not known; not in the sums."""

    def __str__(self) -> str:
        without = f", without {', '.join(self.unmeasured_models)}" if self.unmeasured_models else ""
        lane = ""
        if self.full_price_requests:
            lane = f", {self.full_price_requests:,} of the rest in real time at the full price"
        return (
            f"By {self.answers:,} answers, which cost ${self.spent_usd:,.4f}, all {self.requests:,} requests would "
            f"cost about ${self.cost_usd:,.4f}: {self.input_tokens:,} input and {self.output_tokens:,} output "
            f"tokens{lane}{without}."
        )


def extrapolate(
    plan: Plan,
    spent: Spent,
    *,
    choose_lane: Callable[[Shard, int], Lane] = lambda shard, requests: "batch",
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> Extrapolation | None:
    """From what was answered to the cost of the whole job; None where nothing was answered.

    What was paid stays as it is. Of the rest the input counts as planned where it was counted exactly, else as
    measured per answer, and the output as measured; it costs what its lane does.

    :param choose_lane: how a send of so many requests of a shard goes out.
    :param own_prices: of the connection.
    """
    means = measure_means(plan, plan.shards, spent)
    if not means:
        return None
    measured = _replace_doubtful_input(plan, spent)
    known = {
        shard.shard: shard.requests
        for shard in measured.shards
        if (shard.model, shard.endpoint) in means
        and estimate_cost(shard.model, shard.endpoint, 1, 1, own_prices=own_prices) is not None
    }
    estimate = functools.partial(estimate_plan, measured, means=means, own_prices=own_prices)
    whole = estimate(parts=known)
    cost_usd = sum(paid.cost_usd for shard, paid in spent.paid.items() if shard in known)
    rest: dict[tuple[Lane, Name], dict[int, int]] = {}
    for number, requests in known.items():
        shard = measured.shards[number]
        left = requests - (spent.paid[number].answers if number in spent.paid else 0)
        if left > 0:
            name = (shard.model, shard.endpoint)
            rest.setdefault((choose_lane(shard, left), name), {})[number] = left
    surcharges = _find_surcharges(measured, spent, own_prices)
    full_price = 0
    for (lane, name), parts in rest.items():
        is_full = lane == "realtime"
        cost = estimate(parts=parts, in_realtime=_always if is_full else _never).expected_cost_usd or 0.0
        cost_usd += cost * (surcharges.get(name, 1.0) if lane == "flex" else 1.0)
        full_price += sum(parts.values()) if is_full else 0
    missing = {shard.model for shard in plan.shards if shard.shard not in known}
    return Extrapolation(
        answers=spent.answers,
        spent_usd=spent.paid_usd,
        requests=plan.counts.requests,
        input_tokens=whole.input_tokens,
        output_tokens=whole.expected_output_tokens or 0,
        cost_usd=cost_usd,
        full_price_requests=full_price,
        unmeasured_models=tuple(sorted(missing)),
    )


def _find_surcharges(plan: Plan, spent: Spent, own_prices: OwnPrices) -> dict[Name, float]:
    """By model and endpoint, how many times the price of a batch was paid, 1 to 2: where flex had no room for some of
    the answers, it will have none for some of the rest."""
    paid_usd: dict[Name, float] = defaultdict(float)
    batch_usd: dict[Name, float] = defaultdict(float)
    for number, paid in spent.paid.items():
        if number < len(plan.shards):
            shard = plan.shards[number]
            tokens = (paid.input_tokens, paid.output_tokens)
            cost = estimate_cost(
                shard.model, shard.endpoint, *tokens, requests=max(1, paid.answers), own_prices=own_prices
            )
            name = (shard.model, shard.endpoint)
            paid_usd[name] += paid.cost_usd
            batch_usd[name] += 0.0 if cost is None else cost[0]
    return {name: min(max(paid_usd[name] / usd, 1.0), 2.0) for name, usd in batch_usd.items() if usd > 0}


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
