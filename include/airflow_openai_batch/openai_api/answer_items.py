"""Answers of ``/v1/responses``: messages, calls and other items, of which the final message is the answer.

A model may say what it is about to do (phase ``commentary``) before it calls a tool or answers. Calls that wait for
the caller end a response without a text, and are a whole answer; so is what waits in a way that is not known here
yet, since asking again would bring the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.answer_media import read_drawn
from airflow_openai_batch.openai_api.answer_parts import (
    CONTENT_FILTER,
    MISSING_PARTS,
    REFUSAL,
    TEXT_PARTS,
    TRUNCATED,
    ResponseContent,
    find_text,
    is_kind,
    parts_of,
    read_usage,
    string,
)
from airflow_openai_batch.openai_api.response_bodies import OddShapeError, ResponseBody, ShapeReader

Item = dict[str, Any]

_MESSAGE: frozenset[str | None] = frozenset({"message"})
_DRAWING: frozenset[str | None] = frozenset({"image_generation_call"})
_CLIENT_CALLS: frozenset[str | None] = frozenset(
    {
        "apply_patch_call",
        "computer_call",
        "custom_tool_call",
        "function_call",
        "local_shell_call",
        "mcp_approval_request",
        "shell_call",
    }
)
"""Wait for the caller, unless what came of them stands beside them (a shell in OpenAI's own container)."""
_HOSTED: frozenset[str | None] = frozenset(
    {
        "additional_tools",
        "code_interpreter_call",
        "compaction",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "message",
        "program",
        "reasoning",
        "web_search_call",
    }
)
"""Have done their work, or are none; they stand beside the text."""

_response = ShapeReader(ResponseBody).read


def read_response(body: bytes) -> ResponseContent:
    root = _response(body)
    items = _leave_out_repeated(root.output)
    calls = _find_calls(items)
    said = _choose_messages(items, has_calls=bool(calls))
    texts = [text for item in said if (text := find_text(item.get("content"))) is not None]
    pieces = [
        text
        for part in _message_parts(said)
        if is_kind(part, TEXT_PARTS) and (text := string(part.get("text")))
    ]
    refusals = [text for part in _message_parts(items) if (text := string(part.get("refusal"))) is not None]
    drawings = [item for item in items if is_kind(item, _DRAWING)]
    media = [found for item in drawings if (found := read_drawn(item)) is not None]
    if root.status == "completed" and not (texts or refusals or calls or drawings):
        raise OddShapeError("output has neither a message nor a call")
    answer = ResponseContent(
        content="".join(texts) if texts else None,
        pieces=pieces if len(pieces) > 1 else None,
        refusal="".join(refusals) if refusals else None,
        structured=lenient_json.encode(calls) if calls else None,
        finish_reason=string(root.status),
        model=string(root.model),
        usage=read_usage(root.usage),
        service_tier=string(root.service_tier),
        media=media or None,
        has_text=not calls and (bool(texts) or not drawings),
    )
    _mark_defect(answer, root)
    if answer.defect is None and not (texts or calls or media) and drawings:
        _mark_undrawn(answer, drawings[-1])
    return answer


def _mark_undrawn(answer: ResponseContent, call: Item) -> None:
    """Nothing was said, and the picture did not come."""
    error = call.get("error")
    error = error if isinstance(error, dict) else {}
    status = string(call.get("status")) or "unknown"
    answer.defect = string(error.get("code")) or MISSING_PARTS
    answer.defect_message = (
        string(error.get("message"))
        or f"An image_generation_call brought no picture; its status is {status}."
    )


def _find_calls(items: Sequence[Item]) -> list[Item]:
    """Those that wait for the caller. What is not known does where the response ends with it."""
    done = {call_id for item in items if _is_result(item) and (call_id := string(item.get("call_id")))}
    said = [at for at, item in enumerate(items) if is_kind(item, _MESSAGE) and not _is_commentary(item)]
    last_said = said[-1] if said else -1
    return [
        item
        for at, item in enumerate(items)
        if not (is_kind(item, _HOSTED) or _is_result(item) or string(item.get("call_id")) in done)
        and (at > last_said or is_kind(item, _CLIENT_CALLS))
    ]


def _is_commentary(message: Item) -> bool:
    return message.get("phase") == "commentary"


def _is_result(item: Item) -> bool:
    kind = string(item.get("type"))
    return kind is not None and kind.endswith("_output")


def _leave_out_repeated(items: Sequence[Item]) -> list[Item]:
    """OpenAI now and then writes a message twice, under one id: it was said once."""
    kept: list[Item] = []
    for item in items:
        if not (is_kind(item, _MESSAGE) and item.get("id") and item in kept):
            kept.append(item)
    return kept


def _choose_messages(items: Sequence[Item], *, has_calls: bool) -> list[Item]:
    """The final ones; commentary only where nothing else was said and nothing is called."""
    messages = [item for item in items if is_kind(item, _MESSAGE)]
    return (
        [item for item in messages if item.get("phase") == "final_answer"]
        or [item for item in messages if not _is_commentary(item)]
        or ([] if has_calls else messages)
    )


def _message_parts(items: Sequence[Item]) -> list[Item]:
    return [part for item in items if is_kind(item, _MESSAGE) for part in parts_of(item.get("content"))]


def _mark_defect(answer: ResponseContent, root: ResponseBody) -> None:
    status = answer.finish_reason
    if status == "incomplete":
        details = root.incomplete_details
        reason = string(details.get("reason")) if isinstance(details, dict) else None
        answer.finish_reason = reason or status
        answer.defect = CONTENT_FILTER if reason == "content_filter" else TRUNCATED
        answer.defect_message = f"The response is incomplete: {reason or 'no reason given'}."
    elif status not in ("completed", None):
        error = root.error if isinstance(root.error, dict) else {}
        answer.defect = string(error.get("code")) or f"response_{status}"
        answer.defect_message = string(error.get("message")) or f"The response has the status {status}."
    elif answer.refusal:
        answer.defect = REFUSAL
        answer.defect_message = "The model refused; its words are in the column refusal."
