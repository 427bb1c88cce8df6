"""Twenty-one bytes for every line of the input: all that a plan is made from."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.job.plan import Segment
from airflow_openai_batch.planning.chunk_tally import (
    BLANK,
    FLAGS,
    HASH,
    INPUTS,
    KEY,
    KIND_BITS,
    LENGTH,
    REJECTED,
    REQUEST,
    TOKENS,
    ChunkTally,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from airflow_openai_batch.planning.chunks import Chunk

MAX_LINES = 100_000_000
"""Of a job: 2.1 GB of memory while it is split. A file of a megabyte may unpack to a billion blank ones."""
_MAX_NAMES = 2**16 - 1


@dataclass(frozen=True, slots=True)
class LinePlace:
    """Where a line stands."""

    source: int
    line_number: int
    """1-based, in its source."""
    position: int
    """0-based over the whole input; blank lines are not counted."""
    offset_bytes: int
    """Where it begins in its source."""


@dataclass(frozen=True, slots=True)
class _ChunkStart:
    """The first line of a chunk; the rest follows from lengths."""

    line: int
    source: int
    offset: int
    line_number: int
    position: int


@dataclass(frozen=True, slots=True)
class ChunkLines:
    """Some lines of a chunk, and where in their source to read it."""

    source: int
    start: int
    end: int
    first_line: int
    lines: int
    wanted: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Numbers of some lines, one array a column."""

    lengths: NDArray[np.uint32]
    tokens: NDArray[np.uint32]
    keys: NDArray[np.uint16]
    flags: NDArray[np.uint8]
    inputs: NDArray[np.uint16]


