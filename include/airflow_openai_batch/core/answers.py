"""What a response body says: text, refusal, vectors, tokens, for each endpoint of the Batch API.

Nothing here raises for a body of an unexpected shape: the answer then has the defect
``unreadable_answer``, so that one odd body cannot hold up the 49,999 others of its shard.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from airflow_openai_batch.core import bodies, lenient_json
from airflow_openai_batch.core.bodies import (
    ChatBody,
    CompletionBody,
    Details,
    EmbeddingBody,
    ModerationBody,
    OddShapeError,
    OtherBody,
    ResponseBody,
    ShapeReader,
    TokenDetails,
    UsageBody,
)

Vector = npt.NDArray[np.float32]

CONTENT_FILTER = "content_filter"
REFUSAL = "refusal"
TRUNCATED = "truncated"
UNREADABLE = "unreadable_answer"

_CUT_SHORT = frozenset({"length", "content_filter"})
_CLIENT_CALLS = frozenset(
    {"function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call"}
)
"""Output items that wait for the caller; hosted tools have done their work and stand beside the text."""

MAX_TOKEN_COUNT = 2**53
"""A larger "number of tokens" is no number of tokens."""


class Usage(msgspec.Struct):
    """Tokens of one answer; None where the server did not say."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


class Answer(msgspec.Struct):
    """The parts of a response body that have a column of their own."""

    content: str | None = None
    """Text of the first choice, or of all output messages."""
    refusal: str | None = None
    structured: str | None = None
    """JSON text of tool calls or moderation results: structured whatever the request's format."""
    embeddings: list[Vector] | None = None
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    defect: str | None = None
    """Why it is not a whole answer: ``content_filter``, ``refusal``, ``truncated``,
    ``unreadable_answer``, or the code the response itself gives (``server_error``)."""
    defect_message: str | None = None
    has_text: bool = True
    """False where no text is due: tool calls, vectors, moderation."""


def read_answer(endpoint: str, body: bytes) -> Answer:
    """What ``body``, the JSON of a 2xx response, says. Never raises for what the server sent."""
    reader = _READERS.get(endpoint, _read_other)
    try:
        return reader(body)
    except (lenient_json.UnreadableJSONError, OddShapeError) as error:
        reason = str(error)
    except Exception as error:
        # What a stranger's body can trip over here has no bound, and must not stop the landing.
        reason = type(error).__name__
    return Answer(
        defect=UNREADABLE, defect_message=f"The response body is not what {endpoint} returns: {reason}."
    )


_chat = ShapeReader(ChatBody).read
_completion = ShapeReader(CompletionBody).read
_response = ShapeReader(ResponseBody).read
_embeddings = ShapeReader(EmbeddingBody).read
_moderation = ShapeReader(ModerationBody).read
_other = ShapeReader(OtherBody).read


def _read_chat(body: bytes) -> Answer:
    root = _chat(body)
    if not root.choices:
        raise OddShapeError("choices is empty")
    choice = root.choices[0]
    message = choice.message
    tool_calls = message.tool_calls or message.function_call
    content, refusal = _text_of(message.content), _string(message.refusal)
    finish_reason = _string(choice.finish_reason)
    spoken = isinstance(message.audio, dict)
    if content is None and not (refusal or tool_calls or spoken or finish_reason in _CUT_SHORT):
        raise OddShapeError("choices[0].message has neither content nor refusal nor tool calls")
    answer = Answer(
        content=content,
        refusal=refusal,
        structured=lenient_json.encode(tool_calls) if tool_calls else None,
        finish_reason=finish_reason,
        model=_string(root.model),
        usage=_read_usage(root.usage),
        has_text=not (tool_calls or spoken),
    )
    _mark_defect(answer)
    return answer


def _read_completion(body: bytes) -> Answer:
    root = _completion(body)
    if not root.choices:
        raise OddShapeError("choices is empty")
    choice = root.choices[0]
    answer = Answer(
        content=choice.text,
        finish_reason=_string(choice.finish_reason),
        model=_string(root.model),
        usage=_read_usage(root.usage),
    )
    _mark_defect(answer)
    return answer


def _mark_defect(answer: Answer) -> None:
    if answer.finish_reason == "content_filter":
        answer.defect = CONTENT_FILTER
        answer.defect_message = "The content filter cut the answer off (finish_reason content_filter)."
    elif answer.refusal:
        answer.defect = REFUSAL
        answer.defect_message = "The model refused; its words are in the column refusal."
    elif answer.finish_reason == "length":
        answer.defect = TRUNCATED
        answer.defect_message = (
            "The answer was cut off (finish_reason length). Raise the request's token limit, "
            "or accept truncated answers where a short limit is meant."
        )


