"""Costs are what genai-prices would say, at the speed of a million answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from genai_prices import Usage, calc_price

from airflow_openai_batch.costs.estimate import estimate_plan
from airflow_openai_batch.job.plan import Counts, Limits, Plan, Shard
from airflow_openai_batch.openai_api.prices import estimate_cost, price_answer
from fixtures.shard_on_disk import DONE_AT

MODELS = [
    "gpt-4o",
    "gpt-4o-mini-2024-07-18",
    "gpt-4.1-nano",
    "gpt-5",
    "gpt-5-mini",
    "o3",
    "ft:gpt-4o-mini-2024-07-18:o::x",
]


@pytest.mark.parametrize("model", [*MODELS, "gpt-5.4", "text-embedding-3-large"])
@pytest.mark.parametrize("tokens", [(0, 0, 0), (1000, 100, 500), (272_000, 0, 10), (272_001, 1_000, 10)])
def test_standard_price_agrees_with_genai_prices(model: str, tokens: tuple[int, int, int]) -> None:
    total, cached, output = tokens
    usage = Usage(input_tokens=total, cache_read_tokens=cached, output_tokens=output)
    at = datetime.fromtimestamp(DONE_AT, UTC)
    expected = calc_price(usage, model_ref=model, provider_id="openai", genai_request_timestamp=at)
    cost = price_answer(
        model, sent_as="realtime", input_tokens=total, cached_tokens=cached, output_tokens=output, at=DONE_AT
    )
    assert cost is not None
    assert cost.actual_usd == cost.standard_usd == pytest.approx(float(expected.total_price))


@pytest.mark.parametrize("model", [*MODELS, "text-embedding-3-small", "gpt-3.5-turbo-instruct"])
def test_batch_costs_half(model: str) -> None:
    cost = price_answer(model, sent_as="batch", input_tokens=1000, output_tokens=500, at=DONE_AT)
    assert cost is not None
    assert cost.actual_usd == pytest.approx(cost.standard_usd / 2)
    assert cost.actual_usd > 0


def test_unknown_model_has_no_price() -> None:
    assert price_answer("llama-at-home", sent_as="batch", input_tokens=1, output_tokens=1) is None
    assert estimate_cost("llama-at-home", "/v1/chat/completions", 1, 1) is None


def test_moderation_is_free() -> None:
    assert estimate_cost("omni-moderation-latest", "/v1/moderations", 1_000_000, 0) == (0.0, 0.0)


def test_many_short_requests_are_not_priced_as_one_long_one() -> None:
    alone = estimate_cost("gpt-5.4", "/v1/chat/completions", 1_000, 0)
    many = estimate_cost("gpt-5.4", "/v1/chat/completions", 1_000_000, 0, requests=1_000)
    assert alone is not None
    assert many is not None
    assert many == pytest.approx((alone[0] * 1000, alone[1] * 1000))


def test_fifty_thousand_answers_are_priced_in_a_blink() -> None:
    price_answer("gpt-4o-mini", sent_as="batch", input_tokens=1, output_tokens=1, at=DONE_AT)
    start = time.perf_counter()
    for tokens in range(50_000):
        price_answer("gpt-4o-mini", sent_as="batch", input_tokens=tokens, output_tokens=1, at=DONE_AT)
    assert time.perf_counter() - start < 3  # calc_price alone takes 10 s and more


def shard(number: int, model: str, **fields: object) -> Shard:
    known = {
        "endpoint": "/v1/chat/completions",
        "requests": 1_000,
        "bytes": 1,
        "input_tokens": 1_000_000,
        "sha256": "",
    }
    return Shard(shard=number, model=model, first_position=0, **{**known, **fields})  # type: ignore[arg-type]


def test_estimate_adds_up_the_shards_and_names_what_it_cannot_price() -> None:
    plan = Plan(
        fingerprint="f",
        created_at=DONE_AT,
        sources=(),
        limits=Limits(max_requests=1, max_bytes=1, max_tokens=None),
        counts=Counts(positions=3_000, requests=3_000, rejected=0, blank=0),
        shards=(shard(0, "gpt-4o-mini"), shard(1, "gpt-4o-mini", tokens="upper"), shard(2, "llama-at-home")),
    )
    found = estimate_plan(plan, output_tokens_per_request=500)
    assert found.input_tokens == 3_000_000
    assert found.cost_usd == pytest.approx(2 * (0.075 + 0.15))
    assert found.standard_cost_usd == pytest.approx(4 * (0.075 + 0.15))
    assert found.unpriced_models == ("llama-at-home",)
    assert found.certainty == "upper"
