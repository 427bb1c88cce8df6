"""What a split says of costs: of all there is to send or of a sample, and of what is left of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.costs.budget import check_estimate, describe_unbounded
from airflow_openai_batch.costs.estimate import Estimate, estimate_plan
from airflow_openai_batch.costs.sample import choose_sample, extrapolate, make_refs
from airflow_openai_batch.costs.spending import Spent, find_open_requests, measure_means, read_spending
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices, describe_price_setting
from airflow_openai_batch.server_words import clean_words
from airflow_openai_batch.wording import BOUND_WORDS, number_of

if TYPE_CHECKING:
    from airflow_openai_batch.costs.sample import Lane
    from airflow_openai_batch.job.plan import Plan, Shard
    from airflow_openai_batch.storage.location import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The estimates of a split."""

    plan: Plan
    where: str
    sample_requests: int | None
    wanted: dict[int, int]
    """Requests to send, by shard."""
    estimate: Estimate
    """Of what is wanted."""
    left: Estimate
    """Of what is wanted and has no answer yet."""
    spent: Spent
    extrapolation: str
    """What the whole job would cost by what was measured; empty where nothing was."""
    own_prices: OwnPrices = field(default_factory=OwnPrices)

    @property
    def refs(self) -> list[dict[str, Any]]:
        """One per shard that is wanted; with ``first`` where only its first requests are."""
        return make_refs(self.plan, self.where, self.wanted)

    def check(self, max_cost_usd: float | None) -> None:
        """:raises BudgetError: where what is left does not fit into the budget, or its cost cannot be known."""
        if max_cost_usd is not None:
            check_estimate(
                self.left,
                max_cost_usd,
                spent_usd=self.spent.paid_usd,
                where=self.where,
                own_prices=self.own_prices,
            )

    def to_xcom(self) -> dict[str, Any]:
        """Counts of the plan, and the estimate of what is wanted: of the sample, where ``sample_requests`` is set."""
        counts = self.plan.counts
        return {
            **msgspec.to_builtins(self.estimate),
            # Databases refuse what a request may have for a model.
            "unpriced_models": [clean_words(model) for model in self.estimate.unpriced_models],
            "unbounded": [
                {**msgspec.to_builtins(each), "model": clean_words(each.model)}
                for each in self.estimate.unbounded
            ],
            "requests": counts.requests,
            "rejected": counts.rejected,
            "shards": len(self.plan.shards),
            "bytes": sum(shard.bytes for shard in self.plan.shards),
            "sample_requests": None if self.sample_requests is None else self.estimate.requests,
            "spent_usd": self.spent.paid_usd,
            "left_requests": self.left.requests,
            "left_most_cost_usd": self.left.most_cost_usd,
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        counts, estimate = self.plan.counts, self.estimate
        yield (
            f"{self.where}/plan.json: {number_of(counts.requests, 'request')} in "
            f"{number_of(len(self.plan.shards), 'shard')}, {number_of(counts.rejected, 'line')} rejected, "
            f"{counts.blank:,} blank."
        )
        if self.sample_requests is not None:
            yield (
                f"A sample: only the first {number_of(estimate.requests, 'request')} will be sent, from "
                f"{number_of(len(self.wanted), 'shard')}; "
                "what follows is of these. A later run of this job without sample_requests uses their answers."
            )
        yield f"Input tokens: {BOUND_WORDS.get(estimate.certainty, 'about ')}{estimate.input_tokens:,}."
        if estimate.cost_usd is not None and estimate.standard_cost_usd is not None:
            yield (
                f"Their cost: ${estimate.cost_usd:,.4f} as batch, ${estimate.standard_cost_usd:,.4f} in real time. "
                "Output comes on top."
            )
        yield from self._output_lines()
        if estimate.unpriced_models:
            models = estimate.unpriced_models
            yield f"No price is known for {', '.join(models)}. {describe_price_setting(models[0], self.own_prices)}"
        if self.spent.paid:
            yield (
                f"Spent so far by this job: ${self.spent.paid_usd:,.4f}; {self.left.requests:,} requests are still "
                "to be answered."
            )
            yield self.extrapolation

    def _output_lines(self) -> Iterator[str]:
        estimate = self.estimate
        if estimate.most_cost_usd is not None and estimate.most_output_tokens is not None:
            yield (
                f"With all outputs as long as they may be, {estimate.most_output_tokens:,} tokens: at most "
                f"${estimate.most_cost_usd:,.4f}."
            )
        yield from describe_unbounded(estimate.unbounded)


def forecast_costs(
    plan: Plan,
    output: Location,
    *,
    sample_requests: int | None = None,
    reopening: Mapping[int, int] | None = None,
    in_realtime: Callable[[int], bool] = lambda requests: False,
    choose_lane: Callable[[Shard, int], Lane] = lambda shard, requests: "batch",
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> Forecast:
    """Estimate a plan. One listing, or two where something was paid already, and a small file for each shard that a
    repair has reopened.

    :param sample_requests: send only the first so many requests of the plan.
    :param reopening: requests that a repair is about to ask again, by shard.
    :param in_realtime: whether so many requests of a shard may come to the full price, for what it costs at most.
    :param choose_lane: how so many requests of a shard go out, for what it is going to cost.
    :param own_prices: of the connection.
    """
    spent = read_spending(output)
    means = measure_means(plan, plan.shards, spent)
    wanted = choose_sample(plan, sample_requests)
    open_requests = {
        **(find_open_requests(output, spent, wanted) if spent.paid else wanted),
        **(reopening or {}),
    }
    whole = extrapolate(plan, spent, choose_lane=choose_lane, own_prices=own_prices)
    estimate_parts = functools.partial(
        estimate_plan, plan, means=means, in_realtime=in_realtime, own_prices=own_prices
    )
    return Forecast(
        plan=plan,
        where=output.uri,
        sample_requests=sample_requests,
        wanted=wanted,
        estimate=estimate_parts(parts=wanted),
        left=estimate_parts(parts=open_requests),
        spent=spent,
        extrapolation=str(whole) if whole else "",
        own_prices=own_prices,
    )
