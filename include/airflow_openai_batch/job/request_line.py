"""One request of the input: where it came from, and the ways to take its line apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class RequestLine(NamedTuple):
    """A request line as it stands in the input.

    A tuple rather than a dataclass: a million of them are made per run.
    """

    position: int
    """0-based over the whole input; rejected lines have a position too, blank ones none."""
    source_uri: str
    line_number: int
    """1-based, in its source."""
    line: bytes
    """Verbatim, without the line end."""


class RequestEnvelope(msgspec.Struct, gc=False):
    """What stands around the body of a request, and the body byte for byte."""

    custom_id: str
    body: msgspec.Raw
    method: str = ""
    url: str = ""


class RequestBody(msgspec.Struct, gc=False):
    """What is wanted of a body once it is known to be one, whatever the types it has there."""

    model: Any = None
    input: msgspec.Raw = msgspec.Raw(b"")
    n: Any = None
    dimensions: Any = None
    response_format: msgspec.Raw = msgspec.Raw(b"")
    text: msgspec.Raw = msgspec.Raw(b"")


class RequestFields(msgspec.Struct, gc=False):
    """A request line with its body taken apart."""

    custom_id: str
    body: RequestBody


READ_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `read_envelope` and `read_fields` raise for what is no request, or is none to msgspec: lone surrogates."""

read_envelope = msgspec.json.Decoder(RequestEnvelope).decode
read_fields = msgspec.json.Decoder(RequestFields).decode
