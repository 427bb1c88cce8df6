"""What an input would cost, by model, with prices of one's own where they are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_openai_batch.costs.estimate import Estimate, estimate_plan
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.prices import BATCH_SHARE

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan


class Price(NamedTuple):
    """US dollars per million tokens in real time."""

    input: float
    output: float


class ModelCost(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one model and endpoint. US dollars; None where a price or a bound is not known."""

    model: str
    endpoint: str
    requests: int
    shards: int
    input_tokens: int
    certainty: str
    """Of the input tokens: ``exact``, ``upper``, ``lower`` or ``mixed``."""
    output_tokens: int
    """Assumed, over all requests."""
    batch_usd: float | None
    standard_usd: float | None
    most_output_tokens: int | None
    most_batch_usd: float | None


def read_prices(texts: Iterable[str]) -> dict[str, Price]:
    """``gpt-6-luna=0.10:0.50``

    :raises ConfigError: for what does not look like that.
    """
    prices = {}
    for text in texts:
        model, _, numbers = text.rpartition("=")
        try:
            price = Price(*(float(number) for number in numbers.split(":")))
        except (TypeError, ValueError):
            price = Price(-1, -1)
        if not model or not min(price) >= 0:
            raise ConfigError(
                f"--model-price={text}: write MODEL=IN:OUT in US dollars per million tokens, "
                "for instance gpt-6-luna=0.10:0.50."
            )
        prices[model] = price
    return prices


def estimate_models(
    plan: Plan, prices: Mapping[str, Price], *, output_tokens: float | None = None
) -> list[ModelCost]:
    """One for each model and endpoint, in the order of the input."""
    names = dict.fromkeys((shard.model, shard.endpoint) for shard in plan.shards)
    return [_estimate(plan, *name, prices.get(name[0]), output_tokens or 0.0) for name in names]


def _estimate(plan: Plan, model: str, endpoint: str, price: Price | None, output_tokens: float) -> ModelCost:
    shards = tuple(shard for shard in plan.shards if (shard.model, shard.endpoint) == (model, endpoint))
    found = estimate_plan(
        msgspec.structs.replace(plan, shards=shards), output_tokens_per_request=output_tokens
    )
    cost = ModelCost(
        model=model,
        endpoint=endpoint,
        requests=found.requests,
        shards=len(shards),
        input_tokens=found.input_tokens,
        certainty=found.certainty,
        output_tokens=found.output_tokens,
        batch_usd=found.cost_usd,
        standard_usd=found.standard_cost_usd,
        most_output_tokens=found.most_output_tokens,
        most_batch_usd=found.most_cost_usd,
    )
    return cost if price is None else _price_anew(cost, found, price)


def _price_anew(cost: ModelCost, found: Estimate, price: Price) -> ModelCost:
    def add(output_tokens: int) -> float:
        return (found.input_tokens * price.input + output_tokens * price.output) / 1_000_000

    most = found.most_output_tokens
    return msgspec.structs.replace(
        cost,
        batch_usd=add(found.output_tokens) * BATCH_SHARE,
        standard_usd=add(found.output_tokens),
        most_batch_usd=None if most is None else add(most) * BATCH_SHARE,
    )
