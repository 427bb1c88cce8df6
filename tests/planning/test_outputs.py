"""What requests allow as output, summed while the input is scanned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_openai_batch.openai_api.endpoints import BY_URL
from airflow_openai_batch.planning.split import Counting
from airflow_openai_batch.requests.request import read_request
from airflow_openai_batch.requests.tokens.measure import measure_body
from fixtures.split_input import request_line, split, write_lines

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def allowed(plan: Plan) -> list[tuple[str, str, int, int, int]]:
    return [
        (each.model, each.endpoint, each.requests, each.bounded_tokens, each.unbounded_requests)
        for each in plan.outputs
    ]


def line_to(url: str, **body: Any) -> str:
    given = {"model": "gpt-4o-mini", **body}
    return request_line("a", url=url, body=given)


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        (request_line(max_tokens=100), 100),
        (request_line(max_tokens=100, n=3), 300),
        (request_line(max_completion_tokens=70), 70),
        (request_line(max_completion_tokens=70, max_tokens=100), 70),
        (request_line(max_tokens=None), None),
        (request_line(), None),
        (request_line(n=4), None),
        (request_line(max_tokens=100, n=2, tools=[TOOL]), 200),
        (request_line(max_completion_tokens=70, tools=[TOOL]), 70),
        (request_line(tools=[TOOL]), None),
        (request_line(max_tokens="many"), None),
        (request_line(max_tokens=-5), 0),
        (request_line(max_tokens=10**30), 2**32 - 1),
        (line_to(RESPONSES, input="Hi", max_output_tokens=50), 50),
        (line_to(RESPONSES, input="Hi"), None),
        (line_to(RESPONSES, input=[{"role": "user", "content": "Hi"}], max_output_tokens=50), 50),
        (line_to("/v1/completions", prompt="Hi", max_tokens=9), 9),
        (line_to("/v1/completions", prompt="Hi", max_tokens=9, n=2, best_of=5), 45),
        (line_to("/v1/completions", prompt="Hi"), 16),  # the endpoint's own default
        (line_to("/v1/embeddings", input=["Hi", "there"]), 0),
        (line_to("/v1/moderations", input="Hi"), 0),
    ],
)
def test_each_endpoint_says_what_it_allows_in_its_own_words(
    tmp_path: Path, line: str, tokens: int | None
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line])
    (found,) = split(source, tmp_path / "job").plan.outputs
    assert (found.requests, found.bounded_tokens, found.unbounded_requests) == (
        1,
        tokens or 0,
        tokens is None,
    )


NUMBERS = st.none() | st.integers() | st.sampled_from([0, 1, 16, 4_096, 2**32, 10**30])


@given(
    shape=st.sampled_from(
        [(CHAT, {"messages": []}), (RESPONSES, {"input": "Hi"}), (EMBEDDINGS, {"input": "Hi"})]
    ),
    limits=st.dictionaries(
        st.sampled_from(["max_tokens", "max_completion_tokens", "max_output_tokens", "n"]), NUMBERS
    ),
)
def test_the_fast_way_allows_what_the_careful_one_does(
    shape: tuple[str, dict[str, Any]], limits: dict[str, Any]
) -> None:
    url, rest = shape
    body = {"model": "gpt-4o", **rest, **limits}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": body})
    request, careful = read_request(line.encode()), measure_body(body, BY_URL[url])
    assert request.is_plain
    assert request.body.output_tokens == careful.output_tokens
    assert request.body.choices == careful.choices


def test_sums_are_kept_apart_by_model_and_endpoint_in_input_order(tmp_path: Path) -> None:
    lines = [
        request_line("a", max_tokens=1),
        request_line("b", max_tokens=10, model="gpt-4o"),
        line_to(RESPONSES, input="Hi", max_output_tokens=100).replace('"a"', '"c"'),
        request_line("d", max_tokens=1_000),
        request_line("e"),
    ]
    source = write_lines(tmp_path / "in.jsonl", lines)
    assert allowed(split(source, tmp_path / "job").plan) == [
        ("gpt-4o-mini", CHAT, 3, 1_001, 1),
        ("gpt-4o", CHAT, 1, 10, 0),
        ("gpt-4o-mini", RESPONSES, 1, 100, 0),
    ]


@pytest.mark.parametrize("mode", ["exact", "bound"])
def test_lines_that_are_not_sent_allow_nothing(tmp_path: Path, mode: Any) -> None:
    lines = [
        request_line("a", max_tokens=1),
        request_line("a", max_tokens=10),  # the same id again
        request_line("b", "long " * 500, max_tokens=100),  # can never fit
        request_line("b2", "long " * 500),
        "{}",
        request_line("a", tools=[TOOL]),
        request_line("c", max_tokens=1_000),
    ]
    source = write_lines(tmp_path / "in.jsonl", lines)
    counting = Counting(mode=mode, workers=0)
    plan = split(source, tmp_path / "job", on_bad_line="reject", max_tokens=300, counting=counting).plan
    assert plan.counts.requests == 2
    assert allowed(plan) == [("gpt-4o-mini", CHAT, 2, 1_001, 0)]


def test_processes_that_count_find_the_same(tmp_path: Path) -> None:
    lines = [request_line(f"{n}", "text " * 100, max_tokens=n) for n in range(9_000)]
    lines += [request_line(f"x{n}", "text " * 100, model="gpt-4o") for n in range(50)]
    source = write_lines(tmp_path / "in.jsonl", lines)  # three chunks
    counting = Counting(mode="bound", workers=2)
    plan = split(source, tmp_path / "job", counting=counting).plan
    assert allowed(plan) == [
        ("gpt-4o-mini", CHAT, 9_000, sum(range(9_000)), 0),
        ("gpt-4o", CHAT, 50, 0, 50),
    ]


def test_a_plan_of_a_release_that_did_not_look_can_still_be_read(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request_line("a", max_tokens=5)])
    plan = split(source, tmp_path / "job").plan
    old = {
        key: value
        for key, value in msgspec.to_builtins(plan).items()
        if key not in ("outputs", "count_images")
    }
    (tmp_path / "job" / "plan.json").write_bytes(msgspec.json.encode(old))
    again = split(source, tmp_path / "job")
    assert not again.created
    assert again.plan.outputs == ()
    assert again.plan.fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    ("tier", "tools", "dearer"),
    [
        ("priority", False, 1),
        ("priority", True, 1),
        ("fast", False, 1),
        ("flex", False, 0),
        (None, True, 0),
        (7, False, 0),
    ],
)
def test_requests_for_a_tier_above_the_standard_price_are_counted(
    tmp_path: Path, tier: Any, tools: bool, dearer: int
) -> None:
    body = {"service_tier": tier, **({"tools": [TOOL]} if tools else {})}
    source = write_lines(tmp_path / "in.jsonl", [request_line("a", **body), request_line("b")])
    (found,) = split(source, tmp_path / "job").plan.outputs
    assert (found.requests, found.dearer_requests) == (2, dearer)
