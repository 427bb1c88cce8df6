"""What became of a request is told from its line alone, whatever the server wrote there."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.error_codes import SPOILED_BODY
from airflow_openai_batch.requests import json_schema, schema_check
from airflow_openai_batch.results.outcome import Outcome, OutcomeRules, read_outcome
from fixtures.shard_on_disk import CHAT, EMBEDDINGS, RESPONSES, answer, broken, chat_body, refused

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(params=["jsonschema-rs", "jsonschema"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Schemas are checked by either library; compiled ones are not carried over."""
    if request.param == "jsonschema":
        monkeypatch.setattr(json_schema, "jsonschema_rs", None)
    else:
        pytest.importorskip("jsonschema_rs")
    schema_check._look_once.cache_clear()
    yield
    schema_check._look_once.cache_clear()


def judge(
    line: bytes, *, endpoint: str = CHAT, schema: Any = None, json_object: bool = False, **rules: Any
) -> Outcome:
    output_format = "json_schema" if schema is not None else "json_object" if json_object else "text"
    encoded = None if schema is None else json.dumps(schema).encode()
    return read_outcome(line, endpoint, output_format, encoded, OutcomeRules(**rules))


@pytest.mark.parametrize(
    ("line", "code", "retryable", "ran"),
    [
        (refused("a", 429, "rate_limit_exceeded"), "rate_limit_exceeded", True, True),
        (refused("a", 500, "server_error"), "server_error", True, True),
        (refused("a", 503, None), "http_503", True, True),
        (answer("a", {}, status_code=0), "no_response", True, True),
        (broken("a", "request_timeout"), "request_timeout", True, True),
        (broken("a", "batch_expired"), "batch_expired", True, False),
        (broken("a", "batch_cancelled"), "batch_cancelled", True, False),
        (json.dumps({"custom_id": "a", "response": None, "error": None}).encode(), "no_response", True, True),
        (refused("a", 400, None, f"{SPOILED_BODY}. (HINT: ...)"), "http_400", True, True),
        (answer("a", {}, error={"code": "upstream", "message": "No."}), "upstream", True, True),
        (answer("a", {}, error="No room."), "http_500", True, True),
        (refused("a", 400, "invalid_value"), "invalid_value", False, True),
        (refused("a", 404, "model_not_found"), "model_not_found", False, True),
        (refused("a", 400, "content_filter"), "content_filter", False, True),
    ],
)
def test_failure_is_told_from_the_status_and_asked_again_where_that_can_help(
    line: bytes, code: str, retryable: bool, ran: bool
) -> None:
    outcome = judge(line)
    assert (outcome.status, outcome.error_code) == ("failed", code)
    assert (outcome.retryable, outcome.ran) == (retryable, ran)
    assert outcome.error_message


@pytest.mark.parametrize(
    "line",
    [
        refused("a", 401, "invalid_api_key"),
        refused("a", 403, None),
        refused("a", 429, "insufficient_quota"),
        refused("a", 400, "billing_hard_limit_reached"),
        broken("a", "insufficient_quota"),
    ],
)
def test_account_without_rights_or_money_uses_up_no_attempt(line: bytes) -> None:
    outcome = judge(line)
    assert outcome.account_error
    assert outcome.retryable
    assert not outcome.ran


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (chat_body(None, refusal="I can't help with that."), "refusal"),
        (chat_body("It was a dark and", finish_reason="length"), "truncated"),
        (chat_body("", finish_reason="content_filter"), "content_filter"),
    ],
)
def test_half_answer_fails_unless_a_setting_accepts_it_or_asks_again(body: Any, code: str) -> None:
    line = answer("a", body)
    plain, accepted, again = (
        judge(line),
        judge(line, accept=frozenset({code})),
        judge(line, retry=frozenset({code})),
    )
    assert (plain.status, plain.error_code, plain.retryable) == ("failed", code, False)
    assert (accepted.status, accepted.error_code) == ("ok", code)
    assert (again.status, again.retryable) == ("failed", True)
    assert plain.answer is not None
    assert plain.answer.usage is not None  # it was paid for