class LineTable:
    """Grows chunk by chunk in input order."""

    def __init__(self) -> None:
        self._lengths = array(LENGTH)
        self._tokens = array(TOKENS)
        self._hashes = array(HASH)
        self._keys = array(KEY)
        self._flags = array(FLAGS)
        self._inputs = array(INPUTS)
        self.names: dict[tuple[str, str], int] = {}
        """Model and endpoint, with their key."""
        self._chunks: list[_ChunkStart] = []
        self._chunk_lines: list[int] = []
        self._source_bytes: dict[int, int] = {}
        self._source_lines: dict[int, int] = {}
        self._positions = 0
        self.blank = 0
        self.sample_lines = array("Q")
        self.sample_tokens = array("I")

    def __len__(self) -> int:
        return len(self._flags)

    @property
    def positions(self) -> int:
        return self._positions

    def append(self, source: int, chunk: Chunk, tally: ChunkTally) -> Columns:
        """Add a chunk, and return its columns with the keys of this table."""
        first = len(self)
        if first + len(tally.flags) > MAX_LINES:
            raise InputError(
                f"The input has more than {MAX_LINES:,} lines, blank ones too, the limit of a job. Cut it into several."
            )
        number = self._source_lines.get(source, 0)
        self._chunks.append(_ChunkStart(first, source, chunk.offset, number + 1, self._positions))
        self._chunk_lines.append(first)
        keys = self._translate_keys(tally)
        lengths = np.frombuffer(tally.lengths, np.uint32) + np.uint32(1)  # now with the newline
        self._lengths.frombytes(lengths.tobytes())
        self._tokens.frombytes(tally.tokens)
        self._hashes.frombytes(tally.hashes)
        self._keys.frombytes(keys.tobytes())
        self._flags.frombytes(tally.flags)
        self._inputs.frombytes(tally.inputs)
        for index, tokens in tally.samples:
            self.sample_lines.append(first + index)
            self.sample_tokens.append(tokens)
        flags = np.frombuffer(tally.flags, np.uint8)
        blank = int(np.count_nonzero((flags & KIND_BITS) == BLANK))
        self.blank += blank
        self._positions += len(flags) - blank
        self._source_lines[source] = number + len(flags)
        self._source_bytes[source] = chunk.offset + (chunk.overlong_bytes or len(chunk.data))
        return Columns(
            lengths,
            np.frombuffer(tally.tokens, np.uint32),
            keys,
            flags,
            np.frombuffer(tally.inputs, np.uint16),
        )

    def _translate_keys(self, tally: ChunkTally) -> NDArray[np.uint16]:
        keys = [self.names.setdefault(name, len(self.names)) for name in tally.names]
        if len(self.names) > _MAX_NAMES:
            raise InputError(
                f"The input names more than {_MAX_NAMES:,} models; a shard holds one, so this cannot be meant."
            )
        local = np.frombuffer(tally.keys, np.uint16)
        return np.array(keys or [0], np.uint16)[local]

    def columns(self, start: int, stop: int) -> Columns:
        """Copies of a range of lines."""
        return Columns(
            np.array(self._lengths[start:stop], np.uint32),
            np.array(self._tokens[start:stop], np.uint32),
            np.array(self._keys[start:stop], np.uint16),
            np.array(self._flags[start:stop], np.uint8),
            np.array(self._inputs[start:stop], np.uint16),
        )

    def tokens_at(self, lines: NDArray[np.int64]) -> NDArray[np.uint32]:
        return np.frombuffer(self._tokens, np.uint32)[lines] if len(self) else np.zeros(0, np.uint32)

    def hashes(self) -> NDArray[np.int64]:
        """A view; the table must not grow while it is held."""
        return np.frombuffer(self._hashes, np.int64)

    def flags(self) -> NDArray[np.uint8]:
        """A view; the table must not grow while it is held."""
        return np.frombuffer(self._flags, np.uint8)

    def reject(self, line: int) -> None:
        self._flags[line] = REJECTED

    def lines_of(self, source: int) -> int:
        return self._source_lines.get(source, 0)

    def place(self, line: int) -> LinePlace:
        """Where a line stands."""
        chunk = self._chunks[bisect_right(self._chunk_lines, line) - 1]
        between = np.frombuffer(self._flags, np.uint8)[chunk.line : line] & KIND_BITS
        skipped = int(np.count_nonzero(between == BLANK))
        ahead = line - chunk.line
        before = np.frombuffer(self._lengths, np.uint32)[chunk.line : line].sum(dtype=np.int64)
        return LinePlace(
            chunk.source,
            chunk.line_number + ahead,
            chunk.position + ahead - skipped,
            chunk.offset + int(before),
        )

    def by_chunk(self, lines: NDArray[np.int64]) -> Iterator[ChunkLines]:
        """Group lines, which must be in order, by the chunk they came in."""
        bounds = [*self._chunk_lines, len(self)]
        at = 0
        while at < len(lines):
            number = bisect_right(self._chunk_lines, int(lines[at])) - 1
            chunk, stop = self._chunks[number], bounds[number + 1]
            until = int(np.searchsorted(lines, stop))
            yield ChunkLines(
                chunk.source,
                chunk.offset,
                self._end_of(number),
                chunk.line,
                stop - chunk.line,
                lines[at:until],
            )
            at = until

    def _end_of(self, number: int) -> int:
        chunk = self._chunks[number]
        following = self._chunks[number + 1] if number + 1 < len(self._chunks) else None
        if following is not None and following.source == chunk.source:
            return following.offset
        return self._source_bytes[chunk.source]

    def segments(self, start: int, stop: int) -> list[Segment]:
        """The runs of request lines among these."""
        found: list[Segment] = []
        at = bisect_right(self._chunk_lines, start) - 1
        while at < len(self._chunks) and self._chunks[at].line < stop:
            end = self._chunks[at + 1].line if at + 1 < len(self._chunks) else len(self)
            for segment in self._segments_in(self._chunks[at], start, min(stop, end)):
                _extend(found, segment)
            at += 1
        return found

    def _segments_in(self, chunk: _ChunkStart, start: int, stop: int) -> list[Segment]:
        """As `segments`, within one chunk."""
        flags = np.frombuffer(self._flags, np.uint8)[chunk.line : stop] & KIND_BITS
        lengths = np.frombuffer(self._lengths, np.uint32)[chunk.line : stop]
        ends = chunk.offset + np.cumsum(lengths, dtype=np.int64)
        positions = chunk.position + np.cumsum(flags != BLANK, dtype=np.int64) - 1
        skip = max(0, start - chunk.line)
        lines = np.flatnonzero(flags[skip:] == REQUEST) + skip
        if not len(lines):
            return []
        size = self._source_bytes[chunk.source]  # a last line without a newline ends before its length says
        breaks = np.flatnonzero(np.diff(lines) > 1)
        firsts = lines[np.concatenate(([0], breaks + 1))]
        lasts = lines[np.concatenate((breaks, [len(lines) - 1]))]
        return [
            Segment(
                source=chunk.source,
                start=int(ends[first] - lengths[first]),
                end=min(int(ends[last]), size),
                first_line=chunk.line_number + int(first),
                first_position=int(positions[first]),
                requests=int(last - first) + 1,
            )
            for first, last in zip(firsts, lasts, strict=True)
        ]


def _extend(found: list[Segment], segment: Segment) -> None:
    last = found[-1] if found else None
    if last is not None and last.source == segment.source and last.end == segment.start:
        found[-1] = Segment(
            source=last.source,
            start=last.start,
            end=segment.end,
            first_line=last.first_line,
            first_position=last.first_position,
            requests=last.requests + segment.requests,
        )
    else:
        found.append(segment)
