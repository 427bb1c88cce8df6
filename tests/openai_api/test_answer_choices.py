"""Several choices to a request: all stand in its row, the worst one is told, and they are bounded together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.requests.request import read_request
from airflow_openai_batch.tables.join.typed_answers import _make_answer
from fixtures.shard_on_disk import ShardOnDisk, answer, chat_body, request

COMPLETIONS = "/v1/completions"
GOOD = {"type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"]}


def votes(*texts: str | None, reasons: tuple[str, ...] = (), **message: Any) -> dict[str, Any]:
    body = chat_body()
    body["choices"] = [
        {
            "index": index,
            "message": {"content": text, **message},
            "finish_reason": reasons[index] if reasons else "stop",
        }
        for index, text in enumerate(texts)
    ]
    return body


def land(folder: Path, body: dict[str, Any], asked: bytes | None = None, **more: Any) -> dict[str, Any]:
    shard = ShardOnDisk(folder, requests=[asked or request("a", n=3)], **more)
    shard.add_send([answer("a", body)])
    shard.land()
    return shard.rows()[0]


def test_all_votes_stand_in_the_row_in_their_order(tmp_path: Path) -> None:
    body = votes("Positive", "Negative", "Mixed")
    body["choices"].reverse()
    row = land(tmp_path, body)
    assert (row["status"], row["content"]) == ("ok", "Positive")
    assert row["choices"] == ["Positive", "Negative", "Mixed"]
    assert row["finish_reason"] == "stop"
    found = _make_answer({**row}, None, 0, None, "")
    assert (found.value, found.choices) == ("Positive", ("Positive", "Negative", "Mixed"))


def test_one_choice_leaves_the_column_empty(tmp_path: Path) -> None:
    assert land(tmp_path, votes("Positive"))["choices"] is None


def test_prompts_of_one_request_all_have_their_answers(tmp_path: Path) -> None:
    texts = [("Paris", "stop"), ("Lim", "length"), ("N'Djamena", "stop")]
    choices = [{"text": t, "index": i, "finish_reason": reason} for i, (t, reason) in enumerate(texts)]
    body = {**chat_body(), "choices": choices}
    row = land(tmp_path, body, request("a", prompt=["France?", "Peru?", "Chad?"]), endpoint=COMPLETIONS)
    assert row["choices"] == ["Paris", "Lim", "N'Djamena"]
    assert (row["status"], row["error_code"], row["finish_reason"]) == ("failed", "truncated", "length")
    assert "choice 2 of 3" in row["error_message"]


@pytest.mark.parametrize(
    ("reasons", "worst", "number"),
    [
        (("stop", "length", "content_filter"), "content_filter", 3),
        (("length", "stop", "length"), "length", 1),
        (("stop", "stop", "length"), "length", 3),
    ],
)
def test_the_worst_finish_reason_is_told(
    tmp_path: Path, reasons: tuple[str, ...], worst: str, number: int
) -> None:
    row = land(tmp_path, votes("a", "b", "c", reasons=reasons))
    assert (row["status"], row["finish_reason"]) == ("failed", worst)
    assert f"choice {number} of 3" in row["error_message"]


def test_every_choice_is_held_against_the_schema(tmp_path: Path) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": GOOD}}
    asked = request("a", n=2, response_format=schema)
    row = land(tmp_path, votes('{"good": true}', '{"good": 1}'), asked)
    assert (row["status"], row["error_code"]) == ("invalid_output", "invalid_output")
    assert row["error_message"].startswith("Choice 2 of 2: ")
    assert row["parsed"] == '{"good": true}'
    row = land(tmp_path, votes('{"good": true}', '{"good":\tfalse}'), asked)
    assert (row["status"], [json.loads(text)["good"] for text in row["choices"]]) == ("ok", [True, False])


def test_calls_of_several_choices_are_kept(tmp_path: Path) -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    row = land(tmp_path, votes(None, None, tool_calls=calls))
    assert row["status"] == "ok"
    assert [json.loads(text) for text in row["choices"]] == [calls, calls]
    assert json.loads(row["parsed"]) == calls


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"prompt": "France?", "max_tokens": 100}, 100),
        ({"prompt": ["France?", "Peru?", "Chad?"], "max_tokens": 1_000}, 3_000),
        ({"prompt": ["France?", "Peru?"], "max_tokens": 10, "n": 2}, 40),
        ({"prompt": ["France?", "Peru?"], "max_tokens": 10, "n": 2, "best_of": 5}, 100),
        ({"prompt": [1, 2, 3], "max_tokens": 10}, 10),
        ({"prompt": [[1, 2], [3]], "max_tokens": 10}, 20),
        ({"prompt": ["Good?"] * 500, "max_tokens": 10}, 5_000),
        ({"prompt": ["France?", "Peru?"]}, 32),
    ],
)
def test_the_bound_counts_every_prompt_and_choice(body: dict[str, Any], tokens: int) -> None:
    line = {"custom_id": "a", "method": "POST", "url": COMPLETIONS, "body": {"model": "m", **body}}
    assert read_request(json.dumps(line).encode()).body.output_tokens == tokens
