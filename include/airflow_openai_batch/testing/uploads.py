"""Multipart uploads, written to disk as they arrive.

Starlette's forms were tried in place of the parser that they stand on: they keep a file in the folder for temporary
ones, from where it has to be copied. For 200 MB that is 400 MB of disk, and twice the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header

from airflow_openai_batch.testing.refusals import ApiError

_MOST_FIELD_BYTES = 65_536


@dataclass(slots=True)
class UploadReader:
    """Takes the body of ``POST /v1/files`` piece by piece: the file's content goes to ``writer``."""

    writer: BinaryIO
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _header_name: bytes = b""
    _header_value: bytes = b""
    _name: str = ""
    _value: bytearray = field(default_factory=bytearray)
    _in_file: bool = False

    def parser(self, content_type: str) -> MultipartParser:
        """:raises ApiError: 400, if the body is not multipart."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise ApiError(400, "Could not parse multipart form: wrong Content-Type.")
        return MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin_part,
                "on_part_data": self._take_data,
                "on_part_end": self._end_part,
                "on_header_field": self._take_header_name,
                "on_header_value": self._take_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
            },
        )

    @property
    def expires_after(self) -> dict[str, object] | None:
        """The SDK writes it as ``expires_after[anchor]`` and ``expires_after[seconds]``."""
        found: dict[str, object] = {}
        for name in ("anchor", "seconds"):
            value = self.fields.get(f"expires_after[{name}]")
            if value is not None:
                found[name] = int(value) if value.isdigit() else value
        return found or None

    def _begin_part(self) -> None:
        self._headers, self._name, self._in_file = {}, "", False
        self._value = bytearray()

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options or self._name == "file":
            self._in_file = True
            self.filename = options.get(b"filename", b"upload").decode("utf-8", "replace")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.writer.write(memoryview(data)[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MOST_FIELD_BYTES:
            raise ApiError(400, "A field of the form is too long.")

    def _end_part(self) -> None:
        if not self._in_file:
            self.fields[self._name] = self._value.decode("utf-8", "replace")
