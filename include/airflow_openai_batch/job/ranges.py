"""Reading byte ranges of the input in order, plain or compressed, and joining them to a shard's bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.storage.compression import BLOCK_BYTES, Compression, read_blocks
from airflow_openai_batch.storage.sources import explained

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Segment
    from airflow_openai_batch.storage.location import Location

    Object = tuple[Location, Compression | None]
    Objects = Sequence[Object] | Mapping[int, Object]


class RangeReader:
    """Ranges of one object; of a compressed one, each must begin where or after the last one ended."""

    def __init__(self, location: Location, compression: Compression | None) -> None:
        self._location = location
        with explained(location.uri):
            self._file: BinaryIO = location.open_read()
        self._blocks = read_blocks(self._file, compression, location.uri) if compression else None
        self._at = 0
        self._rest = b""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` (exclusive), in blocks.

        :raises InputChangedError: if the object ends before.
        """
        if self._blocks is None:
            yield from self._read_plain(start, end)
        else:
            yield from self._read_stream(start, end)

    def _read_plain(self, start: int, end: int) -> Iterator[bytes]:
        if self._file.tell() != start:
            self._file.seek(start)
        while start < end:
            block = self._file.read(min(BLOCK_BYTES, end - start))
            if not block:
                raise self._ended(end)
            start += len(block)
            yield block

    def _read_stream(self, start: int, end: int) -> Iterator[bytes]:
        assert self._blocks is not None  # noqa: S101 - for the type checker
        while self._at < end:
            if not self._rest:
                block = next(self._blocks, None)
                if block is None:
                    raise self._ended(end)
                self._rest = block
            skip = min(max(0, start - self._at), len(self._rest))
            take = min(len(self._rest), end - self._at)
            if take > skip:
                yield self._rest[skip:take]
            self._at += take
            self._rest = self._rest[take:]

    def _ended(self, end: int) -> InputChangedError:
        return InputChangedError(
            f"{self._location.uri}: ends before byte {end:,}; it has changed since it was split. "
            "Split again with on_existing=restart."
        )

    def close(self) -> None:
        self._file.close()


class SegmentReader:
    """Reads segments of many objects; keeps the last object open, since segments come in order.

    :param objects: where ``Segment.source`` points to.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._reader: RangeReader | None = None
        self._source = -1

    def read(self, segment: Segment) -> Iterator[bytes]:
        """The bytes of a segment, ended by a newline even where the object is not.

        :raises InputChangedError: if the object ends before.
        """
        if self._reader is None or segment.source != self._source:
            self.close()
            self._reader, self._source = RangeReader(*self._objects[segment.source]), segment.source
        last = b""
        for block in self._reader.read(segment.start, segment.end):
            last = block
            yield block
        if not last.endswith(b"\n"):
            yield b"\n"

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def join_segments(segments: Iterable[Segment], objects: Objects) -> Iterator[bytes]:
    """The bytes of a shard: its segments one after another, each request ended by a newline."""
    with contextlib.closing(SegmentReader(objects)) as reader:
        for segment in segments:
            yield from reader.read(segment)
