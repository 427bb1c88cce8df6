"""``deployments`` of a connection: names of one's own cost and are counted like the model behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.deployments import NO_DEPLOYMENTS, Deployments
from airflow_openai_batch.openai_api.own_prices import OwnPrices, describe_price_setting, read_own_prices
from airflow_openai_batch.openai_api.prices import estimate_cost, price_answer
from airflow_openai_batch.planning.split import Counting
from fixtures.split_input import request_line, split, write_lines

NAME, MODEL = "my-mini", "gpt-5.4-mini"
TOKENS = (10_000, 1_000)
CHAT = "/v1/chat/completions"


def read(**extra: Any) -> OwnPrices:
    return read_own_prices(extra, "connection 'c'")


def test_a_deployment_costs_what_its_model_costs() -> None:
    prices = read(deployments={NAME: MODEL})
    assert price_answer(NAME, "batch", *TOKENS) is None
    assert price_answer(NAME, "batch", *TOKENS, own_prices=prices) == price_answer(MODEL, "batch", *TOKENS)
    assert estimate_cost(NAME, CHAT, *TOKENS, own_prices=prices) == estimate_cost(MODEL, CHAT, *TOKENS)


def test_the_model_that_answered_is_more_exact_than_that_behind_the_name() -> None:
    prices = read(deployments={NAME: "gpt-4o"})
    answered = price_answer(f"{MODEL}-2026-03-17", "batch", *TOKENS, asked=NAME, own_prices=prices)
    assert answered == price_answer(MODEL, "batch", *TOKENS)


def test_a_name_that_is_a_models_too_means_the_model_behind_it() -> None:
    prices = read(deployments={"gpt-4o": MODEL})
    assert price_answer("gpt-4o", "batch", *TOKENS, own_prices=prices) == price_answer(
        MODEL, "batch", *TOKENS
    )


@pytest.mark.parametrize("priced", [NAME, MODEL])
def test_a_price_of_ones_own_holds_for_the_deployment_and_for_its_model(priced: str) -> None:
    prices = read(deployments={NAME: MODEL}, prices={priced: {"input": 4, "output": 20}})
    assert price_answer(NAME, "batch", *TOKENS, own_prices=prices) == pytest.approx((0.03, 0.06))


@pytest.mark.parametrize("value", [["my-mini"], "my-mini=gpt-5.4-mini", 7, True])
def test_deployments_that_are_no_object_are_refused_with_an_example(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read(deployments=value)
    assert str(caught.value) == (
        "connection 'c': deployments in its extra must be an object of models by the names of deployments, for "
        'instance {"my-mini": "gpt-5.4-mini"}.'
    )


@pytest.mark.parametrize("model", [None, "", 7, {"model": "gpt-4o"}])
def test_a_deployment_without_the_name_of_a_model_is_named(model: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"deployments\['my-mini'\]=.* must be the name of the model behind it"
    ):
        read(deployments={NAME: model})


@pytest.mark.parametrize("value", [None, "", {}])
def test_where_none_are_said_nothing_changes(value: Any) -> None:
    assert read(deployments=value).deployments.models == {}
    assert "deployments" not in describe_price_setting(NAME, read(deployments=value))


@pytest.mark.parametrize(
    ("deployments", "is_told"),
    [
        (NO_DEPLOYMENTS, False),
        (Deployments(expected=True), True),
        (Deployments(models={"other": MODEL}), True),
        (Deployments(models={NAME: "a-model-without-a-price"}), False),
    ],
)
def test_a_price_that_is_not_known_names_deployments_where_it_may_be_one(
    deployments: Deployments, is_told: bool
) -> None:
    said = describe_price_setting(NAME, OwnPrices(deployments=deployments))
    assert ('{"deployments": {"my-mini": ' in said) == is_told
    assert '{"prices": {"my-mini": ' in said


def plan_of(tmp_path: Path, name: str, deployments: Deployments = NO_DEPLOYMENTS) -> Any:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
    lines = [
        request_line("plain", "один два три", model=name),
        request_line("tools", model=name, tools=[{"type": "function", "function": {"name": "f"}}]),
        request_line("image", model=name, messages=[{"role": "user", "content": [image]}]),
    ]
    path = write_lines(tmp_path / f"{name}.jsonl", lines)
    return split(path, tmp_path / f"job-{name}", counting=Counting(workers=0, deployments=deployments))


def test_tokens_of_a_deployment_are_those_of_its_model(tmp_path: Path) -> None:
    """Of a model with another encoding and other prices of images than what is taken for a name that is not known."""
    behind = Deployments(models={NAME: "gpt-4"})
    (known,) = plan_of(tmp_path, "gpt-4").plan.shards
    found = plan_of(tmp_path, NAME, behind)
    (unknown,) = plan_of(tmp_path, "my-other").plan.shards
    (shard,) = found.plan.shards
    assert (shard.model, shard.input_tokens, shard.tokens) == (NAME, known.input_tokens, known.tokens)
    assert unknown.input_tokens != known.input_tokens
    assert not any(NAME in notice for notice in found.notices)


def test_a_deployment_has_the_context_window_of_its_model(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "in.jsonl", [request_line("a"), request_line("b", "word " * 9_000, model=NAME)]
    )
    counting = Counting(workers=0, deployments=Deployments(models={NAME: "gpt-4"}))
    split(path, tmp_path / "job", counting=counting, on_bad_line="reject")
    assert "limit 8,192 of my-mini" in (tmp_path / "job" / "rejected.jsonl").read_text()
