"""What was used is billed and counted, whatever the answer is, at the price of the tier that answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.openai_api.prices import price_answer
from airflow_openai_batch.results.outcome import OutcomeRules, read_outcome
from fixtures.shard_on_disk import CHAT, RESPONSES, ShardOnDisk, answer, chat_body, request

NOVEMBER = 1_795_900_000.0
"""2026-11-28: the prices of tiers are known from October on."""
COST = pytest.approx((100 * 0.075 + 20 * 0.3) / 1e6)


@pytest.mark.parametrize(
    ("tier", "cost"),
    [
        (None, 0.225),
        ("default", 0.225),
        ("auto", 0.225),
        ("scale", 0.225),
        ("flex", 0.1125),
        ("priority", 0.405),
    ],
)
def test_the_tier_that_answered_decides_the_price_in_real_time(tier: str | None, cost: float) -> None:
    model = "gpt-5-mini-2025-08-07"
    found = price_answer(model, "realtime", 100_000, 100_000, at=NOVEMBER, service_tier=tier)
    assert found is not None
    assert (found.actual_usd, found.standard_usd) == pytest.approx((cost, 0.225))
    batch = price_answer(model, "batch", 100_000, 100_000, at=NOVEMBER, service_tier=tier)
    assert batch is not None
    assert batch.actual_usd == pytest.approx(0.1125)


def test_a_tier_without_a_known_price_is_half_or_unknown() -> None:
    known = price_answer("gpt-3.5-turbo", "realtime", 1_000_000, 0, at=NOVEMBER, service_tier="flex")
    assert known is not None
    assert known.actual_usd == pytest.approx(known.standard_usd / 2)
    assert (
        price_answer("gpt-3.5-turbo", "realtime", 1_000_000, 0, at=NOVEMBER, service_tier="priority") is None
    )


def test_rows_of_real_time_cost_what_their_tier_costs(tmp_path: Path) -> None:
    tiers = ("default", "flex")
    shard = ShardOnDisk(tmp_path, requests=[request(tier) for tier in tiers])
    shard.add_send(
        [answer(tier, {**chat_body(), "service_tier": tier}) for tier in tiers], sent_as="realtime"
    )
    shard.land()
    standard, flex = (row["cost_usd"] for row in shard.rows())
    assert flex == pytest.approx(standard / 2)


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_what_is_written_to_the_cache_is_in_its_column_and_in_the_cost(tmp_path: Path, endpoint: str) -> None:
    """gpt-6-astra as a batch: 10,000 x 6.25 + 500 x 25."""
    usage: dict[str, Any] = {"prompt_tokens": 10_000, "completion_tokens": 500}
    usage["prompt_tokens_details"] = {"cached_tokens": 0, "cache_write_tokens": 10_000}
    body = {**chat_body(), "model": "gpt-6-astra", "usage": usage}
    if endpoint == RESPONSES:
        renamed = {"input_tokens": 10_000, "output_tokens": 500}
        text = {"type": "output_text", "text": "Hello"}
        body = {
            "model": "gpt-6-astra",
            "status": "completed",
            "output": [{"type": "message", "content": [text]}],
            "usage": {**renamed, "input_tokens_details": usage["prompt_tokens_details"]},
        }
    shard = ShardOnDisk(tmp_path, requests=[request("a")], endpoint=endpoint)
    shard.add_send([answer("a", body)])
    landed = shard.land()
    (row,) = shard.rows()
    assert (row["status"], row["cache_write_tokens"]) == ("ok", 10_000)
    assert (row["cost_usd"], landed.spending.cost_usd) == pytest.approx((0.075, 0.075))
    assert landed.spending.tokens.written == 10_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (chat_body(None), 200),
        ({**chat_body(), "choices": []}, 200),
        ({**chat_body(), "choices": "odd"}, 200),
        ({**chat_body(), "choices": None, "error": {"message": "Cut off."}}, 200),
        ({**chat_body(), "choices": None, "error": {"message": "Cut off."}}, 500),
        ({**chat_body(), "choices": None, "error": {"code": "content_filter"}}, 400),
    ],
)
def test_usage_of_what_cannot_be_used_is_billed_and_counted(tmp_path: Path, body: Any, status: int) -> None:
    shard = ShardOnDisk(tmp_path, requests=[request("a")])
    shard.add_send([answer("a", body, status_code=status)])
    landed = shard.land()
    row = shard.rows()[0]
    assert row["status"] != "ok"
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (100, 20, COST)
    assert (landed.spending.answers, landed.spending.cost_usd) == (1, COST)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": 100},
        {"prompt_tokens": "100"},
    ],
)
def test_an_answer_without_numbers_of_tokens_has_no_price_rather_than_a_price_of_nothing(
    tmp_path: Path, usage: Any
) -> None:
    shard = ShardOnDisk(tmp_path, requests=[request("a")])
    shard.add_send([answer("a", {**chat_body(), "usage": usage})])
    landed = shard.land()
    assert (shard.rows()[0]["status"], shard.rows()[0]["cost_usd"]) == ("ok", None)
    assert (landed.spending.answers, landed.spending.unpriced) == (1, 1)


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ({"message": "Upstream overloaded, try later", "code": 502}, "502", True),
        ({"message": "Upstream overloaded, try later"}, "http_500", True),
        ("Upstream overloaded, try later", "http_500", True),
        ({"message": "Upstream overloaded, try later", "code": "server_error"}, "server_error", True),
        ({"message": "Upstream overloaded, try later", "code": 400}, "400", False),
        (
            {"message": "Upstream overloaded, try later", "type": "invalid_request_error"},
            "invalid_request_error",
            False,
        ),
        ({"message": "Upstream overloaded, try later", "code": 429}, "429", True),
    ],
)
def test_an_error_inside_a_200_keeps_its_message(error: Any, code: str, retryable: bool) -> None:
    outcome = read_outcome(answer("a", {"error": error}), CHAT, "text", None, OutcomeRules())
    assert (outcome.status, outcome.status_code, outcome.error_code) == ("failed", 200, code)
    assert outcome.error_message == "Upstream overloaded, try later"
    assert outcome.retryable == retryable


def test_an_error_inside_a_choice_is_no_answer() -> None:
    body = chat_body("Half a sent")
    body["choices"][0] |= {"finish_reason": "error", "error": {"code": 502, "message": "Upstream broke off"}}
    outcome = read_outcome(answer("a", body), CHAT, "text", None, OutcomeRules())
    assert (outcome.status, outcome.error_code, outcome.error_message) == (
        "failed",
        "502",
        "Upstream broke off",
    )
    assert outcome.retryable
    assert outcome.answer is not None
    assert outcome.answer.usage is not None


def test_an_account_error_inside_a_200_uses_up_no_attempt() -> None:
    body = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}
    outcome = read_outcome(answer("a", body), CHAT, "text", None, OutcomeRules())
    assert (outcome.account_error, outcome.ran, outcome.retryable) == (True, False, True)


def test_an_empty_error_beside_an_answer_is_none() -> None:
    for error in (None, {}, ""):
        outcome = read_outcome(
            answer("a", {**chat_body(), "error": error}), CHAT, "text", None, OutcomeRules()
        )
        assert outcome.status == "ok"


@pytest.mark.parametrize(
    ("details", "cost"),
    [
        ({"ttl_12h_tokens": 4_000, "ttl_30m_tokens": 6_000}, 0.1),
        ({"ttl_12h_tokens": 0, "ttl_30m_tokens": 10_000}, 0.075),
        ([], 0.075),
        ({"ttl_12h_tokens": "many"}, 0.075),
    ],
)
def test_what_is_kept_in_the_cache_for_twelve_hours_costs_twice(
    tmp_path: Path, details: Any, cost: float
) -> None:
    """gpt-6-astra as a batch: 10,000 x 6.25 + 500 x 25, and for 4,000 of them 6.25 more."""
    usage: dict[str, Any] = {"prompt_tokens": 10_000, "completion_tokens": 500}
    usage["prompt_tokens_details"] = {"cache_write_tokens": 10_000, "cache_write_tokens_details": details}
    shard = ShardOnDisk(tmp_path, requests=[request("a")])
    shard.add_send([answer("a", {**chat_body(), "model": "gpt-6-astra", "usage": usage})])
    shard.land()
    (row,) = shard.rows()
    assert row["cost_usd"] == pytest.approx(cost)
