"""The last check before a report: every position of the input stands in one row or in rejected.jsonl.

Positions are compared as they stream by. Parts in shard order are in input order, and so are the
rejected lines, so nothing is held but the positions of a few parts.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.errors import AccountingError
from airflow_openai_batch.job import directory
from airflow_openai_batch.storage.read_ahead import read_ahead

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from airflow_openai_batch.job.plan import Plan, Shard
    from airflow_openai_batch.storage.location import Location

    _PartRows: TypeAlias = tuple[npt.NDArray[np.int64], dict[str, int]]
    """Positions, and how many rows have which status."""

BATCH_ROWS = 65_536
_AHEAD_BYTES = 65_536
"""Of a part two columns are read, and what lies between them is not."""
_WHOLE_BYTES = 262_144
"""A part up to this is fetched whole: by one request, where two columns of it take two."""


class RowCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted. ``positions == rows + rejected + unfinished``."""

    positions: int
    rows: int
    rows_by_status: dict[str, int]
    rejected: int
    unfinished: int = 0
    """Requests of shards that have no part yet."""


def check_accounts(
    plan: Plan,
    output: Location,
    *,
    unfinished: Container[int] = (),
    part_bytes: Mapping[int, int] = MappingProxyType({}),
) -> RowCheck:
    """Hold the parts and ``rejected.jsonl`` against the plan.

    :param output: the job directory.
    :param unfinished: shards whose part is not expected; their requests are counted, not looked at.
    :param part_bytes: how long the part of a shard is thought to be, which chooses how it is read.
    :raises AccountingError: naming the first position that is in no row or in two, and the counts.
    """
    check = _Check(plan, _read_rejected(output.child(directory.REJECTED)))
    landed = [number for number in range(len(plan.shards)) if number not in unfinished]
    places = [output.child(directory.part(number)) for number in landed]
    parts = dict(zip(landed, places, strict=True))
    contents = read_ahead(
        lambda item: _read_part(*item),
        zip(places, (part_bytes.get(each) for each in landed), strict=True),
        output,
    )
    starts = [*(shard.first_position for shard in plan.shards), plan.counts.positions]
    for shard, end in zip(plan.shards, starts[1:], strict=True):
        if shard.shard in parts:
            check.add_part(shard, parts[shard.shard], next(contents))
        else:
            check.skip(shard, end)
    return check.finish()


class _Check:
    def __init__(self, plan: Plan, rejected: Iterator[int]) -> None:
        self._plan = plan
        self._rejected = rejected
        self._rejected_seen = 0
        self._next_rejected = next(rejected, None)
        self._next = 0
        self._rows = 0
        self._unfinished = 0
        self._by_status: Counter[str] = Counter()

    def add_part(self, shard: Shard, part: Location, content: bytes | Sequence[_PartRows] | None) -> None:
        rows = 0
        if content is None:
            self._fail(f"{part.uri}: the part of shard {shard.shard} is not there")
        if isinstance(content, bytes):
            content = _read_rows(pa.BufferReader(content))
        for positions, statuses in content:
            self._add(positions, part.uri)
            rows += len(positions)
            self._by_status.update(statuses)
        self._rows += rows
        if rows != shard.requests:
            self._fail(
                f"{part.uri}: {rows:,} rows for the {shard.requests:,} requests of shard {shard.shard}"
            )

    def skip(self, shard: Shard, end: int) -> None:
        """Pass over a shard without a part: its positions are those that were not rejected."""
        before = self._rejected_seen
        gap = end - self._next
        while self._next_rejected is not None and self._next_rejected < end:
            self._take_rejected()
        rejected = self._rejected_seen - before
        leading = gap - rejected
        if leading != shard.requests:
            self._fail(
                f"shard {shard.shard} (no results yet): {leading:,} positions for {shard.requests:,} requests"
            )
        self._unfinished += shard.requests
        self._next = end

    def finish(self) -> RowCheck:
        self._expect_rejected_until(self._plan.counts.positions, "after the last row")
        if self._next_rejected is not None:
            self._fail(
                f"rejected.jsonl names position {self._next_rejected:,}, which the input does not have"
            )
        if self._rejected_seen != self._plan.counts.rejected:
            self._fail(
                f"rejected.jsonl has {self._rejected_seen:,} lines, not {self._plan.counts.rejected:,}"
            )
        return RowCheck(
            positions=self._plan.counts.positions,
            rows=self._rows,
            rows_by_status=dict(self._by_status),
            rejected=self._rejected_seen,
            unfinished=self._unfinished,
        )

    def _add(self, positions: npt.NDArray[np.int64], where: str) -> None:
        if not len(positions):
            return
        start = 0
        for end in (*(np.flatnonzero(np.diff(positions) != 1) + 1).tolist(), len(positions)):
            first = int(positions[start])
            if first < self._next:
                self._fail(f"{where}: position {first:,} stands in a row twice or out of order")
            self._expect_rejected_until(first, where)
            self._next = int(positions[end - 1]) + 1
            start = end
        if self._next_rejected is not None and self._next_rejected < self._next:
            self._fail(f"position {self._next_rejected:,} stands in a row and in rejected.jsonl")

    def _expect_rejected_until(self, end: int, where: str) -> None:
        """The positions from here to ``end`` have no row: each must have been rejected."""
        while self._next < end:
            if self._next_rejected != self._next:
                self._fail(f"{where}: position {self._next:,} stands in no row and was not rejected")
            self._take_rejected()
            self._next += 1

    def _take_rejected(self) -> None:
        self._rejected_seen += 1
        previous, self._next_rejected = self._next_rejected, next(self._rejected, None)
        if previous is not None and self._next_rejected is not None and self._next_rejected <= previous:
            self._fail(f"rejected.jsonl: position {self._next_rejected:,} stands there twice or out of order")

    def _fail(self, what: str) -> NoReturn:
        counts = self._plan.counts
        raise AccountingError(
            f"{what}. Counted so far: {self._rows:,} rows, {self._rejected_seen:,} rejected, "
            f"{self._unfinished:,} in unfinished shards; the plan has {counts.positions:,} positions, "
            f"{counts.requests:,} requests, {counts.rejected:,} rejected. "
            "Clear the download task of the shard named here: landing again costs nothing."
        )


def _read_part(part: Location, thought_bytes: int | None) -> bytes | list[_PartRows] | None:
    """A small part as it is; of another two columns, 0.5 MB at most; None where it is not there."""
    try:
        if thought_bytes is not None and thought_bytes <= _WHOLE_BYTES:
            whole = part.read_range(0, _WHOLE_BYTES + 1)
            if len(whole) <= _WHOLE_BYTES:
                return whole  # many threads that parse at once are in each other's way
        with part.open_read(ahead_bytes=_AHEAD_BYTES) as file:
            return _read_rows(file)
    except FileNotFoundError:
        return None


def _read_rows(file: Any) -> list[_PartRows]:
    return [
        (
            batch.column("position").to_numpy(),
            _expand(batch.column("status").value_counts().to_pylist()),
        )
        for batch in pq.ParquetFile(file).iter_batches(
            BATCH_ROWS, columns=["position", "status"], use_threads=False
        )
    ]


def _expand(counts: list[dict[str, int | str]]) -> dict[str, int]:
    return {str(item["values"]): int(item["counts"]) for item in counts}


class _Rejected(msgspec.Struct):
    position: int


def _read_rejected(place: Location | None) -> Iterator[int]:
    if place is None or not place.exists():
        return
    decode = msgspec.json.Decoder(_Rejected).decode
    with place.open_read() as file:
        for line in file:
            if line.strip():
                yield decode(line).position