def test_rules_refuse_codes_nobody_knows() -> None:
    with pytest.raises(
        ConfigError, match=r"retry_codes=\['refusals'\].*content_filter, invalid_output, refusal, truncated"
    ):
        OutcomeRules(retry=frozenset({"refusals"}))
    with pytest.raises(ConfigError, match="both in retry_codes and in accept_codes"):
        OutcomeRules(retry=frozenset({"truncated"}), accept=frozenset({"truncated"}))
    with pytest.raises(ConfigError, match="max_attempts=0"):
        OutcomeRules(max_attempts=0)


@pytest.mark.usefixtures("engine")
def test_answer_that_fits_its_schema_is_parsed() -> None:
    outcome = judge(answer("a", chat_body('{"name": "Ada", "age": 36}')), schema=PERSON)
    assert outcome.status == "ok"
    assert outcome.parsed == '{"name": "Ada", "age": 36}'


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "Ada"}', "breaks 'required'"),
        ('{"name": "Ada", "age": "old"}', r"\$\.age: breaks 'type'"),
        ('{"name": "Ada", "age": 36, "x": 1}', "breaks 'additionalProperties'"),
        ("```json\n{}\n```", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_answer_that_breaks_its_schema_is_invalid_and_asked_again(content: str, message: str) -> None:
    outcome = judge(answer("a", chat_body(content)), schema=PERSON)
    assert (outcome.status, outcome.error_code, outcome.retryable) == (
        "invalid_output",
        "invalid_output",
        True,
    )
    assert outcome.error_message is not None
    assert re.search(message, outcome.error_message)


def test_json_object_must_be_an_object() -> None:
    assert judge(answer("a", chat_body('{"a": 1}')), json_object=True).status == "ok"
    assert judge(answer("a", chat_body("[1]")), json_object=True).status == "invalid_output"
    assert judge(answer("a", chat_body("Sure! {}")), json_object=True).status == "invalid_output"


def test_truncated_json_is_called_truncated() -> None:
    outcome = judge(answer("a", chat_body('{"name": "A', finish_reason="length")), schema=PERSON)
    assert outcome.error_code == "truncated"


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#/$defs/absent"},
        {"type": "nonsense"},
        {"type": "object", "properties": {"name": {"pattern": "("}}},
    ],
)
def test_unusable_schema_is_not_blamed_on_the_answer(schema: Any) -> None:
    outcome = judge(answer("a", chat_body('{"name": "Ada", "age": 36}')), schema=schema)
    assert outcome.status == "ok"
    assert outcome.unchecked


@pytest.mark.usefixtures("engine")
def test_regular_expression_of_a_schema_cannot_hang_the_landing() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(?=a)(a+)+(?!c)$"}}}
    outcome = judge(answer("a", chat_body(json.dumps({"name": "a" * 200 + "b"}))), schema=schema)
    assert outcome.status in ("ok", "invalid_output")


def test_tool_calls_are_kept_as_structure() -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    outcome = judge(answer("a", chat_body(None, finish_reason="tool_calls", tool_calls=calls)), schema=PERSON)
    assert outcome.status == "ok"
    assert json.loads(outcome.parsed or "") == calls


def response_body(**fields: Any) -> dict[str, Any]:
    text = {
        "type": "message",
        "content": [{"type": "output_text", "text": "Hel"}, {"type": "output_text", "text": "lo"}],
    }
    return {
        "object": "response",
        "status": "completed",
        "model": "gpt-4o-mini",
        "output": [{"type": "reasoning", "summary": []}, text],
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 3},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        **fields,
    }


def test_response_gives_its_text_and_usage() -> None:
    found = judge(answer("a", response_body()), endpoint=RESPONSES).answer
    assert found is not None
    assert found.content == "Hello"
    assert found.usage is not None
    usage = found.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_tokens) == (
        9,
        3,
        7,
        2,
    )


@pytest.mark.parametrize(
    ("fields", "code", "retryable"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "truncated", False),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            False,
        ),
        ({"status": "failed", "error": {"code": "server_error", "message": "Oops."}}, "server_error", True),
        (
            {"status": "failed", "error": {"code": "invalid_prompt", "message": "No."}},
            "invalid_prompt",
            False,
        ),
        ({"status": "cancelled"}, "response_cancelled", True),
        (
            {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
            "refusal",
            False,
        ),
    ],
)
def test_response_that_is_not_complete_says_why(fields: dict[str, Any], code: str, retryable: bool) -> None:
    outcome = judge(answer("a", response_body(**fields)), endpoint=RESPONSES)
    assert (outcome.status, outcome.error_code, outcome.retryable) == ("failed", code, retryable)


