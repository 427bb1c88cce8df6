"""One streaming pass over the input: what every line is, which shard it goes to, and the shards' SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job.rejected import RejectedLine, RejectedSpool
from airflow_openai_batch.planning.chunk_tally import BLANK, KIND_BITS
from airflow_openai_batch.planning.chunks import SourceChunk, cut_chunks
from airflow_openai_batch.planning.line_table import LineTable
from airflow_openai_batch.planning.output_bounds import OutputTally
from airflow_openai_batch.planning.packing import Packer, Piece
from airflow_openai_batch.storage.compression import read_blocks
from airflow_openai_batch.storage.sources import describe_file, explained
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import ShardLimits
    from airflow_openai_batch.planning.chunk_tally import ChunkTally
    from airflow_openai_batch.storage.sources import SourceFile


@dataclass(frozen=True, slots=True)
class ScanProgress:
    """How far a scan has come."""

    bytes_done: int
    """As stored, compressed where the input is."""
    bytes_total: int
    lines: int
    rejected: int
    shards: int

    def __str__(self) -> str:
        share = 100 * self.bytes_done // max(1, self.bytes_total)
        bad = f", {self.rejected:,} bad" if self.rejected else ""
        return (
            f"Read {share}% of {self.bytes_total:,} bytes: {number_of(self.lines, 'line')}{bad}, "
            f"{number_of(self.shards, 'shard')}."
        )


CountChunks = Callable[[Iterable[SourceChunk]], "Iterator[tuple[SourceChunk, ChunkTally]]"]
"""Tallies chunks and yields them in the same order."""


@dataclass(slots=True)
class Scan:
    """What a scan found."""

    table: LineTable
    packer: Packer
    rejected: RejectedSpool = field(default_factory=RejectedSpool)
    sha256: list[str] = field(default_factory=list)
    """Of each shard; right as long as no line is rejected afterwards."""
    outputs: OutputTally = field(default_factory=OutputTally)
    """With lines that repeat a custom_id; see `outputs.drop_duplicates`."""
    images: int = 0
    """Requests with images in them."""


def scan_sources(
    files: Sequence[SourceFile],
    limits: ShardLimits,
    count_chunks: CountChunks,
    progress: Callable[[ScanProgress], None] | None = None,
) -> Scan:
    """Read every source once, front to back.

    :raises InputError: for a source that cannot be read, or is not JSON Lines.
    :raises InputChangedError: if a source changes while it is read.
    """
    scan = Scan(LineTable(), Packer(limits))
    digests = _ShardDigests()
    total = sum(file.size for file in files)
    try:
        for item, tally in count_chunks(_read_chunks(files, limits.max_bytes)):
            _note_rejections(scan, item, files[item.source], tally)
            columns = scan.table.append(item.source, item.chunk, tally)
            scan.outputs.add(tally.names, tally.outputs)
            scan.images += tally.images
            ends = np.cumsum(columns.lengths, dtype=np.int64)
            for piece in scan.packer.feed(columns):
                digests.add(piece, item.chunk.data, ends)
            if progress is not None:
                shards = len(scan.packer.shards)
                progress(ScanProgress(item.bytes_done, total, len(scan.table), scan.rejected.count, shards))
    except BaseException:
        scan.rejected.close()
        raise
    scan.sha256 = digests.finish()
    return scan


def _read_chunks(files: Sequence[SourceFile], max_line_bytes: int) -> Iterator[SourceChunk]:
    done = 0
    for number, file in enumerate(files):
        with explained(file.uri):
            opened = file.location.open_read()
        with opened as stream, explained(file.uri):
            blocks = read_blocks(stream, file.compression, file.uri)
            for chunk in cut_chunks(blocks, max_line_bytes=max_line_bytes, uri=file.uri):
                yield SourceChunk(number, chunk, done + stream.tell())
            _check_unchanged(file, stream)
        done += file.size


def _check_unchanged(file: SourceFile, stream: BinaryIO) -> None:
    now = describe_file(file.location)
    if (now.size, now.etag) != (file.size, file.etag) or stream.tell() != file.size:
        raise InputChangedError(f"{file.uri}: changed while it was read. Split it when it is complete.")


def _note_rejections(scan: Scan, item: SourceChunk, file: SourceFile, tally: ChunkTally) -> None:
    """Must come before the table grows: it tells where the chunk begins."""
    if not tally.rejections:
        return
    is_blank = (np.frombuffer(tally.flags, np.uint8) & KIND_BITS) == BLANK
    positions = scan.table.positions + np.cumsum(~is_blank) - 1
    first_number = scan.table.lines_of(item.source) + 1
    lengths = np.frombuffer(tally.lengths, np.uint32).astype(np.int64)
    ends = item.chunk.offset + np.cumsum(lengths + 1)
    for rejection in tally.rejections:
        scan.rejected.add(
            RejectedLine(
                source=file.uri,
                line_number=first_number + rejection.index,
                position=int(positions[rejection.index]),
                offset_bytes=int(ends[rejection.index] - lengths[rejection.index]) - 1,
                length_bytes=int(lengths[rejection.index]),
                custom_id=rejection.custom_id,
                code=rejection.code,
                message=rejection.message,
            )
        )


class _ShardDigests:
    """Hashes the shards while their bytes are at hand; one at a time, since they are contiguous."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._shard = -1
        self._done: list[str] = []

    def add(self, piece: Piece, data: bytes, ends: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        if piece.shard != self._shard:
            self._close()
            self._digest, self._shard = hashlib.sha256(), piece.shard
        view = memoryview(data)
        breaks = np.flatnonzero(np.diff(piece.lines) > 1)
        for first, last in zip([0, *(breaks + 1)], [*breaks, len(piece.lines) - 1], strict=True):
            line = int(piece.lines[first])
            start = int(ends[line - 1]) if line else 0
            end = int(ends[int(piece.lines[last])])
            self._digest.update(view[start:end])
            if end > len(data):
                self._digest.update(b"\n")  # the last line of a source without one

    def _close(self) -> None:
        if self._shard >= 0:
            self._done.append(self._digest.hexdigest())

    def finish(self) -> list[str]:
        self._close()
        return self._done
