"""``max_cost_usd``: nothing is sent that could bring the job above it.

Checked twice: on the estimate of all there is to send before anything is uploaded, and before each send on what was
paid so far. What is under way counts with what it may cost, so that shards sent side by side cannot exceed the budget
together. A budget that binds nothing would be a promise broken: where a cost cannot be known, nothing is sent either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_openai_batch.costs.estimate import estimate_send
from airflow_openai_batch.costs.spending import Spent, measure_means, read_spending, reserve
from airflow_openai_batch.errors import BudgetError
from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices, describe_price_setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_openai_batch.costs.estimate import Estimate, UnboundedOutputs
    from airflow_openai_batch.job.open_plan import OpenPlan
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.storage.location import Location

ROUNDING_USD = 1e-6
"""What a shard's numbers may be off, since they are written in millionths."""


def check_estimate(
    estimate: Estimate,
    max_cost_usd: float,
    *,
    spent_usd: float,
    where: str,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> None:
    """Whether what is left of a job, or of a sample of it, fits into the budget.

    :param estimate: of what is still to be answered.
    :param spent_usd: by this job so far.
    :param where: the job, for the message.
    :param own_prices: of the connection.
    :raises BudgetError: if it does not, or if that cannot be known.
    """
    if not estimate.requests:
        return
    if models := estimate.unpriced_models:
        setting = describe_price_setting(models[0], own_prices, by_second=estimate.unpriced_videos)
        raise BudgetError(
            f"{where}: max_cost_usd={max_cost_usd:g} cannot be kept, since no price is known for "
            f"{', '.join(models)}. Nothing was sent. {setting} Or leave max_cost_usd empty to send without a budget, "
            "or ask for a model whose price is known."
        )
    if estimate.most_cost_usd is None:
        raise BudgetError(
            f"{where}: max_cost_usd={max_cost_usd:g} cannot be kept. {describe_unknown(estimate.unbounded)} "
            "Nothing was sent. Set max_tokens (max_completion_tokens, max_output_tokens) in the requests, or measure "
            "a mean first: run with sample_requests=100 and without max_cost_usd."
        )
    total = spent_usd + estimate.most_cost_usd
    if total <= max_cost_usd + ROUNDING_USD:
        return
    notes = [*describe_unbounded(estimate.unbounded)]
    if estimate.expected_cost_usd is not None:
        notes.append(f"By what was measured so far they would cost ${estimate.expected_cost_usd:,.4f}.")
    raise BudgetError(
        f"{where}: may cost up to ${total:,.4f}, over max_cost_usd={max_cost_usd:g}: ${spent_usd:,.4f} spent so far, "
        f"and up to ${estimate.most_cost_usd:,.4f} for {estimate.requests:,} requests that are still to be answered. "
        + "".join(f"{note} " for note in notes)
        + "Nothing was sent. Raise max_cost_usd, lower max_tokens in the requests, choose a cheaper model, or send "
        "fewer first with sample_requests."
    )


def describe_unbounded(unbounded: Sequence[UnboundedOutputs]) -> Iterator[str]:
    """One sentence per model of which requests do not say how long their output may be."""
    for each in unbounded:
        has = "request for {} has" if each.requests == 1 else "requests for {} have"
        says = f"{each.requests:,} {has.format(each.model)} no bound on the output"
        if each.tokens_each is None:
            yield f"{says}, and the most that the model can write is not known here."
        elif each.measured:
            yield f"{says}: taken is the mean measured so far, {each.tokens_each:,.0f} tokens."
        else:
            yield f"{says}: taken is the most that the model can write, {each.tokens_each:,.0f} tokens."


def estimate_next(
    plan: OpenPlan,
    output: Location,
    shard: Shard,
    state: ShardState,
    *,
    in_realtime: bool,
    own_prices: OwnPrices = NO_OWN_PRICES,
) -> float | None:
    """What the current send of a shard may cost at most; None where that cannot be known.

    Costs a listing where requests say nothing of the length of their outputs, which is then taken from the answers.
    """
    bounds = {(bound.model, bound.endpoint): bound.unbounded_requests for bound in plan.head.outputs}
    unbounded = bounds.get((shard.model, shard.endpoint), 1)
    return estimate_send(
        plan.head,
        shard,
        requests=state.content.requests,
        input_tokens=state.content.input_tokens,
        in_realtime=in_realtime,
        means=measure_means(plan.head, plan.shards, read_spending(output)) if unbounded else None,
        own_prices=own_prices,
    )


def describe_unknown(unbounded: Sequence[UnboundedOutputs]) -> str:
    """Those of which not even the most that the model can write is known."""
    return " ".join(describe_unbounded([each for each in unbounded if each.tokens_each is None]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The running check, before each send."""

    output: Location
    plan: OpenPlan
    max_cost_usd: float
    own_prices: OwnPrices = field(default_factory=OwnPrices)

    def check_state(self, shard: Shard, state: ShardState, in_realtime: bool) -> None:
        """`check_send` of what the current send of a shard carries."""
        content = state.content
        self.check_send(
            shard,
            state.send,
            requests=content.requests,
            input_tokens=content.input_tokens,
            in_realtime=in_realtime,
        )

    def check_send(
        self, shard: Shard, send: int, *, requests: int, input_tokens: int | None = None, in_realtime: bool
    ) -> None:
        """Reserve what a send may cost, or refuse it. May be repeated for the same send.

        Costs one listing, and for a new send a small file and another listing. Of several that reserve the last of a
        budget at the same moment all may be refused, but never too many let through.

        :param requests: that the send carries.
        :param input_tokens: of these, counted as the shard's are; in proportion by default.
        :raises BudgetError: if it could bring the job above the budget, or if its cost cannot be known.
        """
        spent = read_spending(self.output)
        cost_usd = estimate_send(
            self.plan.head,
            shard,
            requests=requests,
            input_tokens=input_tokens,
            in_realtime=in_realtime,
            means=measure_means(self.plan.head, self.plan.shards, spent),
            own_prices=self.own_prices,
        )
        if cost_usd is None:
            setting = describe_price_setting(
                shard.model, self.own_prices, by_second=shard.endpoint == Endpoint.VIDEOS
            )
            raise BudgetError(
                f"shard {shard.shard}: max_cost_usd={self.max_cost_usd:g} cannot be kept, since the price of "
                f"{shard.model} or the most it can write is not known. Nothing was sent. {setting} Or leave "
                "max_cost_usd empty to send without a budget."
            )
        own = spent.reserved.get(shard.shard)
        if own is not None and own.send == send and own.cost_usd >= cost_usd - ROUNDING_USD:
            self._refuse_excess(spent, shard.shard, requests, own.cost_usd)
            return
        self._refuse_excess(spent, shard.shard, requests, cost_usd)
        place = reserve(self.output, shard.shard, send, cost_usd)
        try:
            self._refuse_excess(read_spending(self.output), shard.shard, requests, cost_usd)
        except BudgetError:
            place.remove()
            raise

    def _refuse_excess(self, spent: Spent, shard: int, requests: int, cost_usd: float) -> None:
        others = {number: each for number, each in spent.reserved.items() if number != shard}
        under_way = Spent(reserved=others).reserved_usd
        total = spent.paid_usd + under_way + cost_usd
        if total <= self.max_cost_usd + ROUNDING_USD * (len(spent.paid) + len(others) + 1):
            return
        raise BudgetError(
            f"shard {shard}: sending {requests:,} requests may cost up to ${cost_usd:,.4f}; with "
            f"${spent.paid_usd:,.4f} spent by the job and up to ${under_way:,.4f} for what is under way, that is "
            f"${total:,.4f}, over max_cost_usd={self.max_cost_usd:g}. Nothing of it was sent; what was answered is "
            "kept. Run again for the same output with a higher max_cost_usd, or clear the task when others are done."
        )
