"""The parameters that say how a shard is sent, and what they become for the state machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.costs.budget import Budget
from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits
from airflow_openai_batch.operators.task.parameters import (
    read_choice,
    read_flag,
    read_mode,
    read_optional_int,
    read_optional_number,
)
from airflow_openai_batch.sending.policy import Policy

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.openai_api.account_limits import AccountLimits
    from airflow_openai_batch.sending.caller import Caller
    from airflow_openai_batch.sending.shard_files import ShardFiles

SENDING_FIELDS = (
    "send_mode",
    "realtime_threshold",
    "realtime_concurrency",
    "enqueued_token_limit",
    "max_cost_usd",
    "finish_within_h",
    "on_deadline",
    "keep_remote_files",
)
"""Template fields of every operator that may send."""


def read_policy(operator: Any, caller: Caller) -> Policy:
    """After the templates are rendered.

    :raises ConfigError: for a value that cannot be used.
    """
    within_h = read_optional_number("finish_within_h", operator.finish_within_h, minimum=0.0, unit="hours")
    threshold = read_optional_int("realtime_threshold", operator.realtime_threshold)
    read_concurrency(operator)  # else that is said when a batch has left something over
    read_queue_tokens(operator)
    return Policy(
        mode=read_mode(operator.send_mode),
        realtime_threshold=10 if threshold is None else threshold,
        deadline_at=None if within_h is None else caller.run_started_at + within_h * 3600,
        within_s=0.0 if within_h is None else within_h * 3600,
        on_deadline=read_choice("on_deadline", operator.on_deadline, ("flex", "realtime", "publish", "fail")),
        clean_up=not read_flag("keep_remote_files", operator.keep_remote_files),
        first=operator.shard.get("first") if operator.shard else None,
    )


def read_concurrency(operator: Any) -> int | None:
    """:raises ConfigError: if it is no whole number or none is left in the air."""
    return read_optional_int("realtime_concurrency", operator.realtime_concurrency, minimum=1)


def read_queue_tokens(operator: Any) -> int | None:
    """:raises ConfigError: if it is no whole number or nothing fits into such a queue."""
    return read_optional_int("enqueued_token_limit", operator.enqueued_token_limit, minimum=1)


def read_budget_check(operator: Any, files: ShardFiles) -> Callable[[ShardState, bool], None] | None:
    """What refuses a send of the shard that could bring its job above ``max_cost_usd``; None where that is not set.

    :raises ConfigError: for a value that cannot be used, or a price of the connection that is none.
    """
    max_cost_usd = read_optional_number("max_cost_usd", operator.max_cost_usd, minimum=0.0, unit="US dollars")
    if max_cost_usd is None:
        return None
    budget = Budget(
        output=files.output,
        plan=files.plan,
        max_cost_usd=max_cost_usd,
        own_prices=operator.hook.get_own_prices(),
    )
    return functools.partial(budget.check_state, files.shard)


def read_realtime_limits(operator: Any, account: AccountLimits, model: str) -> RealtimeLimits:
    """The operator's own number, then what the connection says of the account.

    :raises ConfigError: for a value that cannot be used.
    """
    concurrency = read_concurrency(operator)
    return RealtimeLimits(
        concurrency=account.realtime_concurrency if concurrency is None else concurrency,
        concurrency_chosen=concurrency is not None,
        requests_per_minute=account.requests_per_minute,
        tokens_per_minute=account.tokens_per_minute(model),
        max_retries=3 if account.max_retries is None else account.max_retries,
        chosen=account.per_minute_requests is not None or account.per_minute_tokens is not None,
    )