def _read_response(body: bytes) -> Answer:
    root = _response(body)
    items = root.output
    parts = [part for item in items if item.get("type") == "message" for part in _parts(item.get("content"))]
    texts = [text for part in parts if (text := _string(part.get("text"))) is not None]
    refusals = [text for part in parts if (text := _string(part.get("refusal"))) is not None]
    calls = [item for item in items if item.get("type") in _CLIENT_CALLS]
    made = any(item.get("type") == "image_generation_call" for item in items)
    if root.status == "completed" and not (texts or refusals or calls or made):
        raise OddShapeError("output has neither a message nor a call")
    answer = Answer(
        content="".join(texts) if texts else None,
        refusal="".join(refusals) if refusals else None,
        structured=lenient_json.encode(calls) if calls else None,
        finish_reason=_string(root.status),
        model=_string(root.model),
        usage=_read_usage(root.usage),
        has_text=bool(texts) or not (calls or made),
    )
    _mark_response_defect(answer, root)
    return answer


def _mark_response_defect(answer: Answer, root: ResponseBody) -> None:
    status = answer.finish_reason
    if status == "incomplete":
        details = root.incomplete_details
        reason = _string(details.get("reason")) if isinstance(details, dict) else None
        answer.finish_reason = reason or status
        answer.defect = CONTENT_FILTER if reason == "content_filter" else TRUNCATED
        answer.defect_message = f"The response is incomplete: {reason or 'no reason given'}."
    elif status not in ("completed", None):
        error = root.error if isinstance(root.error, dict) else {}
        answer.defect = _string(error.get("code")) or f"response_{status}"
        answer.defect_message = _string(error.get("message")) or f"The response has the status {status}."
    elif answer.refusal:
        answer.defect = REFUSAL
        answer.defect_message = "The model refused; its words are in the column refusal."


def _read_embeddings(body: bytes) -> Answer:
    root = _embeddings(body)
    vectors = [_read_vector(item.embedding) for item in sorted(root.data, key=lambda item: item.index)]
    if not vectors:
        raise OddShapeError("data is empty")
    return Answer(
        embeddings=vectors, model=_string(root.model), usage=_read_usage(root.usage), has_text=False
    )


def _read_vector(raw: msgspec.Raw) -> Vector:
    try:
        value = orjson.loads(memoryview(raw))
        if isinstance(value, str):
            value = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        with np.errstate(over="ignore"):
            vector = np.asarray(value, dtype=np.float32)
    except (orjson.JSONDecodeError, binascii.Error, TypeError, ValueError):
        raise OddShapeError("an embedding is neither numbers nor base64") from None
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise OddShapeError("an embedding is not a list of numbers")
    return vector


def _read_moderation(body: bytes) -> Answer:
    root = _moderation(body)
    return Answer(
        structured=lenient_json.encode(root.results),
        model=_string(root.model),
        usage=_read_usage(root.usage),
        has_text=False,
    )


def _read_other(body: bytes) -> Answer:
    root = _other(body)
    return Answer(model=_string(root.model), usage=_read_usage(root.usage), has_text=False)


_READERS: dict[str, Callable[[bytes], Answer]] = {
    "/v1/chat/completions": _read_chat,
    "/v1/completions": _read_completion,
    "/v1/responses": _read_response,
    "/v1/embeddings": _read_embeddings,
    "/v1/moderations": _read_moderation,
}


def _read_usage(found: bodies.Usage) -> Usage | None:
    if not isinstance(found, UsageBody):
        return None
    if found.input_tokens is not None:
        return _to_usage(
            found.input_tokens, found.output_tokens, found.input_tokens_details, found.output_tokens_details
        )
    return _to_usage(
        found.prompt_tokens,
        found.completion_tokens,
        found.prompt_tokens_details,
        found.completion_tokens_details,
    )


def _to_usage(tokens_in: Any, tokens_out: Any, details_in: Details, details_out: Details) -> Usage:
    return Usage(
        _count(tokens_in),
        _count(details_in.cached_tokens) if isinstance(details_in, TokenDetails) else None,
        _count(tokens_out),
        _count(details_out.reasoning_tokens) if isinstance(details_out, TokenDetails) else None,
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < MAX_TOKEN_COUNT else None


def _text_of(content: Any) -> str | None:
    """Content is a string, or with some servers a list of parts."""
    if isinstance(content, list):
        return "".join(text for part in _parts(content) if (text := _string(part.get("text"))) is not None)
    return _string(content)


def _parts(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
