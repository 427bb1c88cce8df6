"""Limits from a real connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from airflow_openai_batch.openai_api.account_limits import AccountLimits, QueueLimit


def test_the_extra_of_a_connection_gives_the_limits(define_connection: Callable[..., str]) -> None:
    define_connection("c", conn_type="openai", extra={"tier": "tier 2", "enqueued_token_limit": 1_000_000})
    limits = OpenAIBatchHook("c").get_limits()
    assert limits.queue_limit("gpt-4o") == QueueLimit(tokens=1_000_000)
    assert limits.requests_per_minute == 5_000


def test_a_connection_written_as_a_uri_has_texts_for_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_C", "openai://:key@/?tier=1&enqueued_token_limit=90000")
    limits = OpenAIBatchHook("c").get_limits()
    assert (limits.tier, limits.queue_limit("gpt-5").tokens) == ("1", 90_000)


def test_a_connection_that_is_not_there_limits_nothing() -> None:
    assert OpenAIBatchHook("nowhere").get_limits() == AccountLimits()


def test_a_wrong_limit_names_the_connection(define_connection: Callable[..., str]) -> None:
    define_connection("c", conn_type="openai", extra={"enqueued_token_limit": "lots"})
    with pytest.raises(ConfigError, match="connection 'c': enqueued_token_limit='lots' in its extra"):
        OpenAIBatchHook("c").get_limits()
