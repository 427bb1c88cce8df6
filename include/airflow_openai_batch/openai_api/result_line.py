"""One line of a batch's output or error file: whose it is, and what came back. Real-time answers are kept so, too."""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_openai_batch.openai_api import lenient_json

REALTIME_LINE = "realtime_req_"
FLEX_LINE = "flex_req_"
"""How the id begins of a line that we write for a request asked one by one. A send may begin through flex and end in
real time, where flex has no room: each line says how it came."""


class ResultResponse(msgspec.Struct):
    """The HTTP answer to one request, of whatever types the server took."""

    status_code: Any = None
    request_id: Any = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class ResultLine(msgspec.Struct):
    """What OpenAI writes for each request."""

    id: Any = None
    custom_id: Any = None
    response: ResultResponse | None = None
    error: Any = None


class _NamedLine(msgspec.Struct):
    custom_id: str


_decode = msgspec.json.Decoder(ResultLine).decode
_decode_named = msgspec.json.Decoder(_NamedLine).decode

write_result_line = msgspec.json.Encoder().encode
"""Without a line end."""


def read_result_line(line: bytes) -> ResultLine:
    """A response that is none reads as absent.

    :raises UnreadableJSONError: if it is no JSON.
    """
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # lone surrogates, invalid UTF-8, a response of an odd type
    root = lenient_json.decode(line)
    fields = root if isinstance(root, dict) else {}
    response = fields.get("response")
    return ResultLine(
        id=fields.get("id"),
        custom_id=fields.get("custom_id"),
        response=_take_response(response) if isinstance(response, dict) else None,
        error=fields.get("error"),
    )


def _take_response(response: dict[str, Any]) -> ResultResponse:
    body = msgspec.Raw(lenient_json.encode(response.get("body")).encode())
    return ResultResponse(response.get("status_code"), response.get("request_id"), body)


def write_error_line(line_id: str, custom_id: str | None, code: str | None, message: str | None) -> bytes:
    """As OpenAI writes it for a request that was not answered; without a line end."""
    return write_result_line(ResultLine(line_id, custom_id, error={"code": code, "message": message}))


def read_custom_id(line: bytes) -> str | None:
    """Of the line alone, in a tenth of the time; None where it has none that is a text.

    :raises UnreadableJSONError: if it is no JSON.
    """
    try:
        return _decode_named(line).custom_id
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        root = lenient_json.decode(line)
    value = root.get("custom_id") if isinstance(root, dict) else None
    return value if isinstance(value, str) else None
