"""The parameters that say how a shard is sent, and what they become for the state machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_openai_batch.core.policy import Policy
from airflow_openai_batch.core.rate_limits import RealtimeLimits
from airflow_openai_batch.operators.parameters import (
    read_choice,
    read_flag,
    read_mode,
    read_optional_int,
    read_optional_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_openai_batch.core.account_limits import AccountLimits
    from airflow_openai_batch.core.caller import Caller

Item = TypeVar("Item")

SIGN_OF_LIFE_S = 180.0
"""Well below `Policy.realtime_claim_s`, after which somebody else would take over."""

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
    within_h = read_optional_number("finish_within_h", operator.finish_within_h, minimum=0.0)
    threshold = read_optional_int("realtime_threshold", operator.realtime_threshold)
    return Policy(
        mode=read_mode(operator.send_mode),
        realtime_threshold=10 if threshold is None else threshold,
        deadline_at=None if within_h is None else caller.run_started_at + within_h * 3600,
        on_deadline=read_choice("on_deadline", operator.on_deadline, ("realtime", "publish", "fail")),
        clean_up=not read_flag("keep_remote_files", operator.keep_remote_files),
        first=operator.shard.get("first") if operator.shard else None,
    )


def read_realtime_limits(operator: Any, account: AccountLimits, model: str) -> RealtimeLimits:
    """The operator's own number, then what the connection says of the account.

    :raises ConfigError: for a value that cannot be used.
    """
    concurrency = read_optional_int("realtime_concurrency", operator.realtime_concurrency)
    return RealtimeLimits(
        concurrency=account.realtime_concurrency if concurrency is None else concurrency,
        requests_per_minute=account.requests_per_minute,
        tokens_per_minute=account.tokens_per_minute(model),
        chosen=account.per_minute_requests is not None or account.per_minute_tokens is not None,
    )


def call_now_and_then(items: Iterable[Item], call: Callable[[], None], *, every_s: float) -> Iterator[Item]:
    """The items, with a call between two of them whenever so many seconds have passed."""
    last = time.monotonic()
    for item in items:
        if (now := time.monotonic()) - last >= every_s:
            last = now
            call()
        yield item
