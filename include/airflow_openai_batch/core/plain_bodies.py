"""The bodies that nearly every request has, read fast: nothing but texts.

Whatever is not as plain as this is left to `tokens.measure`; both agree on every body that this one takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.core.endpoints import MAX_EMBEDDING_INPUTS_PER_REQUEST, Endpoint
from airflow_openai_batch.core.tokens.measure import (
    ONE_TOKEN_ROLES,
    REPEATING_ROLES,
    TOKENS_FOR_REPLY,
    TOKENS_PER_MESSAGE,
    Measure,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str


class _Plain(msgspec.Struct):
    model: str
    stream: bool | None = None


class _Chat(_Plain, kw_only=True):
    messages: list[_Message]
    tools: None = None
    functions: None = None
    response_format: None = None
    web_search_options: None = None


class _Responses(_Plain, kw_only=True):
    input: str
    instructions: str | None = None
    tools: None = None
    text: None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None


class _Inputs(_Plain, kw_only=True):
    input: str | list[str]


_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_responses = msgspec.json.Decoder(_Responses).decode
_decode_inputs = msgspec.json.Decoder(_Inputs).decode


_NOT_PLAIN: tuple[str, Measure] = ("", Measure())


def measure_plain(raw: bytes, endpoint: Endpoint) -> tuple[str, Measure] | None:
    """The model and what it costs, or None where the body is not plain."""
    read = _READ_BY_ENDPOINT.get(endpoint)
    if read is None:
        return None
    try:
        model, measure = read(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return (model, measure) if model else None


def _read_chat(raw: bytes) -> tuple[str, Measure]:
    body = _decode_chat(raw)
    if body.stream:
        return _NOT_PLAIN
    texts: list[str] = []
    repeated: list[str] = []
    fixed = TOKENS_FOR_REPLY
    for message in body.messages:
        role = message.role
        if role in REPEATING_ROLES:
            repeated.append(message.content)
        else:
            texts.append(message.content)
        fixed += TOKENS_PER_MESSAGE + 1
        if role not in ONE_TOKEN_ROLES:
            fixed -= 1
            texts.append(role)
    return body.model, Measure(fixed, texts, repeated)


def _read_responses(raw: bytes) -> tuple[str, Measure]:
    body = _decode_responses(raw)
    if body.stream:
        return _NOT_PLAIN
    fixed = TOKENS_FOR_REPLY + TOKENS_PER_MESSAGE + 1
    if body.instructions is None:
        return body.model, Measure(fixed, [body.input])
    return body.model, Measure(fixed + TOKENS_PER_MESSAGE + 1, [body.input], [body.instructions])


def _read_inputs(raw: bytes) -> tuple[str, Measure]:
    body = _decode_inputs(raw)
    texts = [body.input] if isinstance(body.input, str) else body.input
    if body.stream or len(texts) > MAX_EMBEDDING_INPUTS_PER_REQUEST:
        return _NOT_PLAIN
    return body.model, Measure(0, texts, embedding_inputs=len(texts))


_READ_BY_ENDPOINT: dict[Endpoint, Callable[[bytes], tuple[str, Measure]]] = {
    Endpoint.CHAT_COMPLETIONS: _read_chat,
    Endpoint.RESPONSES: _read_responses,
    Endpoint.EMBEDDINGS: _read_inputs,
}
