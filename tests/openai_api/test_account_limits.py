"""What a connection says of its account, and who wins where several say something."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.account_limits import QueueLimit, read_account_limits

WHERE = "connection 'c'"


@pytest.mark.parametrize("tier", [1, "1", "tier 1", "Tier-1", "tier_1"])
def test_a_tier_is_read_however_it_is_written(tier: object) -> None:
    limits = read_account_limits({"tier": tier}, WHERE)
    assert limits.queue_limit("gpt-4o-mini-2024-07-18") == QueueLimit(tokens=2_000_000, tokens_by="tier")
    assert limits.requests_per_minute == 500
    assert limits.tokens_per_minute("gpt-4o") == 30_000
    assert limits.realtime_concurrency == 10


@pytest.mark.parametrize(
    ("tier", "model", "tokens"),
    [
        ("1", "gpt-4o", 90_000),
        ("2", "gpt-4.1", 1_350_000),
        ("3", "gpt-5", 100_000_000),
        ("4", "gpt-5-nano", 10**9),
        ("5", "text-embedding-3-large", 4 * 10**9),
        ("1", "gpt-5-mini", 5_000_000),
        ("1", "a-model-of-tomorrow", None),
        ("free", "gpt-4o-mini", None),
    ],
)
def test_the_queue_of_a_tier_is_that_of_openais_tables(tier: str, model: str, tokens: int | None) -> None:
    assert read_account_limits({"tier": tier}, WHERE).queue_limit(model).tokens == tokens


def test_embeddings_are_limited_in_requests_too() -> None:
    limits = read_account_limits({"tier": 2}, WHERE)
    assert limits.queue_limit("text-embedding-3-small").requests == 1_000_000
    assert limits.queue_limit("gpt-4o").requests is None


@pytest.mark.parametrize(
    ("tier", "requests", "concurrency"),
    [("free", 3, 1), (1, 500, 10), (2, 5_000, 20), (3, 5_000, 50), (5, 10_000, 50), (None, None, 5)],
)
def test_real_time_presets(tier: object, requests: int | None, concurrency: int) -> None:
    limits = read_account_limits({"tier": tier} if tier else {}, WHERE)
    assert (limits.requests_per_minute, limits.realtime_concurrency) == (requests, concurrency)


def test_numbers_win_over_the_tier_and_parameters_over_numbers() -> None:
    extra = {
        "tier": 1,
        "enqueued_token_limit": {"gpt-4o-mini": "5000000", "*": 70_000},
        "enqueued_request_limit": 900,
        "requests_per_minute": 60,
        "tokens_per_minute": "1000",
        "realtime_concurrency": 2,
    }
    limits = read_account_limits(extra, WHERE)
    assert limits.queue_limit("gpt-4o-mini-2024-07-18") == QueueLimit(tokens=5_000_000, requests=900)
    assert limits.queue_limit("gpt-4o").tokens == 70_000
    asked = limits.queue_limit("gpt-4o", tokens=50_000)
    assert (asked.tokens, asked.tokens_by, asked.requests_by) == (50_000, "parameter", "connection")
    assert (limits.requests_per_minute, limits.tokens_per_minute("gpt-4o")) == (60, 1_000)
    assert limits.realtime_concurrency == 2


def test_a_number_for_one_model_leaves_the_others_to_the_tier() -> None:
    limits = read_account_limits({"tier": 1, "enqueued_token_limit": {"gpt-4o": 80_000}}, WHERE)
    assert limits.queue_limit("gpt-4o").tokens == 80_000
    assert limits.queue_limit("gpt-4o-mini").tokens == 2_000_000


def test_an_input_of_several_models_is_cut_to_the_smallest_queue() -> None:
    limits = read_account_limits({"tier": 1}, WHERE)
    several = ["gpt-4o-mini", "text-embedding-3-small", "a-model-of-tomorrow"]
    assert limits.smallest_queue_limit(several) == QueueLimit(tokens=2_000_000, requests=1_000_000)
    assert limits.smallest_queue_limit(several, tokens=70_000).tokens == 70_000
    assert limits.smallest_queue_limit([]) == QueueLimit()
    assert read_account_limits({"enqueued_token_limit": 9}, WHERE).smallest_queue_limit([]).tokens == 9


def test_nothing_said_nothing_known() -> None:
    assert read_account_limits({"unrelated": 1}, WHERE).queue_limit("gpt-4o") == QueueLimit()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"tier": 6}, "tier=6"),
        ({"tier": "gold"}, "tier='gold'"),
        ({"tier": True}, "tier=True"),
        ({"enqueued_token_limit": 0}, "enqueued_token_limit=0"),
        ({"enqueued_token_limit": "2M"}, "enqueued_token_limit='2M'"),
        ({"enqueued_token_limit": {"gpt-4o": -1}}, r"enqueued_token_limit\['gpt-4o'\]=-1"),
        ({"enqueued_request_limit": 1.5}, "enqueued_request_limit=1.5"),
        ({"realtime_concurrency": False}, "realtime_concurrency=False"),
    ],
)
def test_what_is_no_limit_is_refused_with_its_name(extra: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=f"{WHERE}: {words} in its extra must be"):
        read_account_limits(extra, WHERE)


def test_the_retries_of_a_real_time_request_may_be_none() -> None:
    assert read_account_limits({"max_retries": "0"}, WHERE).max_retries == 0
    assert read_account_limits({}, WHERE).max_retries is None
    with pytest.raises(ConfigError, match=r"max_retries=-1 .* at least 0"):
        read_account_limits({"max_retries": -1}, WHERE)
