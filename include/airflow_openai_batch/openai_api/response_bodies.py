"""The shapes of response bodies, as far as results need them.

Only what must hold is typed; the rest is ``Any``, so that a server's odd spare field spoils nothing.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from airflow_openai_batch.openai_api import lenient_json

Shape = TypeVar("Shape")


class OddShapeError(Exception):
    """The body lacks what its endpoint returns; the text names the part, not the content."""

    def __init__(self, reason: str, code: str = "unreadable_answer") -> None:
        super().__init__(reason)
        self.code = code


class TokenDetails(msgspec.Struct):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    cache_write_tokens_details: Any = None
    reasoning_tokens: Any = None
    image_tokens: Any = None
    audio_tokens: Any = None


Details = TokenDetails | list[Any] | str | float | bool | None
"""Some servers write an empty list for an empty object."""


class UsageBody(msgspec.Struct):
    """``usage``: chat and completions say prompt and completion, responses say input and output."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    prompt_tokens_details: Details = None
    completion_tokens_details: Details = None
    input_tokens_details: Details = None
    output_tokens_details: Details = None


Usage = UsageBody | list[Any] | str | float | bool | None
"""Tokens; anything else is there so that an odd one spoils nothing."""


class Message(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class ChatChoice(msgspec.Struct):
    message: Message
    finish_reason: Any = None
    index: Any = None
    error: Any = None
    """Of gateways whose upstream broke off."""


class ChatBody(msgspec.Struct):
    """``/v1/chat/completions``"""

    choices: list[ChatChoice]
    model: Any = None
    usage: Usage = None
    service_tier: Any = None


class TextChoice(msgspec.Struct):
    text: str
    finish_reason: Any = None
    index: Any = None
    error: Any = None
    """Of gateways whose upstream broke off."""


class CompletionBody(msgspec.Struct):
    """``/v1/completions``"""

    choices: list[TextChoice]
    model: Any = None
    usage: Usage = None
    service_tier: Any = None


class ResponseBody(msgspec.Struct):
    """``/v1/responses``"""

    output: list[dict[str, Any]]
    status: Any = None
    error: Any = None
    incomplete_details: Any = None
    model: Any = None
    usage: Usage = None
    service_tier: Any = None


class Embedding(msgspec.Struct):
    embedding: msgspec.Raw
    """Numbers or base64; left as JSON until its turn, since 2,048 vectors of Python floats are 200 MB."""
    index: int | None = None


class EmbeddingBody(msgspec.Struct):
    """``/v1/embeddings``"""

    data: list[Embedding]
    model: Any = None
    usage: Usage = None
    service_tier: Any = None


class ModerationBody(msgspec.Struct):
    """``/v1/moderations``"""

    results: list[dict[str, Any]]
    model: Any = None
    usage: Usage = None


class ImageItem(msgspec.Struct):
    b64_json: Any = None
    url: Any = None
    revised_prompt: Any = None


class ImagesBody(msgspec.Struct):
    """``/v1/images/generations``, ``/v1/images/edits``"""

    data: list[ImageItem] | None = None
    output_format: Any = None
    model: Any = None
    usage: Usage = None


class VideoBody(msgspec.Struct):
    """``/v1/videos``: a job; the video comes later."""

    id: Any = None
    status: Any = None
    error: Any = None
    seconds: Any = None
    model: Any = None
    stored_bytes: Any = None
    """Ours, of a video that lies in the job directory."""


class OtherBody(msgspec.Struct):
    """Any other endpoint."""

    model: Any = None
    usage: Usage = None
    service_tier: Any = None


class ShapeReader(Generic[Shape]):
    """Reads JSON of one shape: fast where it is clean, forgivingly where it is not."""

    def __init__(self, shape: type[Shape]) -> None:
        self._decode = msgspec.json.Decoder(shape).decode

    def read(self, data: bytes | msgspec.Raw) -> Shape:
        """:raises OddShapeError: if it is JSON of another shape.
        :raises lenient_json.UnreadableJSONError: if it is no JSON.
        """
        try:
            return self._decode(data)
        except msgspec.ValidationError as error:
            raise OddShapeError(_describe(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._read_forgivingly(bytes(data))

    def _read_forgivingly(self, data: bytes) -> Shape:
        """Lone surrogates and other things that the fast decoder refuses as JSON."""
        clean = lenient_json.encode(lenient_json.decode(data)).encode()
        try:
            return self._decode(clean)
        except (msgspec.DecodeError, RecursionError) as error:
            raise OddShapeError(_describe(error)) from None


def _describe(error: Exception) -> str:
    """The decoder's words name types and places, never values; cut all the same."""
    return str(error)[:150] if isinstance(error, msgspec.ValidationError) else type(error).__name__
