"""Lines that cannot be sent: kept on disk while the input is scanned, then written in input order."""

from __future__ import annotations

import heapq
import posixpath
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

import msgspec

from airflow_openai_batch.wording import shorten

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

_IN_MEMORY_BYTES = 2**20


class RejectedLine(msgspec.Struct, kw_only=True, frozen=True):
    """A line of ``rejected.jsonl``; the content of the rejected line is not in it."""

    source: str
    line_number: int
    """1-based, in its source."""
    position: int
    """0-based over the whole input."""
    offset_bytes: int
    """Where the line begins in its source, 0-based; of a compressed one, in what comes out of it."""
    length_bytes: int
    """Without its newline."""
    custom_id: str | None = None
    code: str
    message: str


class RejectedSpool:
    """Collects rejected lines in input order, in a temporary file where they are many."""

    def __init__(self) -> None:
        self.count = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - closed in `close`

    def add(self, line: RejectedLine) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")
        self.count += 1

    def __iter__(self) -> Iterator[RejectedLine]:
        self._file.seek(0)
        decode = msgspec.json.Decoder(RejectedLine).decode
        for line in self._file:
            yield decode(line)

    def close(self) -> None:
        self._file.close()


def merge_rejected(*streams: Iterable[RejectedLine]) -> Iterator[RejectedLine]:
    """Streams in input order as one in input order."""
    return heapq.merge(*streams, key=lambda line: line.position)


def write_rejected(lines: Iterable[RejectedLine], place: Location) -> None:
    """Write ``rejected.jsonl``; it appears whole or not at all."""
    with place.open_write() as file:
        for line in lines:
            file.write(msgspec.json.encode(line) + b"\n")


class SourceNames:
    """Short names of sources for messages: the file name, or the URI where two have the same."""

    def __init__(self, uris: Sequence[str]) -> None:
        short = [posixpath.basename(uri.rstrip("/")) or uri for uri in uris]
        self._names = list(uris) if len(set(short)) < len(short) else short
        self._by_uri = dict(zip(uris, self._names, strict=True))

    def name(self, source: int | str) -> str:
        """``reviews.jsonl``."""
        return self._names[source] if isinstance(source, int) else self._by_uri[source]

    def line(self, source: int | str, line_number: int) -> str:
        """``reviews.jsonl:1207``."""
        return f"{self.name(source)}:{line_number}"

    def describe(self, line: RejectedLine) -> str:
        """One line for an error message or a log."""
        known = "" if line.custom_id is None else f" (custom_id {quote(line.custom_id)})"
        return f"{self.line(line.source, line.line_number)}: {line.message}{known}."


def quote(text: str) -> str:
    """An id in a message: as JSON, so that quotes and newlines in it do no harm, and not at full length."""
    return msgspec.json.encode(shorten(text)).decode()
