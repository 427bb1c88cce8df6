"""What the demo, the DAGs, the prompts and the README ask is one model, and one that lives."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_openai_batch.job.plan import Shard
from airflow_openai_batch.openai_api.model_ends import ENDS_SOON, find_end
from airflow_openai_batch.openai_api.models import (
    COMPARED_MODEL,
    DEFAULT_MODEL,
    context_tokens,
    encoding_of,
    most_output_tokens,
)
from airflow_openai_batch.openai_api.prices import price_answer
from airflow_openai_batch.openai_api.tiers import enqueued_tokens, tokens_per_minute
from airflow_openai_batch.planning.token_notices import describe_token_doubts
from airflow_openai_batch.requests.tokens import count_request_tokens
from demo.corpus import write_requests

ROOT = Path(__file__).resolve().parents[2]


def read_prompts() -> dict[str, dict[str, Any]]:
    """Those of chat models, by the name of their file."""
    paths = sorted((ROOT / "include" / "prompts").glob("*.yaml"))
    return {
        path.name: yaml.safe_load(path.read_text()) for path in paths if not path.name.startswith("embed")
    }


def read_samples() -> list[dict[str, Any]]:
    """Bodies of requests."""
    paths = (ROOT / "include" / "samples" / "request_files").glob("*.jsonl")
    return [json.loads(line)["body"] for path in paths for line in path.read_text().splitlines()]


@pytest.mark.parametrize("model", [DEFAULT_MODEL, COMPARED_MODEL])
def test_the_models_that_are_asked_live_on(model: str) -> None:
    ends_on = find_end(model)
    assert ends_on is None or ends_on - datetime.now(UTC).date() > ENDS_SOON, f"{model} ends on {ends_on}"


def test_all_is_known_of_the_default_model() -> None:
    assert encoding_of(DEFAULT_MODEL)[0] == "o200k_base"
    body = {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": "Good or bad?"}]}
    assert count_request_tokens(body, "/v1/chat/completions") == (11, "exact")
    assert context_tokens(DEFAULT_MODEL) == 1_050_000
    assert most_output_tokens(DEFAULT_MODEL) == 128_000
    assert enqueued_tokens(DEFAULT_MODEL, "1") == 2_000_000
    assert tokens_per_minute(DEFAULT_MODEL, "1") == 200_000
    cost = price_answer(DEFAULT_MODEL, "batch", 100_000, 100_000)
    assert cost is not None
    assert (cost.actual_usd, cost.standard_usd) == pytest.approx((0.03, 0.06))


def test_that_its_encoding_is_assumed_is_said_once() -> None:
    shard = Shard(
        shard=0, model=DEFAULT_MODEL, endpoint="/v1/chat/completions", requests=1, bytes=1, input_tokens=1, sha256="",
        first_position=0,
    )  # fmt: skip
    (told,) = describe_token_doubts([shard, shard], "exact")
    assert told.startswith(
        f"tiktoken names no encoding for {DEFAULT_MODEL}; tokens are counted with o200k_base"
    )


def test_prompts_samples_and_demo_ask_the_default_model(tmp_path: Path) -> None:
    prompts, samples, path = read_prompts(), read_samples(), tmp_path / "requests.jsonl"
    write_requests(path, 1)
    demo = json.loads(path.read_text())["body"]
    assert len(prompts) >= 5
    assert {each["model"] for each in [*prompts.values(), *samples, demo]} == {DEFAULT_MODEL}


def test_what_is_asked_is_what_the_default_model_takes(tmp_path: Path) -> None:
    """It refuses ``max_tokens`` and ``temperature``; its reasoning would use up a short limit."""
    path = tmp_path / "requests.jsonl"
    write_requests(path, 1)
    bodies = [json.loads(path.read_text())["body"], *read_samples()]
    for asked in [*bodies, *(prompt["parameters"] for prompt in read_prompts().values())]:
        assert not {"max_tokens", "temperature", "top_p"} & set(asked)
        assert asked["reasoning_effort"] == "none"
        assert asked["max_completion_tokens"] > 0


def test_no_example_names_a_chat_model_of_its_own() -> None:
    """In DAGs, the demo and the documents: what is not the constant would be forgotten when the model ends."""
    package = ROOT / "include" / "airflow_openai_batch"
    paths = [*ROOT.glob("dags/*.py"), *ROOT.glob("include/demo/*.py"), *package.glob("recipes/**/*.py")]
    for path in paths:
        assert not re.findall(r"\bgpt-\d[\w.-]*|\bo\d-mini\b", path.read_text()), path.name
    documents = "\n".join(path.read_text() for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
    shown = set(re.findall(r'"?model"?[=:] ?"(\w+-[\w.-]+)"', documents))
    assert DEFAULT_MODEL in shown
    assert not {model for model in shown if find_end(model) is not None}
