"""Request lines taken apart for a real-time call, and its answers as lines of OpenAI's output files.

What stands in a body stays as it is: numbers keep their digits, and keys their order. Through flex it gets a
``service_tier``, unless it names one of its own; the id of an answer's line says whether it came through flex.
"""

from __future__ import annotations

import codecs
import re
import uuid
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from airflow_openai_batch.job.request_line import READ_ERRORS, read_envelope
from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.prices import FLEX
from airflow_openai_batch.openai_api.result_line import (
    FLEX_LINE,
    REALTIME_LINE,
    ResultLine,
    ResultResponse,
    write_error_line,
    write_result_line,
)
from airflow_openai_batch.requests.answer_format import read_asked

if TYPE_CHECKING:
    from airflow_openai_batch.job.request_line import RequestLine

REQUEST_TIMEOUT = "request_timeout"
"""OpenAI's code, in batches, for a request that took too long; retryable."""
CONNECTION_LOST = "connection_lost"
"""The connection broke before this request's answer came, again and again, while others were answered."""


class Call(NamedTuple):
    """A request as it goes out."""

    custom_id: str
    body: bytes
    flex: bool = False
    """It asks for flex."""


_decode_body = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_FLEX = b'"flex"'
_UNDECIDED = (b"null", b'"auto"')
"""Tiers by which a request leaves it open how it is served."""


def read_call(request: RequestLine, endpoint: str, *, flex: bool = False) -> Call:
    """The id and the body of a request line; the body byte for byte, where msgspec can read the line.

    :param flex: it is to go out through flex, unless it names another tier.
    :raises InputChangedError: if the line is no request (any more).
    """
    try:
        found = read_envelope(request.line)
        custom_id, body = found.custom_id, bytes(found.body)
    except READ_ERRORS:
        custom_id = read_asked(request, endpoint).custom_id
        body = lenient_json.encode(lenient_json.decode(request.line)["body"]).encode()
    return Call(custom_id, *ask_for_flex(body)) if flex else Call(custom_id, body)


def ask_for_flex(body: bytes) -> tuple[bytes, bool]:
    """A body that asks for flex, unless it names another tier of its own; and whether it asks for flex."""
    try:
        fields = _decode_body(body)
    except (msgspec.DecodeError, RecursionError):
        return _ask_for_flex_leniently(body)
    tier = bytes(fields.get("service_tier", b"null"))
    if tier not in _UNDECIDED:
        return body, tier == _FLEX
    return _encode({**fields, "service_tier": msgspec.Raw(_FLEX)}), True


def _ask_for_flex_leniently(body: bytes) -> tuple[bytes, bool]:
    """Half a character in a text, or thousands of brackets."""
    fields = lenient_json.decode(body)
    tier = fields.get("service_tier")
    if tier not in (None, "auto"):
        return body, tier == FLEX
    return lenient_json.encode({**fields, "service_tier": FLEX}).encode(), True


def write_answer(
    custom_id: str, status_code: int, request_id: str | None, body: bytes, *, flex: bool = False
) -> bytes:
    """The line of a request that was answered, whatever the answer is; without a line end.

    A body that is no JSON (a proxy's page, say) becomes a JSON string.

    :param flex: it was asked through flex.
    """
    response = ResultResponse(status_code, request_id, msgspec.Raw(_fit_on_line(body)))
    return write_result_line(ResultLine(_make_id(flex), custom_id, response))


def write_error(custom_id: str, code: str, message: str, *, flex: bool = False) -> bytes:
    """The line of a request to which no answer came; without a line end."""
    return write_error_line(_make_id(flex), custom_id, code, message)


def _make_id(flex: bool) -> str:
    return f"{FLEX_LINE if flex else REALTIME_LINE}{uuid.uuid4().hex}"


_LINE_ENDS = re.compile(rb"[\r\n]\s*")


def _fit_on_line(body: bytes) -> bytes:
    """The same JSON on one line: OpenAI indents what it answers in real time."""
    body = body.removeprefix(codecs.BOM_UTF8)  # it stands within a line now
    try:
        return msgspec.json.format(body, indent=-1)  # strips what is between tokens, and nothing else
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        lenient_json.decode(body)  # lone surrogates, which models do write
    except lenient_json.UnreadableJSONError:
        return lenient_json.encode(body.decode("utf-8", "replace")).encode()
    return _LINE_ENDS.sub(b"", body)  # inside a JSON string there is none
