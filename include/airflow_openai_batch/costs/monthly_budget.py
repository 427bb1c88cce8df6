"""``monthly_budget_usd`` of a connection: what all jobs that use it may spend in a month (UTC).

Beside ``max_cost_usd``, which is a job's own. A send counts in the month that it is sent in: with what it may cost at
most until it has landed, then with what it has cost. Of several that reserve the last of a budget at the same moment
all may be refused, but never too many let through, where the store shows at once what was written. What can go above
it is the difference between an answer's price and what it was expected to cost at most: where a request sets no
bound on its output and a mean was taken, where the requests of a shard allow more than the mean of the job's
(`estimate_send`), or where the count of the input is a lower bound.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_openai_batch.costs.budget import ROUNDING_USD, describe_unknown, estimate_next
from airflow_openai_batch.costs.monthly_book import MonthlyBook, MonthSpent, month_end, same_day
from airflow_openai_batch.errors import BudgetError
from airflow_openai_batch.openai_api.own_prices import OwnPrices, describe_price_setting

if TYPE_CHECKING:
    from airflow_openai_batch.costs.estimate import Estimate
    from airflow_openai_batch.job.ledger import Event
    from airflow_openai_batch.job.open_plan import OpenPlan
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.storage.location import Location

_MIDNIGHT_S = 3600.0
"""What was claimed so soon after midnight may have been reserved before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthlyBudget:
    """The running check, before each send; may be made anew for each."""

    book: MonthlyBook
    conn_id: str
    monthly_budget_usd: float
    own_prices: OwnPrices = field(default_factory=OwnPrices)

    def foresee(self, left: Estimate, now: float) -> str:
        """What a split says of a job that may not fit into what is left of the month; empty where it does.

        :param left: of what is still to be answered.
        :raises BudgetError: where its cost cannot be known, so that nothing of it could be sent.
        """
        if not left.requests:
            return ""
        if left.unpriced_models:
            models = left.unpriced_models
            raise self._unknown(f"no price is known for {', '.join(models)}.", models[0])
        if left.most_cost_usd is None:
            raise self._unknown(describe_unknown(left.unbounded))
        spent = self.book.read(now)
        if spent.total_usd + left.most_cost_usd <= self.monthly_budget_usd + ROUNDING_USD:
            return ""
        return (
            f"{self._describe(spent)} What is left of this job may cost up to ${left.most_cost_usd:,.4f}, so that some "
            "of its shards may be refused before they are sent. Raise monthly_budget_usd in the connection's extra, "
            f"or expect to clear them on {month_end(now)}."
        )

    def check(self, shard: SendOf, now: float) -> None:
        """Before an upload, which takes time for nothing otherwise. One listing, and one for each open day.

        :raises BudgetError: if the send could bring the month above the budget, or its cost cannot be known.
        """
        self._refuse_excess(shard, self._estimate(shard), now)

    def reserve(self, shard: SendOf, now: float) -> Location | None:
        """Right before a send: count what it may cost, or refuse it. May be repeated for the same send.

        :returns: for taking it back, where nothing came of it; see `MonthlyBook.reserve`.
        :raises BudgetError: as `check`.
        """
        cost_usd = self._estimate(shard)
        place = self.book.reserve(shard.key, cost_usd, now)
        try:
            self._refuse_excess(shard, cost_usd, now)
        except BaseException:  # nothing is sent, be it for the budget, the store or a task that is stopped
            if place is not None:
                place.remove()
            raise
        # Not before: where this one is refused, what an earlier try may have paid counts on.
        former = [claim.at for claim in shard.state.claims if not same_day(claim.at, now)]
        self.book.void(shard.key, former, now)
        return place

    def settle(self, key: str, cost_usd: float, claimed_at: Sequence[float], now: float) -> None:
        """A send has landed, or was refused and cost nothing.

        :param claimed_at: when it was about to be sent, Unix seconds; the last time is the one that counts.
        """
        *former, last = sorted(claimed_at) or [now]
        former += [at - _MIDNIGHT_S for at in claimed_at]
        self.book.settle(key, cost_usd, last, now)
        self.book.void(key, [at for at in former if not same_day(at, last)], now)

    def _estimate(self, shard: SendOf) -> float:
        cost_usd = estimate_next(
            shard.plan,
            shard.output,
            shard.shard,
            shard.state,
            in_realtime=shard.in_realtime,
            own_prices=self.own_prices,
        )
        if cost_usd is None:
            raise self._unknown(
                f"the price of {shard.shard.model} or the most it can write is not known (shard {shard.shard.shard}).",
                shard.shard.model,
            )
        return cost_usd

    def _refuse_excess(self, shard: SendOf, cost_usd: float, now: float) -> None:
        spent = self.book.read(now, but=shard.key)
        if spent.total_usd + cost_usd <= self.monthly_budget_usd + ROUNDING_USD:
            return
        others = "clear it once others are done, " if spent.reserved_usd else ""
        raise BudgetError(
            f"shard {shard.shard.shard}: sending {shard.state.content.requests:,} requests may cost up to "
            f"${cost_usd:,.4f}. {self._describe(spent)} Nothing of it was sent; what was answered is kept. Raise "
            f"monthly_budget_usd in the connection's extra and clear the task, {others}or wait until "
            f"{month_end(now)} (UTC), when the next month begins."
        )

    def _describe(self, spent: MonthSpent) -> str:
        return (
            f"Connection {self.conn_id!r} has spent ${spent.paid_usd:,.4f} in {spent.month} (UTC), and up to "
            f"${spent.reserved_usd:,.4f} is under way, of monthly_budget_usd={self.monthly_budget_usd:g}."
        )

    def _unknown(self, why: str, unpriced: str | None = None) -> BudgetError:
        """:param unpriced: a model whose price may be what is missing."""
        setting = "" if unpriced is None else f"{describe_price_setting(unpriced, self.own_prices)} Or set"
        return BudgetError(
            f"connection {self.conn_id!r}: monthly_budget_usd={self.monthly_budget_usd:g} cannot be kept: {why} "
            f"Nothing was sent. {setting or 'Set'} max_tokens (max_completion_tokens, max_output_tokens) in the "
            "requests, ask for a model whose price is known, or use a connection without a budget."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOf:
    """What the current send of a shard is about."""

    key: str
    """Its ``job_key``."""
    plan: OpenPlan
    output: Location
    shard: Shard
    state: ShardState
    in_realtime: bool


@dataclass(kw_only=True)
class ShardMonth:
    """Sends of one shard in the book of their connection.

    :param key: the ``job_key`` of a send.
    :param find: the budget of the connection; asked once, and only where something is sent or has landed.
    """

    plan: OpenPlan
    output: Location
    shard: Shard
    find: Callable[[], MonthlyBudget | None]
    key: Callable[[int], str]
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._reserved: Location | None = None

    @functools.cached_property
    def _budget(self) -> MonthlyBudget | None:
        return self.find()

    def check(self, state: ShardState) -> None:
        """:raises BudgetError: see `MonthlyBudget.check`."""
        if self._budget is not None:
            self._budget.check(self._describe(state), self.clock())

    def reserve(self, state: ShardState, *, in_realtime: bool = False) -> None:
        """:raises BudgetError: see `MonthlyBudget.reserve`."""
        if self._budget is not None:
            send = self._describe(state, in_realtime=in_realtime)
            self._reserved = self._budget.reserve(send, self.clock())

    def take_back(self) -> None:
        """What was reserved last was not sent; where an earlier try reserved it, that one may have been."""
        if self._reserved is not None:
            self._reserved.remove()
            self._reserved = None

    def settle(self, sends: Iterable[int], cost_usd: float, read: Callable[[], Iterable[Event]]) -> None:
        """What the last of these sends has cost, those before it included; may be repeated.

        :param read: reads the events of the shard, which costs a listing.
        """
        if self._budget is None:
            return
        claims = [event for event in read() if event.kind in ("intent", "realtime", "flex")]
        for send in sorted(sends, reverse=True):
            claimed_at = [claim.at for claim in claims if claim.send == send]
            self._budget.settle(self.key(send), cost_usd, claimed_at, self.clock())
            cost_usd = 0.0

    def _describe(self, state: ShardState, *, in_realtime: bool = False) -> SendOf:
        return SendOf(
            key=self.key(state.send),
            plan=self.plan,
            output=self.output,
            shard=self.shard,
            state=state,
            in_realtime=in_realtime,
        )
