"""What a request asked for, as far as judging its answer needs it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job.request_line import READ_ERRORS, RequestFields, read_fields
from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.endpoints import IMAGES, Endpoint
from airflow_openai_batch.requests.tokens.parts import count_choices

if TYPE_CHECKING:
    from airflow_openai_batch.job.request_line import RequestLine


_BY_INPUTS = frozenset({Endpoint.EMBEDDINGS, Endpoint.MODERATIONS})
"""Their answers have a part for each input."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """The id of a request and the format its answer must have."""

    custom_id: str
    output_format: str = "text"
    """``text``, ``json_object`` or ``json_schema``."""
    schema: bytes | None = None
    inputs: int | None = None
    """Parts that an answer of embeddings, a moderation or pictures must have; None where that is not known."""
    dimensions: int | None = None
    """Of each embedding, where the request says so."""


class _Text(msgspec.Struct):
    format: msgspec.Raw = msgspec.Raw(b"")


_decode_text = msgspec.json.Decoder(_Text).decode


class _JSONSchema(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw(b"")


class _Format(msgspec.Struct):
    type: Any = None
    json_schema: _JSONSchema | None = None
    schema: msgspec.Raw = msgspec.Raw(b"")


_decode_format = msgspec.json.Decoder(_Format).decode


class _BodyWithFormat(msgspec.Struct, gc=False):
    response_format: msgspec.Raw = msgspec.Raw(b"")


class _ChatFields(msgspec.Struct, gc=False):
    """Of `RequestFields` what matters of a chat request: nearly all are, and each field that is read takes time."""

    custom_id: str
    body: _BodyWithFormat


_decode_chat = msgspec.json.Decoder(_ChatFields).decode


def read_asked(request: RequestLine, endpoint: str) -> Asked:
    """:raises InputChangedError: if the line is no request, which the splitter would have rejected."""
    try:
        if endpoint == "/v1/chat/completions":
            chat = _decode_chat(request.line)
            return _make_asked(chat.custom_id, chat.body.response_format)
        found = read_fields(request.line)
    except READ_ERRORS:
        return _read_odd(request)
    if endpoint in _BY_INPUTS:
        return _read_inputs(found)
    if endpoint in IMAGES:
        return Asked(found.custom_id, inputs=count_choices(found.body.n))
    if endpoint == "/v1/responses" and found.body.text:
        return _make_asked(found.custom_id, _find_text_format(bytes(found.body.text)))
    return Asked(found.custom_id)


def _make_asked(custom_id: str, format_json: bytes | msgspec.Raw) -> Asked:
    return Asked(custom_id, *_read_format(bytes(format_json))) if format_json else Asked(custom_id)


def _read_inputs(found: RequestFields) -> Asked:
    dimensions = found.body.dimensions
    return Asked(
        found.custom_id,
        inputs=_count_inputs(bytes(found.body.input)),
        dimensions=dimensions if type(dimensions) is int else None,
    )


def _count_inputs(raw: bytes) -> int | None:
    """A text and a list of token numbers are one input; how parts of a message (images) count is not known here."""
    try:
        given = lenient_json.decode(raw)
    except lenient_json.UnreadableJSONError:
        return None
    if isinstance(given, str):
        return 1
    if not isinstance(given, list) or not given or any(isinstance(item, dict) for item in given):
        return None
    return 1 if all(isinstance(item, int) for item in given) else len(given)


@lru_cache(maxsize=64)
def _read_format(raw: bytes) -> tuple[str, bytes | None]:
    """The kind of ``response_format`` (chat) or ``text.format`` (responses) and its schema's JSON.

    The kind is ``text``, ``json_object`` or ``json_schema``; anything else reads as ``text``.
    """
    try:
        found = _decode_format(raw)
    except READ_ERRORS:
        return "text", None
    if found.type == "json_object":
        return "json_object", None
    if found.type != "json_schema":
        return "text", None
    inner = found.json_schema
    schema = inner.schema if inner is not None else found.schema
    return "json_schema", bytes(schema) if schema else None


def _find_text_format(text: bytes) -> bytes:
    try:
        return bytes(_decode_text(text).format)
    except READ_ERRORS:
        return b""


def _read_odd(request: RequestLine) -> Asked:
    try:
        root = lenient_json.decode(request.line)
        return Asked(custom_id=msgspec.convert(root["custom_id"], str))
    except (lenient_json.UnreadableJSONError, msgspec.ValidationError, KeyError, TypeError):
        raise InputChangedError(
            f"{request.source_uri}:{request.line_number}: this line was a request when the input was split "
            "and is none now. The input was changed; put it back, or start anew with on_existing=restart."
        ) from None