def test_vectors_come_in_the_order_of_their_inputs_from_numbers_and_base64() -> None:
    packed = base64.b64encode(np.array([0.5, -2.0], "<f4").tobytes()).decode()
    body = {"data": [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [1, 2.5]}], "model": "m"}
    found = judge(answer("a", body), endpoint=EMBEDDINGS).answer
    assert found is not None
    assert found.embeddings is not None
    assert [vector.tolist() for vector in found.embeddings] == [[1.0, 2.5], [0.5, -2.0]]


def test_moderation_results_are_kept_as_structure() -> None:
    results = [{"flagged": True, "categories": {"violence": True}}]
    outcome = judge(
        answer("a", {"model": "omni-moderation-latest", "results": results}), endpoint="/v1/moderations"
    )
    assert outcome.status == "ok"
    assert json.loads(outcome.parsed or "") == results


def test_completion_gives_its_text() -> None:
    body = {"choices": [{"text": "Once upon", "finish_reason": "stop"}], "model": "gpt-3.5-turbo-instruct"}
    found = judge(answer("a", body), endpoint="/v1/completions").answer
    assert found is not None
    assert found.content == "Once upon"


def test_body_as_a_json_string_is_read_like_a_body() -> None:
    outcome = judge(answer("a", json.dumps(chat_body("Hello"))))
    assert outcome.answer is not None
    assert outcome.answer.content == "Hello"


def test_status_left_out_beside_a_whole_answer_is_a_success() -> None:
    assert judge(answer("a", chat_body("Hello"), status_code=None)).status == "ok"
    assert judge(answer("a", {"error": {"message": "No."}}, status_code=None)).status == "failed"


def test_text_that_utf8_cannot_hold_is_replaced() -> None:
    line = answer("a", chat_body("x")).replace(b'"x"', rb'"x\ud800y \ud83d\ude00 \u0000"')
    outcome = judge(line)
    assert outcome.answer is not None
    assert outcome.answer.content == "x\ufffdy \U0001f600 \x00"
    broken_bytes = judge(answer("a", chat_body("x")).replace(b'"x"', b'"x\xff"'))
    assert broken_bytes.answer is not None
    assert broken_bytes.answer.content == "x\ufffd"


ODD_BODIES = [
    None,
    [],
    "text",
    7,
    {},
    {"choices": []},
    {"choices": {}},
    {"choices": [7]},
    {"choices": [{"message": "x"}]},
    {"choices": None},
    {"output": "x", "data": "x", "results": "x"},
    {"data": []},
    {"data": [{"embedding": "not base64!"}]},
    {"data": [{"embedding": [[1.0]]}]},
    {"data": [{"embedding": [None]}]},
    {"data": [{"embedding": {}, "index": "x"}]},
]


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, EMBEDDINGS, "/v1/moderations", "/v1/completions"])
@pytest.mark.parametrize("body", ODD_BODIES)
def test_body_of_an_odd_shape_is_a_row_with_a_code(endpoint: str, body: Any) -> None:
    outcome = judge(answer("a", body), endpoint=endpoint)
    assert (outcome.status, outcome.error_code) == ("invalid_output", "unreadable_answer")
    assert outcome.retryable


@pytest.mark.parametrize(
    "usage",
    [
        None,
        7,
        {},
        {"prompt_tokens": "many"},
        {"prompt_tokens": -1},
        {"prompt_tokens": 2**70},
        {"prompt_tokens": 1.5},
    ],
)
def test_odd_usage_is_left_out(usage: Any) -> None:
    outcome = judge(answer("a", chat_body("Hello") | {"usage": usage}))
    assert outcome.status == "ok"
    assert outcome.answer is not None
    assert outcome.answer.usage is None or outcome.answer.usage.input_tokens is None


def test_only_we_call_a_line_torn() -> None:
    """A server may write what it likes beside an answer."""
    line = json.loads(answer("a", chat_body("Yes.")))
    line["response"]["torn"] = True
    outcome = read_outcome(json.dumps(line).encode(), CHAT, "text", None, OutcomeRules())
    assert (outcome.status, outcome.error_message) == ("ok", None)
