"""One request of the input: where it came from, and the ways to take its line apart."""

from __future__ import annotations

from typing import Any

import msgspec


class RequestLine(msgspec.Struct, frozen=True, gc=False):
    """A request line as it stands in the input.

    A million of them are made per run: such a struct takes a quarter of a tuple's time, since the garbage collector
    never looks at it.
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
    text: msgspec.Raw = msgspec.Raw(b"")


class RequestFields(msgspec.Struct, gc=False):
    """A request line with its body taken apart."""

    custom_id: str
    body: RequestBody


READ_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What `read_envelope` and `read_fields` raise for what is no request, or is none to msgspec: lone surrogates."""

read_envelope = msgspec.json.Decoder(RequestEnvelope).decode
read_fields = msgspec.json.Decoder(RequestFields).decode
