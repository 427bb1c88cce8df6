"""Result lines as nearly all of them are, read into one type at a time.

Plain is a good answer: status 200, no error, one choice, message or vector that is whole, and the tokens of text. The
shapes below say so in types: a line that differs in anything that `responses.read_answer` and those who judge its
answers look at is refused by the decoder, and is for them. So nothing is judged here, and what is read here is what
they would read. A test holds both to the same rows.
"""

from __future__ import annotations

import base64
import binascii
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np

from airflow_openai_batch.openai_api.endpoints import Endpoint

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.answer_parts import Vector

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]
"""Tokens of so many answers can be added up in 64 bits."""
_Nothing = tuple[()] | None
_NoTokens = Literal[0] | None


class _Details(msgspec.Struct, gc=False):
    """Of input or output tokens."""

    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    cache_write_tokens_details: None = None
    reasoning_tokens: _Count | None = None
    image_tokens: _NoTokens = None
    audio_tokens: _NoTokens = None


_NO_DETAILS = _Details()


class _ChatUsage(msgspec.Struct, gc=False):
    input: _Count = msgspec.field(name="prompt_tokens")
    output: _Count = msgspec.field(name="completion_tokens")
    input_details: _Details | None = msgspec.field(name="prompt_tokens_details", default=None)
    output_details: _Details | None = msgspec.field(name="completion_tokens_details", default=None)
    other_input: None = msgspec.field(name="input_tokens", default=None)


class _ResponseUsage(msgspec.Struct, gc=False):
    input: _Count = msgspec.field(name="input_tokens")
    output: _Count = msgspec.field(name="output_tokens")
    input_details: _Details | None = msgspec.field(name="input_tokens_details", default=None)
    output_details: _Details | None = msgspec.field(name="output_tokens_details", default=None)


class _EmbeddingUsage(msgspec.Struct, gc=False):
    input: _Count = msgspec.field(name="prompt_tokens")
    output: None = msgspec.field(name="completion_tokens", default=None)
    input_details: _Details | None = msgspec.field(name="prompt_tokens_details", default=None)
    output_details: _Details | None = msgspec.field(name="completion_tokens_details", default=None)
    other_input: None = msgspec.field(name="input_tokens", default=None)


class _ChatMessage(msgspec.Struct, gc=False):
    content: str
    refusal: None = None
    tool_calls: _Nothing = None
    function_call: None = None
    audio: None = None


class _ChatChoice(msgspec.Struct, gc=False):
    message: _ChatMessage
    finish_reason: Literal["stop"]
    index: int | None = None
    error: None = None


class _ChatBody(msgspec.Struct, gc=False):
    choices: tuple[_ChatChoice]
    model: str
    usage: _ChatUsage
    service_tier: str | None = None


class _OutputText(msgspec.Struct, gc=False):
    type: Literal["output_text"]
    text: str
    refusal: None = None


class _OutputMessage(msgspec.Struct, gc=False, tag_field="type", tag="message"):
    content: tuple[_OutputText]


class _OutputReasoning(msgspec.Struct, gc=False, tag_field="type", tag="reasoning"):
    pass


class _ResponseBody(msgspec.Struct, gc=False):
    output: list[_OutputMessage | _OutputReasoning]
    status: Literal["completed"]
    model: str
    usage: _ResponseUsage
    error: None = None
    incomplete_details: None = None
    service_tier: str | None = None


class _Embedding(msgspec.Struct, gc=False):
    embedding: list[float] | str
    """Numbers, or their bytes in base64."""
    index: Literal[0] | None = None


class _EmbeddingBody(msgspec.Struct, gc=False):
    data: tuple[_Embedding]
    model: str
    usage: _EmbeddingUsage
    service_tier: str | None = None


_Body = TypeVar("_Body", _ChatBody, _ResponseBody, _EmbeddingBody)


class _Response(msgspec.Struct, Generic[_Body], gc=False):
    body: _Body
    status_code: Literal[200]
    request_id: str | None = None


class _Line(msgspec.Struct, Generic[_Body], gc=False):
    custom_id: str
    response: _Response[_Body]
    error: None = None


class PlainAnswer(msgspec.Struct, gc=False):
    """What a plain line says. Many are made: such a struct is cheap, and the garbage collector never looks at it."""

    custom_id: str
    value: Any
    """Text or vector."""
    finish_reason: str | None
    model: str
    request_id: str | None
    input_tokens: int
    cached_tokens: int | None
    written_tokens: int | None
    """Of the input, written to the cache."""
    output_tokens: int | None
    reasoning_tokens: int | None
    send: int
    """Which send brought it: an index."""


class PlainReader(NamedTuple):
    """How the plain answers of an endpoint are read."""

    decode: Callable[[bytes], _Line[Any]]
    take: Callable[[Any], str | Vector | None]
    """From a body to the text or vector that was asked for; None where that is not plain."""
    measure: Callable[[Any], int]
    """What a text or vector takes of memory, in bytes."""
    finish_reason: str | None
    """Of all plain answers."""

    def read(self, data: bytes, send: int) -> PlainAnswer | None:
        """None where the line is not plain."""
        try:
            line = self.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        response = line.response
        body = response.body
        value = self.take(body)
        if value is None:
            return None
        usage = body.usage
        read, written = usage.input_details or _NO_DETAILS, usage.output_details or _NO_DETAILS
        return PlainAnswer(
            line.custom_id,
            value,
            self.finish_reason,
            body.model,
            response.request_id,
            usage.input,
            read.cached_tokens,
            read.cache_write_tokens,
            usage.output,
            written.reasoning_tokens,
            send,
        )


def _take_choice(body: _ChatBody) -> str:
    return body.choices[0].message.content


def _take_message(body: _ResponseBody) -> str | None:
    messages = [item for item in body.output if isinstance(item, _OutputMessage)]
    return messages[0].content[0].text if len(messages) == 1 else None


def _take_vector(body: _EmbeddingBody) -> Vector | None:
    found = body.data[0].embedding
    try:
        if isinstance(found, str):
            packed = base64.b64decode(found, validate=True)
        else:
            packed = struct.pack(f"<{len(found)}f", *found)  # in a third of the time that numpy takes
        vector = np.frombuffer(packed, dtype="<f4")
    except (binascii.Error, ValueError, OverflowError):
        return None
    return vector if len(vector) and np.isfinite(vector).all() else None


def _measure_vector(vector: Vector) -> int:
    return vector.nbytes


_decode_chat = msgspec.json.Decoder(_Line[_ChatBody]).decode
_decode_response = msgspec.json.Decoder(_Line[_ResponseBody]).decode
_decode_embedding = msgspec.json.Decoder(_Line[_EmbeddingBody]).decode

PLAIN_READERS: dict[str, PlainReader] = {
    Endpoint.CHAT_COMPLETIONS: PlainReader(_decode_chat, _take_choice, sys.getsizeof, "stop"),
    Endpoint.RESPONSES: PlainReader(_decode_response, _take_message, sys.getsizeof, "completed"),
    Endpoint.EMBEDDINGS: PlainReader(_decode_embedding, _take_vector, _measure_vector, None),
}
"""By endpoint; those of others are never plain."""
