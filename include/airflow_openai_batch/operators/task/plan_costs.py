"""What a plan may cost: the parameters of the split that say so, and the check before anything is sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.errors import BudgetError, ConfigError
from airflow_openai_batch.openai_api.flex import FLEX_ENDPOINTS, describe_endpoint_without_flex
from airflow_openai_batch.openai_api.prices import has_flex
from airflow_openai_batch.operators.task.parameters import read_mode, read_optional_int, read_optional_number
from airflow_openai_batch.sending.policy import Policy

if TYPE_CHECKING:
    from airflow_openai_batch.costs.forecast import Forecast
    from airflow_openai_batch.costs.monthly_budget import MonthlyBudget
    from airflow_openai_batch.job.plan import Plan, Shard
    from airflow_openai_batch.sending.policy import Lane


class PlanCosts(NamedTuple):
    """The parameters that have to do with costs."""

    policy: Policy
    max_cost_usd: float | None
    sample_requests: int | None

    def check(self, forecast: Forecast, month: MonthlyBudget | None, *, plan_only: bool) -> list[str]:
        """What is to be said of it beforehand.

        :raises BudgetError: if it could cost too much.
        :raises ConfigError: if it cannot go out as it is to. A dry run says either and does not fail: it sends nothing.
        """
        notices = []
        try:
            check_flex(forecast.plan, self.policy)
            forecast.check(self.max_cost_usd)
            if month is not None and (notice := month.foresee(forecast.left, time.time())):
                notices.append(notice)
        except (BudgetError, ConfigError) as error:
            if not plan_only:
                raise
            notices.append(str(error))
        if self.max_cost_usd is not None and forecast.estimate.may_be_more:
            notices.append(
                "max_cost_usd is checked on input tokens that are a lower bound: some requests name content that only "
                "OpenAI has. The running check on what was really paid holds all the same."
            )
        return notices


def foresee_lane(policy: Policy, shard: Shard, requests: int) -> Lane:
    """How so many requests of a shard are going to be sent, if nothing is late and flex has room."""
    flex = shard.endpoint in FLEX_ENDPOINTS and has_flex(shard.model)
    return policy.choose_lane(requests, late=False, has_flex=flex)


def check_flex(plan: Plan, policy: Policy) -> None:
    """:raises ConfigError: if the mode asks for flex, and requests are for an endpoint that has none."""
    if policy.mode != "flex":
        return
    for shard in plan.shards:
        if shard.endpoint not in FLEX_ENDPOINTS:
            raise ConfigError(
                f"mode=flex: {describe_endpoint_without_flex(shard.endpoint)} Nothing was sent. Set mode=batch, which "
                "costs the same, or mode=auto."
            )


def read_plan_costs(split: Any) -> PlanCosts:
    """Of a split whose templates are rendered; before the scan, not after it.

    :raises ConfigError: for a value that cannot be used.
    """
    sample = read_optional_int("sample_requests", split.sample_requests)
    if sample is not None and sample < 1:
        raise ConfigError(
            f"sample_requests={split.sample_requests!r}: must be at least 1; leave it empty to send all."
        )
    policy = read_lanes(split)
    return PlanCosts(
        policy,
        read_optional_number("max_cost_usd", split.max_cost_usd, minimum=0.0, unit="US dollars"),
        sample,
    )


def read_lanes(operator: Any) -> Policy:
    """How an operator with ``send_mode`` and ``realtime_threshold`` says that requests go out.

    :raises ConfigError: for a value that cannot be used.
    """
    mode = read_mode(operator.send_mode)
    threshold = read_optional_int("realtime_threshold", operator.realtime_threshold)
    return Policy(mode=mode) if threshold is None else Policy(mode=mode, realtime_threshold=threshold)
