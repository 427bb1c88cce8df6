"""What a plan will cost, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.core.pricing import estimate_cost

if TYPE_CHECKING:
    from airflow_openai_batch.core.plan import Plan


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a plan; of its input alone, unless a number of output tokens was assumed."""

    input_tokens: int
    output_tokens: int = 0
    """Assumed, over all requests."""
    cost_usd: float | None
    """At the batch price; None where no model's price is known."""
    standard_cost_usd: float | None
    unpriced_models: tuple[str, ...] = ()
    """Models whose price is not known, and which are not in the sums."""
    certainty: str = "exact"
    """``exact``, ``upper`` or ``lower``: of the input tokens; ``mixed`` where shards differ in direction."""


def estimate_plan(plan: Plan, *, output_tokens_per_request: float = 0.0) -> Estimate:
    """Add up the shards of a plan. Free of I/O.

    :param output_tokens_per_request: a mean, measured or assumed.
    """
    cost = standard = 0.0
    priced = False
    unpriced: set[str] = set()
    output_tokens = 0
    for shard in plan.shards:
        output = round(shard.requests * output_tokens_per_request)
        output_tokens += output
        found = estimate_cost(
            shard.model, shard.endpoint, shard.expected_tokens, output, requests=shard.requests
        )
        if found is None:
            unpriced.add(shard.model)
            continue
        priced = True
        cost += found[0]
        standard += found[1]
    kinds = {shard.tokens for shard in plan.shards} - {"exact"}
    return Estimate(
        input_tokens=sum(shard.expected_tokens for shard in plan.shards),
        output_tokens=output_tokens,
        cost_usd=cost if priced else None,
        standard_cost_usd=standard if priced else None,
        unpriced_models=tuple(sorted(unpriced)),
        certainty=kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "exact",
    )
