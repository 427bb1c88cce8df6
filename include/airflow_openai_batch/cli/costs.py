"""What an input would cost, by model, with prices of one's own where they are given."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.costs.estimate import estimate_plan
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.own_prices import OwnPrice, OwnPrices

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan


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


def read_prices(texts: Iterable[str]) -> OwnPrices:
    """``gpt-6-luna=0.10:0.50``

    :raises ConfigError: for what does not look like that.
    """
    prices = OwnPrices()
    for text in texts:
        model, _, numbers = text.rpartition("=")
        try:
            read, written = map(float, numbers.split(":"))
        except ValueError:
            read = written = -1.0
        if not model or not (0 <= read < math.inf and 0 <= written < math.inf):
            raise ConfigError(
                f"--model-price={text}: write MODEL=IN:OUT in US dollars per million tokens, "
                "for instance gpt-6-luna=0.10:0.50."
            )
        prices[model] = OwnPrice.of(read, written)
    return prices


def estimate_models(plan: Plan, prices: OwnPrices, *, output_tokens: float | None = None) -> list[ModelCost]:
    """One for each model and endpoint, in the order of the input."""
    names = dict.fromkeys((shard.model, shard.endpoint) for shard in plan.shards)
    return [_estimate(plan, *name, prices, output_tokens or 0.0) for name in names]


def _estimate(plan: Plan, model: str, endpoint: str, prices: OwnPrices, output_tokens: float) -> ModelCost:
    shards = tuple(shard for shard in plan.shards if (shard.model, shard.endpoint) == (model, endpoint))
    found = estimate_plan(
        msgspec.structs.replace(plan, shards=shards),
        output_tokens_per_request=output_tokens,
        own_prices=prices,
    )
    return ModelCost(
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
