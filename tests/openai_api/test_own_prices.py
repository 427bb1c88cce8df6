"""``prices`` of a connection: what a contract says, or the library does not know."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.own_prices import OwnPrices, read_own_prices
from airflow_openai_batch.openai_api.prices import price_answer

SOL = "gpt-6.2-sol"
TOKENS = (10_000, 1_000)
"""Input and output."""


def read(price: Any, model: str = SOL) -> OwnPrices:
    return read_own_prices({"prices": {model: price}}, "connection 'c'")


def test_a_model_without_a_price_has_the_one_that_is_given() -> None:
    assert price_answer(SOL, "batch", *TOKENS) is None
    own = read({"input": 4, "output": "20"})
    assert price_answer(SOL, "batch", *TOKENS, own_prices=own) == pytest.approx((0.03, 0.06))
    assert price_answer(SOL, "realtime", *TOKENS, own_prices=own) == pytest.approx((0.06, 0.06))
    assert price_answer(SOL, "realtime", *TOKENS, own_prices=own, service_tier="flex") == pytest.approx(
        (0.03, 0.06)
    )


def test_what_is_read_from_the_cache_and_written_to_it_costs_as_input_unless_it_is_given() -> None:
    cached = {"cached_tokens": 4_000, "written_tokens": 5_000}
    plain = price_answer(SOL, "realtime", *TOKENS, own_prices=read({"input": 4, "output": 20}), **cached)
    assert plain == pytest.approx((0.06, 0.06))
    told = read({"input": 4, "cached_input": 0.4, "cache_write": 5, "output": 20})
    # 1,000 x 4 + 4,000 x 0.4 + 5,000 x 5 + 1,000 x 20
    assert price_answer(SOL, "realtime", *TOKENS, own_prices=told, **cached) == pytest.approx(
        (0.0506, 0.0506)
    )
    assert price_answer(SOL, "batch", *TOKENS, own_prices=told, **cached) == pytest.approx((0.0253, 0.0506))


def test_a_batch_and_tiers_may_have_prices_of_their_own() -> None:
    own = read(
        {
            "input": 4,
            "output": 20,
            "batch": {"input": 1, "output": 10},
            "priority": {"input": 8, "output": 40},
        }
    )
    assert price_answer(SOL, "batch", *TOKENS, own_prices=own) == pytest.approx((0.02, 0.06))
    costs = {
        tier: price_answer(SOL, "realtime", *TOKENS, own_prices=own, service_tier=tier)
        for tier in ("flex", "priority", "default")
    }
    assert costs == {
        "flex": pytest.approx((0.02, 0.06)),
        "priority": pytest.approx((0.12, 0.06)),
        "default": pytest.approx((0.06, 0.06)),
    }
    without = read({"input": 4, "output": 20})
    assert price_answer(SOL, "realtime", *TOKENS, own_prices=without, service_tier="priority") is None


@pytest.mark.parametrize(
    ("answered", "asked"),
    [
        ("gpt-5.4-mini", None),
        ("gpt-5.4-mini-2026-03-17", "gpt-5.4-mini"),
        ("gpt-5.4-mini-2026-03-17", None),
        ("somebody-elses-name", "gpt-5.4-mini"),
    ],
)
def test_a_contract_wins_over_what_is_known(answered: str, asked: str | None) -> None:
    own = read({"input": 1, "output": 1}, "gpt-5.4-mini")
    assert price_answer(answered, "batch", *TOKENS, own_prices=own, asked=asked) == pytest.approx(
        (0.0055, 0.011)
    )


def test_a_fine_tuned_model_does_not_have_the_price_of_its_base() -> None:
    own = read({"input": 1, "output": 1}, "gpt-4o-mini")
    tuned = "ft:gpt-4o-mini-2024-07-18:us::1"
    assert price_answer(tuned, "batch", *TOKENS, own_prices=own) == price_answer(tuned, "batch", *TOKENS)


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ({"input": "four", "output": 1}, r"\['gpt-6.2-sol'\]\['input'\]='four' in its extra must be"),
        ({"input": 4, "output": -1}, r"\['output'\]=-1 in its extra must be US dollars per million tokens, at least 0"),
        ({"input": True, "output": 1}, r"\['input'\]=True"),
        ({"input": "nan", "output": 1}, r"\['input'\]='nan'"),
        ({"input": None, "output": 1}, r"\['input'\]=None"),
        ({"input": 4}, "lacks output; write 0 for what costs nothing"),
        ({}, "lacks input and output"),
        (4, "must be an object with prices, for instance"),
        ({"input": 4, "ouput": 1}, "has 'ouput'; known are input, cached_input, cache_write, output, input_image, "),
        ({"input": 4, "output": 1, "batch": {"input": 1}}, r"\['batch'\] in its extra lacks output"),
        ({"input": 4, "output": 1, "batch": 2}, r"\['batch'\] in its extra must be an object"),
    ],
)  # fmt: skip
def test_what_is_no_price_is_named(price: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"connection 'c': prices.*{message}"):
        read(price)


def test_prices_that_are_no_object_are_named() -> None:
    with pytest.raises(ConfigError, match="connection 'c': prices in its extra must be an object by model"):
        read_own_prices({"prices": [4, 20]}, "connection 'c'")
