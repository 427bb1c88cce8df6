"""What a response ends with is its answer: the final message, or calls of whatever kind, asked for once."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from openai.types.responses import ResponseOutputItem

from airflow_openai_batch.results.outcome import Outcome, OutcomeRules, read_outcome
from fixtures.shard_on_disk import RESPONSES, answer

MOOD = {
    "type": "object",
    "properties": {"mood": {"type": "string"}},
    "required": ["mood"],
    "additionalProperties": False,
}
JSON_TEXT = '{"mood":"good"}'
REASONING = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}


def message(text: str, phase: str | None = None) -> dict[str, Any]:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return said if phase is None else {**said, "phase": phase}


def call(kind: str, **more: Any) -> dict[str, Any]:
    return {"id": "x_1", "type": kind, "call_id": "call_1", "status": "completed", **more}


def judge(*output: Any, schema: Any = MOOD, status: str = "completed") -> Outcome:
    body = {"model": "gpt-6-luna", "status": status, "output": list(output), "usage": {"input_tokens": 1}}
    encoded = None if schema is None else json.dumps(schema).encode()
    return read_outcome(
        answer("a", body), RESPONSES, "text" if schema is None else "json_schema", encoded, OutcomeRules()
    )


FINAL = {
    "after commentary": [REASONING, message("I weigh it.", "commentary"), message(JSON_TEXT, "final_answer")],
    "before commentary": [message(JSON_TEXT, "final_answer"), message("That was it.", "commentary")],
    "after a message of no phase": [message("Well."), message(JSON_TEXT, "final_answer")],
    "of no phase, after commentary": [message("I weigh it.", "commentary"), message(JSON_TEXT)],
    "after a hosted tool": [call("web_search_call"), message(JSON_TEXT)],
    "after a hosted shell": [call("shell_call"), call("shell_call_output"), message(JSON_TEXT)],
    "after what nobody knows yet": [call("telepathy_call"), message(JSON_TEXT)],
    "after a kind that is no text": [{"type": ["odd"]}, message(JSON_TEXT)],
    "begun anew in a second message": [message('{"mood":"go'), message(JSON_TEXT)],
    "begun anew in a second part": [
        {"type": "message", "content": [{"type": "output_text", "text": t} for t in ('{"mood"', JSON_TEXT)]}
    ],
    "given twice": [message('{"mood":"bad"}'), message(JSON_TEXT)],
    "before a word of farewell": [message(JSON_TEXT), message("Done.")],
    "in two halves": [message('{"mood":'), message('"good"}')],
    "beside a thought": [
        {
            "type": "message",
            "content": [{"type": "reasoning_text", "text": "Hm."}, {"type": "text", "text": JSON_TEXT}],
        }
    ],
}


@pytest.mark.parametrize("name", FINAL)
def test_the_final_message_alone_is_the_content_and_is_checked(name: str) -> None:
    outcome = judge(*FINAL[name])
    assert (outcome.status, outcome.error_message, outcome.parsed) == ("ok", None, JSON_TEXT)
    assert outcome.answer is not None
    assert outcome.answer.content == JSON_TEXT


def test_a_message_that_stands_twice_under_one_id_was_said_once() -> None:
    twice = {"id": "msg_1", **message("It is good.")}
    for output, content in (
        ([twice, REASONING, twice], "It is good."),
        ([message("Ha. "), message("Ha. ")], "Ha. Ha. "),
        ([twice, {**twice, **message(" Really.")}], "It is good. Really."),
    ):
        outcome = judge(*output, schema=None)
        assert outcome.answer is not None
        assert (outcome.status, outcome.answer.content) == ("ok", content)
    twice = {"id": "msg_1", **message(JSON_TEXT)}
    outcome = judge(twice, twice)
    assert (outcome.status, outcome.parsed) == ("ok", JSON_TEXT)


WAITING = {
    "a function": call("function_call", name="lookup", arguments="{}"),
    "a tool of one's own": call("custom_tool_call", name="lookup", input="x"),
    "an approval": {"id": "mcpr_1", "type": "mcp_approval_request", "name": "t", "arguments": "{}"},
    "a patch": call("apply_patch_call", operation={"type": "delete_file", "path": "a.py"}),
    "a shell": call("shell_call", action={"commands": ["ls"]}),
    "a search for tools here": call("tool_search_call", execution="client"),
    "a search for tools there": call("tool_search_call", execution="server"),
    "what nobody knows yet": call("telepathy_call", thought="x"),
}


@pytest.mark.parametrize("name", WAITING)
@pytest.mark.parametrize(
    "preamble", [[], [message("I look it up first.", "commentary")], [REASONING, message("I look it up.")]]
)
def test_a_call_that_waits_is_a_whole_answer_whatever_was_said_before(name: str, preamble: list[Any]) -> None:
    waiting = WAITING[name]
    outcome = judge(*preamble, {"id": "mcpl_1", "type": "mcp_list_tools", "tools": []}, waiting)
    assert (outcome.status, outcome.error_code, outcome.retryable) == ("ok", None, False)
    assert outcome.parsed is not None
    assert json.loads(outcome.parsed) == [waiting]
    assert outcome.answer is not None
    said = preamble[-1] if preamble else {}
    assert outcome.answer.content == ("I look it up." if said and "phase" not in said else None)


def test_commentary_is_the_content_where_there_is_nothing_else() -> None:
    outcome = judge(message("I weigh", "commentary"), schema=None, status="incomplete")
    assert outcome.error_code == "truncated"
    assert outcome.answer is not None
    assert outcome.answer.content == "I weigh"


@pytest.mark.parametrize("output", [[], [REASONING], [{"type": "mcp_list_tools", "tools": []}]])
def test_a_response_that_says_nothing_is_asked_again_and_was_paid_for(output: list[Any]) -> None:
    outcome = judge(*output, schema=None)
    assert (outcome.status, outcome.error_code, outcome.retryable) == (
        "invalid_output",
        "unreadable_answer",
        True,
    )
    assert outcome.answer is not None
    assert outcome.answer.usage is not None
    assert outcome.answer.usage.input_tokens == 1


PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
KINDS = {
    "additional_tools": "stands beside the answer",
    "apply_patch_call": "waits",
    "apply_patch_call_output": "stands beside the answer",
    "code_interpreter_call": "stands beside the answer",
    "compaction": "stands beside the answer",
    "computer_call": "waits",
    "computer_call_output": "stands beside the answer",
    "custom_tool_call": "waits",
    "custom_tool_call_output": "stands beside the answer",
    "file_search_call": "stands beside the answer",
    "function_call": "waits",
    "function_call_output": "stands beside the answer",
    "image_generation_call": "is a file",
    "local_shell_call": "waits",
    "local_shell_call_output": "stands beside the answer",
    "mcp_approval_request": "waits",
    "mcp_approval_response": "stands beside the answer",
    "mcp_call": "stands beside the answer",
    "mcp_list_tools": "stands beside the answer",
    "message": "is the text",
    "program": "stands beside the answer",
    "program_output": "stands beside the answer",
    "reasoning": "stands beside the answer",
    "shell_call": "waits",
    "shell_call_output": "stands beside the answer",
    "tool_search_call": "waits",
    "tool_search_output": "stands beside the answer",
    "web_search_call": "stands beside the answer",
}
"""What becomes of each item that a response may have."""


def list_client_kinds() -> Iterator[str]:
    """Of the installed client."""
    union = get_args(ResponseOutputItem)[0]
    for item in get_args(union):
        yield from get_args(item.model_fields["type"].annotation)


def test_no_kind_of_item_that_the_client_knows_is_unheard_of_here() -> None:
    assert set(list_client_kinds()) <= set(KINDS)


def make_item(kind: str) -> dict[str, Any]:
    if kind == "message":
        return message("Hello")
    return call(kind, result=PICTURE) if kind == "image_generation_call" else call(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_item_is_an_answer_or_a_reason_and_spoils_no_text(kind: str) -> None:
    item = make_item(kind)
    alone = judge(item, schema=None)
    assert alone.answer is not None
    found = (alone.status, alone.error_code, alone.answer.content, alone.parsed, bool(alone.answer.media))
    assert (
        found
        == {
            "is the text": ("ok", None, "Hello", None, False),
            "is a file": ("ok", None, None, None, True),
            "waits": ("ok", None, None, json.dumps([item], separators=(",", ":")), False),
            "stands beside the answer": ("invalid_output", "unreadable_answer", None, None, False),
        }[KINDS[kind]]
    )
    assert alone.status == "ok" or "neither a message nor a call" in (alone.error_message or "")
    before = judge(item, message("There.", "final_answer"), schema=None)
    assert before.answer is not None
    assert (before.status, before.answer.content) == ("ok", "There.")


UNDRAWN = {
    "blocked": (
        {"status": "failed", "error": {"code": "moderation_blocked", "type": "x", "message": "Not that."}},
        ("failed", "moderation_blocked", "Not that.", False),
    ),
    "nothing came": (
        {"status": "generating", "result": None},
        (
            "invalid_output",
            "missing_parts",
            "An image_generation_call brought no picture; its status is generating.",
            True,
        ),
    ),
    "no base64": (
        {"result": "Sorry."},
        (
            "invalid_output",
            "unreadable_answer",
            "The response body is not what /v1/responses returns: "
            "the result of an image_generation_call is not base64.",
            True,
        ),
    ),
}


@pytest.mark.parametrize("name", UNDRAWN)
def test_a_picture_that_did_not_come_is_a_reason(name: str) -> None:
    fields, expected = UNDRAWN[name]
    outcome = judge(call("image_generation_call", **fields), schema=None)
    assert (outcome.status, outcome.error_code, outcome.error_message, outcome.retryable) == expected
