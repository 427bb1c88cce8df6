"""Answers that come as choices: chat and completions, one or several to a request (``n``, several prompts)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.answer_media import read_audio
from airflow_openai_batch.openai_api.answer_parts import (
    CONTENT_FILTER,
    MISSING_PARTS,
    REFUSAL,
    TRUNCATED,
    Choice,
    ResponseContent,
    find_text,
    read_usage,
    string,
)
from airflow_openai_batch.openai_api.response_bodies import (
    ChatBody,
    ChatChoice,
    CompletionBody,
    OddShapeError,
    ShapeReader,
    TextChoice,
)

_CUT_SHORT = ("content_filter", "length")
"""The worst first."""


class _Indexed(Protocol):
    index: Any
    error: Any


Indexed = TypeVar("Indexed", bound=_Indexed)


_chat = ShapeReader(ChatBody).read
_completion = ShapeReader(CompletionBody).read


def read_chat(body: bytes) -> ResponseContent:
    root = _chat(body)
    return _join(root, [_read_choice(number, each) for number, each in enumerate(_in_order(root.choices))])


def read_completion(body: bytes) -> ResponseContent:
    root = _completion(body)
    return _join(root, [_read_text(each) for each in _in_order(root.choices)])


def _in_order(choices: Sequence[Indexed]) -> list[Indexed]:
    """By their own numbers, where each has one: servers need not keep to the order.

    :raises OddShapeError: if there are none, or one is an error.
    """
    if not choices:
        raise OddShapeError("choices is empty")
    for each in choices:
        if each.error:
            raise OddShapeError("a choice is an error")
    if len(choices) == 1:
        return list(choices)
    if len({each.index for each in choices if type(each.index) is int}) < len(choices):
        return list(choices)
    return sorted(choices, key=lambda each: each.index)


def _read_choice(number: int, found: ChatChoice) -> ResponseContent:
    message = found.message
    calls = message.tool_calls or message.function_call
    text, refusal = find_text(message.content), string(message.refusal)
    finish_reason = string(found.finish_reason)
    spoken = isinstance(message.audio, dict)
    sound = read_audio(message.audio, f"choices[{number}].message.audio")
    if spoken and text is None:
        text = string(message.audio.get("transcript"))
    if text is None and not (refusal or calls or spoken or finish_reason in _CUT_SHORT):
        raise OddShapeError(f"choices[{number}].message has neither content nor refusal nor tool calls")
    return ResponseContent(
        content=text,
        refusal=refusal,
        structured=lenient_json.encode(calls) if calls else None,
        finish_reason=finish_reason,
        media=None if sound is None else [sound],
        defect=MISSING_PARTS if spoken and sound is None and not (refusal or calls) else None,
        has_text=not (calls or spoken),
    )


def _read_text(found: TextChoice) -> ResponseContent:
    return ResponseContent(content=found.text, finish_reason=string(found.finish_reason))


def _join(root: ChatBody | CompletionBody, choices: Sequence[ResponseContent]) -> ResponseContent:
    """The first choice, with what holds for all."""
    answer = choices[0]
    which = ""
    if len(choices) > 1:
        worst = min(range(len(choices)), key=lambda number: _rank(choices[number]))
        which = f" of choice {worst + 1} of {len(choices)}"
        answer.choices = [Choice(each.content, each.structured) for each in choices]
        answer.refusal = next((each.refusal for each in choices if each.refusal is not None), None)
        answer.finish_reason = choices[worst].finish_reason
        answer.media = [each for choice in choices for each in choice.media or ()] or None
    answer.model = string(root.model)
    answer.usage = read_usage(root.usage)
    answer.service_tier = string(root.service_tier)
    _mark_defect(answer, choices, which)
    return answer


def _rank(choice: ResponseContent) -> int:
    """Of several, the choice with the lowest is told."""
    reason = choice.finish_reason
    return _CUT_SHORT.index(reason) if reason in _CUT_SHORT else len(_CUT_SHORT)


def _mark_defect(answer: ResponseContent, choices: Sequence[ResponseContent], which: str) -> None:
    if any(choice.defect == MISSING_PARTS for choice in choices):
        answer.defect = MISSING_PARTS
        answer.defect_message = "The answer has no sound in it, though it is one that was spoken."
    if answer.finish_reason == "content_filter":
        answer.defect = CONTENT_FILTER
        answer.defect_message = (
            f"The content filter cut the answer off (finish_reason{which} content_filter)."
        )
    elif answer.refusal:
        answer.defect = REFUSAL
        answer.defect_message = "The model refused; its words are in the column refusal."
    elif answer.finish_reason == "length":
        answer.defect = TRUNCATED
        answer.defect_message = (
            f"The answer was cut off (finish_reason{which} length). Raise the request's token limit, "
            "or accept truncated answers where a short limit is meant."
        )
