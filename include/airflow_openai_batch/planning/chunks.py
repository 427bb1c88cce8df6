"""Cutting a source into chunks of whole lines, which are what is counted, hashed and thrown away again."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.storage.first_bytes import GZIP, PARQUET, ZIP, ZSTD

CHUNK_BYTES = 2 * 2**20
"""Aimed at; a longer line makes a longer chunk. Fixed, so that the same input gives the same chunks."""

_NOT_JSONL: tuple[tuple[bytes, str], ...] = (
    (GZIP, "is gzip by its content. Call it .jsonl.gz"),
    (ZSTD, "is zstd by its content. Call it .jsonl.zst"),
    (codecs.BOM_UTF16_LE, "is UTF-16. Convert it to UTF-8, for instance with iconv"),
    (codecs.BOM_UTF16_BE, "is UTF-16. Convert it to UTF-8, for instance with iconv"),
    (PARQUET, "is a Parquet file. Write one request per line as JSON first"),
    (ZIP, "is a ZIP file. Unpack it first"),
    (b"[", "is a JSON array. Write one request per line instead, for instance with: jq -c '.[]'"),
)


class Chunk(NamedTuple):
    """Whole lines of one source, or one line that is too long to be kept."""

    offset: int
    """Where ``data`` begins, in bytes of the (uncompressed) source."""
    data: bytes
    """Ends with a newline unless the source ends without one."""
    overlong_bytes: int = 0
    """The length of a line, with its newline, that was skipped; ``data`` is empty then."""


class SourceChunk(NamedTuple):
    """A chunk with where it came from and how much of the input has been read."""

    source: int
    chunk: Chunk
    bytes_done: int


def cut_chunks(
    blocks: Iterable[bytes], *, max_line_bytes: int, uri: str, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Chunk]:
    """Whole lines in chunks of about ``chunk_bytes``; memory is bounded by ``max_line_bytes``.

    A byte order mark belongs to no chunk.

    :raises InputError: if the source begins like something else than JSON Lines.
    """
    cutter = _Cutter(max_line_bytes, uri, chunk_bytes)
    for block in blocks:
        yield from cutter.feed(block)
    yield from cutter.finish()


class _Cutter:
    def __init__(self, max_line_bytes: int, uri: str, chunk_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._chunk_bytes = chunk_bytes
        self._uri = uri
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._offset = 0
        self._skipped_bytes = 0
        self._at_start = True

    def feed(self, block: bytes) -> Iterator[Chunk]:
        if self._at_start:
            block = self._begin(block)
            if self._at_start:
                return
        if self._skipped_bytes:
            end = block.find(b"\n") + 1
            if end == 0:
                self._skipped_bytes += len(block)
                return
            self._skipped_bytes += end
            block = block[end:]
            yield self._end_overlong()
        if self._pending_bytes + len(block) < self._chunk_bytes:
            self._keep(block)
            return
        end = block.rfind(b"\n") + 1
        if end:
            yield self._take(memoryview(block)[:end])
            block = block[end:]
        self._keep(block)
        if self._pending_bytes > self._max_line_bytes and b"\n" not in block:
            yield from self._give_up_line()

    def finish(self) -> Iterator[Chunk]:
        if self._at_start and self._pending_bytes:
            short = b"".join(self._pending)
            self._pending, self._pending_bytes = [], 0
            rest = self._begin(short, ended=True)
            self._keep(rest)
        if self._skipped_bytes:
            yield self._end_overlong()
        elif self._pending_bytes:
            yield self._take(b"")

    def _begin(self, block: bytes, *, ended: bool = False) -> bytes:
        """Look at the first bytes; they may come in drops, from a decompressor."""
        head = b"".join([*self._pending, block])
        self._pending, self._pending_bytes = [], 0
        if len(head) < 4 and not ended:
            self._keep(head)
            return b""
        self._at_start = False
        if head.startswith(codecs.BOM_UTF8):
            self._offset = len(codecs.BOM_UTF8)
            head = head[len(codecs.BOM_UTF8) :]
        text = head.lstrip(b" \t\r\n")
        for magic, problem in _NOT_JSONL:
            if text.startswith(magic):
                raise InputError(f"{self._uri}: {problem}.")
        return head

    def _keep(self, block: bytes) -> None:
        if block:
            self._pending.append(block)
            self._pending_bytes += len(block)

    def _take(self, block: bytes | memoryview) -> Chunk:
        data = b"".join([*self._pending, block])
        self._pending, self._pending_bytes = [], 0
        chunk = Chunk(self._offset, data)
        self._offset += len(data)
        return chunk

    def _give_up_line(self) -> Iterator[Chunk]:
        """What is pending has no end in sight: hand out the whole lines before it and forget the rest."""
        data = b"".join(self._pending)
        start = data.rfind(b"\n") + 1
        if len(data) - start <= self._max_line_bytes:
            return
        self._pending, self._pending_bytes = [], 0
        if start:
            yield self._take(data[:start])
        self._skipped_bytes = len(data) - start

    def _end_overlong(self) -> Chunk:
        chunk = Chunk(self._offset, b"", self._skipped_bytes)
        self._offset += self._skipped_bytes
        self._skipped_bytes = 0
        return chunk
