"""The book of the month as one shard's task sees it: does nothing where the connection has no monthly budget."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.costs.monthly_budget import MonthlyBudget, SendOf

if TYPE_CHECKING:
    from airflow_openai_batch.job.ledger import Event
    from airflow_openai_batch.job.plan import Plan, Shard
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.storage.location import Location


@dataclass(kw_only=True)
class ShardMonth:
    """Sends of one shard in the book of their connection.

    :param key: the ``job_key`` of a send.
    :param find: the budget of the connection; asked once, and only where something is sent or has landed.
    """

    plan: Plan
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
        claims = [event for event in read() if event.kind in ("intent", "realtime")]
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
