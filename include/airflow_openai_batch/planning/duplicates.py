"""Requests with a custom_id that an earlier one has: found by sorting hashes, confirmed on the ids.

OpenAI returns results by custom_id, so a second one could not be told from the first.
"""

from __future__ import annotations

import contextlib
import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job.ranges import RangeReader
from airflow_openai_batch.job.rejected import RejectedLine, SourceNames
from airflow_openai_batch.job.request_line import READ_ERRORS, read_envelope
from airflow_openai_batch.planning.chunk_tally import KIND_BITS, REQUEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from airflow_openai_batch.planning.line_table import LineTable
    from airflow_openai_batch.storage.sources import SourceFile

_SLICE_LINES = 2**20


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Lines of the table whose custom_id stands in an earlier line, in order, with that line."""

    lines: NDArray[np.int64]
    first_lines: NDArray[np.int64]


def find_duplicates(table: LineTable, files: Sequence[SourceFile]) -> Duplicates:
    """Costs 16 bytes a line while it sorts, and reads the input again only where hashes are equal."""
    candidates = _find_candidates(table)
    if not len(candidates):
        return Duplicates(candidates, candidates)
    # A second, stronger hash settles it: two ids that agree in both are the same.
    strong = array("q", (_strong_hash(custom_id) for _, custom_id, _ in _read_ids(candidates, table, files)))
    hashes = table.hashes()[candidates]
    order = np.lexsort((candidates, np.frombuffer(strong, np.int64), hashes))
    same = np.zeros(len(order), bool)
    ordered = np.frombuffer(strong, np.int64)[order]
    same[1:] = (ordered[1:] == ordered[:-1]) & (np.diff(hashes[order]) == 0)
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    lines, first_lines = candidates[order[same]], candidates[order[starts[same]]]
    by_line = np.argsort(lines)
    return Duplicates(lines[by_line], first_lines[by_line])


def _find_candidates(table: LineTable) -> NDArray[np.int64]:
    """Lines whose hash occurs more than once."""
    is_request = (table.flags() & KIND_BITS) == REQUEST
    ordered = table.hashes()[is_request]
    ordered.sort()
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    if not len(repeated):
        return np.zeros(0, np.int64)
    found = []
    for start in range(0, len(table), _SLICE_LINES):
        hashes = table.hashes()[start : start + _SLICE_LINES]
        at = np.minimum(np.searchsorted(repeated, hashes), len(repeated) - 1)
        hit = (repeated[at] == hashes) & is_request[start : start + _SLICE_LINES]
        found.append(np.flatnonzero(hit) + start)
    return np.concatenate(found)


def _strong_hash(custom_id: str) -> int:
    digest = hashlib.blake2b(custom_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _read_ids(
    lines: NDArray[np.int64], table: LineTable, files: Sequence[SourceFile]
) -> Iterator[tuple[int, str, int]]:
    """Number, custom_id and length in bytes of each line."""
    for line, data in reread_lines(lines, table, files):
        try:
            yield line, read_envelope(data).custom_id, len(data)
        except READ_ERRORS:
            uri = files[table.place(line).source].uri
            raise InputChangedError(f"{uri}: changed while it was split. Split it again.") from None


def describe_duplicates(
    duplicates: Duplicates, table: LineTable, files: Sequence[SourceFile], names: SourceNames
) -> Iterator[RejectedLine]:
    """Each duplicate as a rejected line that names the line it repeats."""
    ids = _read_ids(duplicates.lines, table, files)
    for (line, custom_id, length_bytes), first_line in zip(ids, duplicates.first_lines, strict=True):
        place, first = table.place(line), table.place(int(first_line))
        yield RejectedLine(
            source=files[place.source].uri,
            line_number=place.line_number,
            position=place.position,
            offset_bytes=place.offset_bytes,
            length_bytes=length_bytes,
            custom_id=custom_id,
            code="duplicate_custom_id",
            message=f"custom_id is that of {names.line(first.source, first.line_number)}; "
            "it must be unique over the whole input",
        )


def reread_lines(
    lines: NDArray[np.int64], table: LineTable, files: Sequence[SourceFile]
) -> Iterator[tuple[int, bytes]]:
    """The number and the bytes of each of these lines of the table, which must be in order.

    Reads the chunks they stand in, and of compressed sources all that comes before them.

    :raises InputChangedError: if the source has changed since it was scanned.
    """
    with contextlib.ExitStack() as closing:
        reader: RangeReader | None = None
        current = -1
        for group in table.by_chunk(lines):
            if reader is None or group.source != current:
                closing.close()
                file = files[group.source]
                reader, current = RangeReader(file.location, file.compression), group.source
                closing.callback(reader.close)
            data = b"".join(reader.read(group.start, group.end)).split(b"\n")
            if len(data) < group.lines:
                raise InputChangedError(f"{files[current].uri}: changed while it was split. Split it again.")
            for line in group.wanted:
                yield int(line), data[int(line) - group.first_line]
