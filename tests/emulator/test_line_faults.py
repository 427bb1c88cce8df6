"""Faults of single requests, in batches and in real time."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from airflow_openai_batch.testing.refusals import ApiError
from emulator.lines import (
    CHAT,
    chat_body,
    errors,
    outputs,
    request_line,
    request_lines,
    start_batch,
    still_emulator,
)


@pytest.mark.parametrize("status", [0, 400, 429, 500, 503])
def test_a_status_stands_in_the_error_file_once(status: int) -> None:
    emulator = still_emulator()
    emulator.script.add({"line": status, "custom_id": "r-3"})
    batch_id = start_batch(emulator, request_lines(10))
    (line,) = errors(emulator, batch_id)
    assert (line["custom_id"], line["response"]["status_code"], line["error"]) == ("r-3", status, None)
    assert ("error" in line["response"]["body"]) == (status != 0)
    assert len(outputs(emulator, batch_id)) == 9
    assert emulator.books.good["batch"] == 9
    again = start_batch(emulator, request_lines(10))
    assert len(outputs(emulator, again)) == 10, "it strikes once unless told otherwise"


def test_a_fault_can_last_for_ever_and_have_a_code() -> None:
    emulator = still_emulator()
    rule = emulator.script.add({"line": 429, "code": "insufficient_quota", "times": None})
    for _ in range(3):
        lines = errors(emulator, start_batch(emulator, request_lines(2)))
        assert [line["response"]["body"]["error"]["code"] for line in lines] == ["insufficient_quota"] * 2
    assert next(r.hits for r in emulator.script.rules if r.id == rule) == 6


def test_lines_are_missing_twice_there_or_strings() -> None:
    emulator = still_emulator()
    emulator.script.add({"line": "missing", "position": [0, 1]})
    emulator.script.add({"line": "duplicate", "custom_id": "r-2"})
    emulator.script.add({"line": "string_body", "custom_id": "r-3"})
    batch_id = start_batch(emulator, request_lines(6))
    found = outputs(emulator, batch_id)
    assert Counter(line["custom_id"] for line in found) == {"r-2": 2, "r-3": 1, "r-4": 1, "r-5": 1}
    (as_text,) = (line["response"]["body"] for line in found if line["custom_id"] == "r-3")
    assert isinstance(as_text, str)
    assert json.loads(as_text)["object"] == "chat.completion"
    assert errors(emulator, batch_id) == []
    assert emulator.books.good_by_custom_id["r-2"] == 1, "standing twice is not being paid twice"
    assert "r-0" not in emulator.books.good_by_custom_id


@pytest.mark.parametrize("code", ["request_timeout", "batch_expired", "batch_cancelled"])
def test_error_codes_come_without_a_response(code: str) -> None:
    emulator = still_emulator()
    emulator.script.add({"line": code, "every": 2})
    batch_id = start_batch(emulator, request_lines(4))
    lines = errors(emulator, batch_id)
    assert sorted(line["custom_id"] for line in lines) == ["r-0", "r-2"]
    assert all(line["response"] is None and line["error"]["code"] == code for line in lines)


SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "required": ["a"]}},
}


@pytest.mark.parametrize(
    ("fault", "reason", "content"),
    [
        ("refusal", "stop", None),
        ("content_filter", "content_filter", ""),
        ("length", "length", None),
        ("empty", "stop", ""),
        ("not_json", "stop", "Sure! Here is what you asked for:"),
        ("bad_schema", "stop", '{"unexpected": ["not what the schema asked for"]}'),
    ],
)
def test_answers_are_spoiled_and_billed_all_the_same(fault: str, reason: str, content: str | None) -> None:
    emulator = still_emulator()
    emulator.script.add({"line": fault})
    batch_id = start_batch(emulator, request_line("a", chat_body(response_format=SCHEMA)))
    (line,) = outputs(emulator, batch_id)
    choice = line["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == reason
    if content is not None:
        assert choice["message"]["content"] == content
    if fault == "refusal":
        assert choice["message"]["refusal"]
    if fault == "length":
        with pytest.raises(json.JSONDecodeError):
            json.loads(choice["message"]["content"])
    assert (emulator.books.billed["batch"], emulator.books.good["batch"]) == (1, 0)


def test_a_share_of_requests_is_struck_the_same_way_each_time() -> None:
    def struck(seed: int) -> list[str]:
        emulator = still_emulator(seed=seed)
        emulator.script.add({"line": 500, "share": 0.3})
        return sorted(
            line["custom_id"] for line in errors(emulator, start_batch(emulator, request_lines(200)))
        )

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 30 < len(struck(1)) < 90


def test_real_time_calls_are_struck_too() -> None:
    emulator = still_emulator()
    emulator.script.add({"line": 503, "scope": "realtime", "contains": "about dogs", "times": 2})
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            emulator.call(CHAT, chat_body("Tell me about dogs."))
        assert caught.value.status == 503
    answer, _ = emulator.call(CHAT, chat_body("Tell me about dogs."))
    assert answer["choices"][0]["message"]["content"]
    assert emulator.call(CHAT, chat_body("Tell me about cats."))[0]
    batch_id = start_batch(emulator, request_line("x", chat_body("Tell me about dogs.")))
    assert len(outputs(emulator, batch_id)) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"line": 500, "postion": 3}, "postion"),
        ({"line": "vanished"}, "vanished"),
        ({"batch": "done"}, "done"),
        ({"times": 3}, "exactly one of batch=, line=, http="),
        ({"batch": "failed", "line": 500}, "exactly one of"),
    ],
)
def test_a_script_that_says_nothing_sensible_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        still_emulator().script.add(fields)


def test_a_failing_answer_function_spoils_one_line_and_not_the_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emulator = still_emulator()

    def answer(body: dict[str, Any]) -> str | None:
        text = body["messages"][0]["content"]
        if "r-1" in text:
            raise KeyError("oops")
        return "mine" if "r-2" in text else None

    emulator.answer = answer
    batch_id = start_batch(emulator, request_lines(4))
    found = {line["custom_id"]: line["response"]["body"] for line in outputs(emulator, batch_id)}
    assert found["r-2"]["choices"][0]["message"]["content"] == "mine"
    assert found["r-3"]["choices"][0]["message"]["content"] != "mine"
    (line,) = errors(emulator, batch_id)
    assert (line["custom_id"], line["response"]["status_code"]) == ("r-1", 500)
    assert "could not answer" in caplog.text


def test_a_whole_body_can_be_the_answer_and_an_odd_one_is_a_line() -> None:
    emulator = still_emulator()
    emulator.answer = lambda body: {"choices": "\ud83d" if "3" in str(body) else "odd"}
    batch_id = start_batch(emulator, request_lines(5))
    assert [line["response"]["body"] for line in outputs(emulator, batch_id)] == [{"choices": "odd"}] * 4
    (line,) = errors(emulator, batch_id)
    assert (line["custom_id"], line["response"]["status_code"]) == ("r-3", 500)


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": None, "completion_tokens": "12"}])
def test_an_answer_with_odd_usage_ends_its_batch_like_any_other(usage: Any) -> None:
    emulator = still_emulator()
    emulator.answer = lambda body: {"choices": [], "usage": usage}
    batch_id = start_batch(emulator, request_lines(2))
    assert [line["response"]["body"]["usage"] for line in outputs(emulator, batch_id)] == [usage] * 2
