"""A shard's bytes and lines, straight from the input, checked against the plan.

What was split is what is sent: size and version of every object are compared when reading begins, and the
SHA-256 of all bytes when it ends. Where only the version differs (the file was copied or touched), the
SHA-256 is checked before the first byte is handed out.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.errors import InputChangedError, InputError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.plan import Segment
from airflow_openai_batch.job.ranges import RangeReader, join_segments
from airflow_openai_batch.job.request_line import RequestLine
from airflow_openai_batch.storage.compression import BLOCK_BYTES
from airflow_openai_batch.storage.sources import describe_file

if TYPE_CHECKING:
    from airflow_openai_batch.job.open_plan import Rows
    from airflow_openai_batch.job.plan import Shard, Source
    from airflow_openai_batch.storage.compression import Compression
    from airflow_openai_batch.storage.location import Location, Resolver


HASH_FIRST_BYTES = 64 * 2**20
"""What is not larger is read twice even from object storage, which takes a second or two; from a disk all is."""


class CheckedStream(io.RawIOBase):
    """A file-like object for an upload: streams, and compares size and SHA-256 before it hands out the end.

    Can be read from the beginning as often as wanted; seeks only there and (to learn the size) to the end.

    :param start: opens the content as blocks, from its first byte.
    :param hash_first: read all of it before the first byte is handed out, so that nothing leaves of what is wrong.
    """

    def __init__(
        self,
        name: str,
        size: int,
        sha256: str,
        start: Callable[[], Iterator[bytes]],
        *,
        hash_first: bool = False,
    ) -> None:
        super().__init__()
        self._must_hash = hash_first
        self.name = name
        self.size = size
        self.problem: Exception | None = None
        """What kept it from being read: a client library takes whatever `read` raises for a fault of the network."""
        self._sha256 = sha256
        self._start = start
        self._blocks: Iterator[bytes] = iter(())
        self._digest = hashlib.sha256()
        self._rest = memoryview(b"")
        self._read_bytes = 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """:raises io.UnsupportedOperation: for any place but the beginning, the end and where it is."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        target = base + offset
        if target not in (0, self._position, self._read_bytes, self.size):
            raise io.UnsupportedOperation(f"{self.name}: can be read from the beginning only")
        self._position = target
        return target

    def read(self, size: int | None = -1, /) -> bytes:
        """:raises InputChangedError: instead of the last bytes, if the content is not what was planned."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        if self._position >= self.size or size == 0:
            return b""
        if self._position == 0:
            self.check_first()
            self._restart()
        elif self._position != self._read_bytes:
            raise io.UnsupportedOperation(f"{self.name}: can be read from the beginning only")
        if not self._rest:
            self._fill()
        data = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        self._read_bytes = self._position = self._position + len(data)
        return data

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def check_first(self) -> None:
        """Read all of it if ``hash_first`` was asked for: once, since a later reading is compared at its end, too.

        :raises InputChangedError: if the content is not what was planned.
        """
        if not self._must_hash:
            return
        try:
            digest, size = hashlib.sha256(), 0
            for block in self._start():
                digest.update(block)
                size += len(block)
            if (size, digest.hexdigest()) != (self.size, self._sha256):
                raise self._make_changed_error()
        except Exception as error:
            self.problem = error
            raise
        self._must_hash = False

    def _make_changed_error(self) -> InputChangedError:
        return InputChangedError(
            f"{self.name}: the input changed since it was split (size or SHA-256 differs). "
            "Nothing was created from it. Split again with on_existing=restart."
        )

    def _restart(self) -> None:
        self.problem = None
        self._blocks = self._start()
        self._digest = hashlib.sha256()
        self._rest = memoryview(b"")
        self._read_bytes = 0

    def _fill(self) -> None:
        """Fetch the next block; the one that completes the content only if all of it is right."""
        try:
            block = next(self._blocks, b"")
            self._digest.update(block)
            arrived = self._read_bytes + len(block)
            if arrived > self.size or not block or (arrived == self.size and self._is_wrong()):
                raise self._make_changed_error()
        except Exception as error:
            self.problem = error
            raise
        self._rest = memoryview(block)

    def _is_wrong(self) -> bool:
        return self._digest.hexdigest() != self._sha256

    def close(self) -> None:
        closing = getattr(self._blocks, "close", None)
        if closing is not None:
            closing()
        super().close()


class ShardReader:
    """Reads one shard of a plan.

    :param sources: of the plan.
    :param output: the job directory, for staged shards and leftovers.
    :param resolve: how the URIs of the plan become places.
    """

    def __init__(self, sources: Rows[Source], shard: Shard, output: Location, resolve: Resolver) -> None:
        self._sources = sources
        self._shard = shard
        self._output = output
        self._resolve = resolve

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """:raises InputChangedError: if the job directory lacks the file that holds them."""
        name = self._shard.segments_file
        if name is None:
            return self._shard.segments
        place = self._output.child(name)
        try:
            segments = msgspec.json.decode(place.read_bytes(), type=tuple[Segment, ...])
        except (FileNotFoundError, msgspec.DecodeError):
            segments = ()
        if not segments or directory.find_foreign_segment(segments, len(self._sources)) is not None:
            raise InputChangedError(
                f"{place.uri}: is missing or damaged. Split again with on_existing=restart."
            )
        return segments

    def lines(self) -> Iterator[RequestLine]:
        """The requests in input order; memory is bounded by one block and one line.

        :raises InputChangedError: if size or version of the input is not as planned, or, after the last line,
            if the SHA-256 is not.
        """
        lines = _split_lines(self._checked_blocks())
        for segment in self.segments:
            uri = self._sources[segment.source].uri
            for index in range(segment.requests):
                line = next(lines, None)
                if line is None:
                    raise self._changed("it has fewer lines")
                yield RequestLine(segment.first_position + index, uri, segment.first_line + index, line)
        if next(lines, None) is not None:
            raise self._changed("it has more lines")

    def open_upload(self) -> CheckedStream:
        """The shard as a file of `Shard.bytes` bytes; nothing is read before the first ``read``."""
        shard = self._shard
        is_near = all(location.is_local for location, _ in self._objects.values())
        return CheckedStream(
            f"shard {shard.shard}",
            shard.bytes,
            shard.sha256,
            self._blocks,
            hash_first=is_near or shard.bytes <= HASH_FIRST_BYTES,
        )

    def open_leftover(self, send: int, size: int, sha256: str, *, first: int | None = None) -> CheckedStream:
        """What a later send of the shard, or a sample, carries, as a file."""
        place = self._output.child(directory.leftover(self._shard.shard, send, first))
        return CheckedStream(
            place.uri,
            size,
            sha256,
            lambda: _read_whole(place),
            hash_first=place.is_local or size <= HASH_FIRST_BYTES,
        )

    def _blocks(self) -> Iterator[bytes]:
        """The bytes, with size and version of the objects checked before the first."""
        if not self._check_objects():
            for _ in self._hashed(join_segments(self._ranges, self._objects)):
                pass
        yield from join_segments(self._ranges, self._objects)

    def _checked_blocks(self) -> Iterator[bytes]:
        return self._hashed(self._blocks())

    def _hashed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for block in blocks:
            digest.update(block)
            yield block
        if digest.hexdigest() != self._shard.sha256:
            raise self._changed("its SHA-256 differs")

    @cached_property
    def _ranges(self) -> tuple[Segment, ...]:
        """Segments that point into ``_objects``."""
        if self._shard.staged is None:
            return self.segments
        return tuple(msgspec.structs.replace(segment, source=0) for segment in self.segments)

    @cached_property
    def _objects(self) -> dict[int, tuple[Location, Compression | None]]:
        if self._shard.staged is not None:
            return {0: (self._output.child(self._shard.staged), None)}
        sources = {index: self._sources[index] for index in self._named_sources}
        return {index: (self._resolve(source.uri), source.compression) for index, source in sources.items()}

    @property
    def _named_sources(self) -> list[int]:
        return sorted({segment.source for segment in self.segments})

    def _check_objects(self) -> bool:
        """:returns: whether all versions are those of the plan.

        :raises InputChangedError: if an object is gone or has another size.
        """
        if self._shard.staged is not None:
            self._check_size(self._objects[0][0], self._shard.bytes)
            return True
        same = True
        for index in self._named_sources:
            planned = self._sources[index]
            same &= self._check_size(self._objects[index][0], planned.size) == planned.etag
        return same

    def _check_size(self, location: Location, size: int) -> str:
        try:
            found = describe_file(location)
        except InputError as error:
            raise InputChangedError(f"{error} It was there when the input was split.") from error
        if found.size != size:
            raise InputChangedError(
                f"{location.uri}: the input changed since it was split ({found.size:,} bytes instead of {size:,}). "
                "Split again with on_existing=restart."
            )
        return found.etag

    def _changed(self, how: str) -> InputChangedError:
        return InputChangedError(
            f"shard {self._shard.shard}: the input changed since it was split ({how}). "
            "Split again with on_existing=restart."
        )


def _read_whole(place: Location) -> Iterator[bytes]:
    reader = RangeReader(place, None)
    try:
        yield from reader.read(0, place.size())
    finally:
        reader.close()


def _split_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their newline; what follows the last newline is a line, too."""
    pending: list[bytes] = []
    for block in blocks:
        head, *rest = block.split(b"\n")
        pending.append(head)
        if rest:
            yield b"".join(pending)
            pending = [rest.pop()]
            yield from rest
    if last := b"".join(pending):
        yield last
