"""What a response body says: text, refusal, vectors, tokens, for each endpoint of the Batch API.

Nothing here raises for a body of an unexpected shape: the answer then has the defect
``unreadable_answer``, so that one odd body cannot hold up the 49,999 others of its shard.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from airflow_openai_batch.core import lenient_json

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


@dataclass(slots=True)
class Usage:
    """Tokens of one answer; None where the server did not say."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(slots=True)
class Answer:
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
    except (lenient_json.UnreadableJSONError, _OddShapeError) as error:
        reason = str(error)
    except Exception as error:
        # What a stranger's body can trip over here has no bound, and must not stop the landing.
        reason = type(error).__name__
    return Answer(
        defect=UNREADABLE, defect_message=f"The response body is not what {endpoint} returns: {reason}."
    )


class _OddShapeError(Exception):
    """The body lacks what its endpoint returns; the text names the part, not the content."""


def _read_chat(body: bytes) -> Answer:
    root = _object(lenient_json.decode(body), "the body")
    choice = _first_choice(root)
    message = _object(choice.get("message"), "choices[0].message")
    tool_calls = message.get("tool_calls") or message.get("function_call")
    content, refusal = _text_of(message.get("content")), _string(message.get("refusal"))
    finish_reason = _string(choice.get("finish_reason"))
    spoken = isinstance(message.get("audio"), dict)
    if content is None and not (refusal or tool_calls or spoken or finish_reason in _CUT_SHORT):
        raise _OddShapeError("choices[0].message has neither content nor refusal nor tool calls")
    answer = Answer(
        content=content,
        refusal=refusal,
        structured=lenient_json.encode(tool_calls) if tool_calls else None,
        finish_reason=finish_reason,
        model=_string(root.get("model")),
        usage=_read_usage(root.get("usage")),
        has_text=not (tool_calls or spoken),
    )
    return _mark_defect(answer)


def _read_completion(body: bytes) -> Answer:
    root = _object(lenient_json.decode(body), "the body")
    choice = _first_choice(root)
    content = _string(choice.get("text"))
    if content is None:
        raise _OddShapeError("choices[0] has no text")
    answer = Answer(
        content=content,
        finish_reason=_string(choice.get("finish_reason")),
        model=_string(root.get("model")),
        usage=_read_usage(root.get("usage")),
    )
    return _mark_defect(answer)


def _mark_defect(answer: Answer) -> Answer:
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
    return answer


def _read_response(body: bytes) -> Answer:
    root = _object(lenient_json.decode(body), "the body")
    items = _objects(root.get("output"), "output")
    parts = [part for item in items if item.get("type") == "message" for part in _parts(item.get("content"))]
    texts = [text for part in parts if (text := _string(part.get("text"))) is not None]
    refusals = [text for part in parts if (text := _string(part.get("refusal"))) is not None]
    calls = [item for item in items if item.get("type") in _CLIENT_CALLS]
    made = [item for item in items if item.get("type") == "image_generation_call"]
    status = _string(root.get("status"))
    answer = Answer(
        content="".join(texts) if texts else None,
        refusal="".join(refusals) if refusals else None,
        structured=lenient_json.encode(calls) if calls else None,
        finish_reason=status,
        model=_string(root.get("model")),
        usage=_read_usage(root.get("usage")),
        has_text=bool(texts) or not (calls or made),
    )
    if status == "completed" and not (texts or refusals or calls or made):
        raise _OddShapeError("output has neither a message nor a call")
    return _mark_response_defect(answer, status, root)


def _mark_response_defect(answer: Answer, status: str | None, root: dict[str, Any]) -> Answer:
    if status == "incomplete":
        details = root.get("incomplete_details")
        reason = _string(details.get("reason")) if isinstance(details, dict) else None
        answer.finish_reason = reason or status
        filtered = reason == "content_filter"
        answer.defect = CONTENT_FILTER if filtered else TRUNCATED
        answer.defect_message = f"The response is incomplete: {reason or 'no reason given'}."
    elif status not in ("completed", None):
        error = root.get("error")
        error = error if isinstance(error, dict) else {}
        answer.defect = _string(error.get("code")) or f"response_{status}"
        answer.defect_message = _string(error.get("message")) or f"The response has the status {status}."
    elif answer.refusal:
        answer.defect = REFUSAL
        answer.defect_message = "The model refused; its words are in the column refusal."
    return answer


class _Embedding(msgspec.Struct):
    embedding: msgspec.Raw
    index: int = 0


class _EmbeddingBody(msgspec.Struct):
    data: list[_Embedding]
    model: Any = None
    usage: Any = None


_decode_embeddings = msgspec.json.Decoder(_EmbeddingBody).decode


def _read_embeddings(body: bytes) -> Answer:
    """Vectors stay JSON text until their own turn: 2,048 of them as Python floats would be 200 MB."""
    try:
        root = _decode_embeddings(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _OddShapeError("data is not a list of embeddings") from None
    vectors = [_read_vector(item.embedding) for item in sorted(root.data, key=lambda item: item.index)]
    if not vectors:
        raise _OddShapeError("data is empty")
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
        raise _OddShapeError("an embedding is neither numbers nor base64") from None
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise _OddShapeError("an embedding is not a list of numbers")
    return vector


def _read_moderation(body: bytes) -> Answer:
    root = _object(lenient_json.decode(body), "the body")
    results = _objects(root.get("results"), "results")
    return Answer(
        structured=lenient_json.encode(results),
        model=_string(root.get("model")),
        usage=_read_usage(root.get("usage")),
        has_text=False,
    )


def _read_other(body: bytes) -> Answer:
    root = _object(lenient_json.decode(body), "the body")
    return Answer(model=_string(root.get("model")), usage=_read_usage(root.get("usage")), has_text=False)


_READERS: dict[str, Callable[[bytes], Answer]] = {
    "/v1/chat/completions": _read_chat,
    "/v1/completions": _read_completion,
    "/v1/responses": _read_response,
    "/v1/embeddings": _read_embeddings,
    "/v1/moderations": _read_moderation,
}


def _read_usage(value: Any) -> Usage | None:
    """Chat and completions say prompt/completion, responses say input/output."""
    if not isinstance(value, dict):
        return None
    new = "input_tokens" in value
    input_details = value.get("input_tokens_details" if new else "prompt_tokens_details")
    output_details = value.get("output_tokens_details" if new else "completion_tokens_details")
    return Usage(
        input_tokens=_count(value.get("input_tokens" if new else "prompt_tokens")),
        cached_input_tokens=_detail(input_details, "cached_tokens"),
        output_tokens=_count(value.get("output_tokens" if new else "completion_tokens")),
        reasoning_tokens=_detail(output_details, "reasoning_tokens"),
    )


def _detail(details: Any, name: str) -> int | None:
    return _count(details.get(name)) if isinstance(details, dict) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < MAX_TOKEN_COUNT else None


def _first_choice(root: dict[str, Any]) -> dict[str, Any]:
    choices = _objects(root.get("choices"), "choices")
    if not choices:
        raise _OddShapeError("choices is empty")
    return choices[0]


def _text_of(content: Any) -> str | None:
    """Content is a string, or with some servers a list of parts."""
    if isinstance(content, list):
        return "".join(text for part in _parts(content) if (text := _string(part.get("text"))) is not None)
    return _string(content)


def _parts(value: Any) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _OddShapeError(f"{name} is not a list of objects")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _OddShapeError(f"{name} is not an object")
    return value


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
