"""A plan of which a task reads only what it needs: the head, then the rows that it asks for."""

from __future__ import annotations

import bisect
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from airflow_openai_batch.errors import JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.plan import Plan, PlanHead, Shard, Source
from airflow_openai_batch.job.plan_layout import BEGIN_BYTES, LaidOutHead, Table, find_head

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

_Row = TypeVar("_Row", bound=Source | Shard)
_Row_co = TypeVar("_Row_co", covariant=True)


class Rows(Protocol[_Row_co]):
    """Sources or shards of a plan: a tuple, or read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> _Row_co: ...

    def __iter__(self) -> Iterator[_Row_co]: ...


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """As a `Plan`, in parts."""

    head: PlanHead
    sources: Rows[Source]
    shards: Rows[Shard]

    @classmethod
    def of(cls, plan: Plan) -> OpenPlan:
        """Of one that was read already."""
        return cls(plan, plan.sources, plan.shards)


def open_plan(output: Location) -> OpenPlan | None:
    """The plan of a job directory; None where it has none. One read, of a long head two.

    :raises JobError: if there is a ``plan.json`` that is not one of ours.
    :raises NewerReleaseError: if it is one that this release does not understand.
    """
    place = output.child(directory.PLAN)
    output.fs.invalidate_cache()
    try:
        begin = read_begin(place)
        if len(begin) != BEGIN_BYTES:
            return _open_whole(place, begin)
        size = find_head(begin)
        if size is None:  # an older release has written it, or somebody after us
            return _open_whole(place, place.read_within(directory.MOST_PLAN_BYTES))
        if size > directory.MOST_PLAN_BYTES:
            raise directory.make_foreign_error(place, f"its head has {size:,} bytes")
        rest = place.read_range(BEGIN_BYTES, size) if size > BEGIN_BYTES else b""
        return _open_head(place, begin[:size] + rest)
    except FileNotFoundError:
        return None


def read_begin(place: Location) -> bytes:
    """The first bytes of a plan, which tell it from every other; of a small one all.

    :raises FileNotFoundError: if it is not there.
    """
    try:
        return place.read_range(0, BEGIN_BYTES)
    except FileNotFoundError:
        raise
    except OSError:  # for some stores an empty file has no ranges
        return place.read_within(directory.MOST_PLAN_BYTES)


def _open_whole(place: Location, data: bytes) -> OpenPlan:
    return OpenPlan.of(directory.parse_plan(place, data))


def _open_head(place: Location, data: bytes) -> OpenPlan:
    head = directory.decode_plan(place, data + b"}", LaidOutHead)
    tables = head.contents
    for table in (tables.sources, tables.shards):
        if not _is_sound(table):
            raise directory.make_foreign_error(place, "its head names no places of rows")

    def check_shard(shard: Shard, number: int) -> None:
        if (problem := directory.find_foreign_shard(shard, number, tables.sources.rows)) is not None:
            raise directory.make_foreign_error(place, f"it says {problem}")

    return OpenPlan(
        head,
        RowsOnDemand(place, len(data), tables.sources, Source),
        RowsOnDemand(place, len(data), tables.shards, Shard, check_shard),
    )


def _is_sound(table: Table) -> bool:
    """Blocks one after another, without a gap."""
    firsts = [*(block.first for block in table.blocks), table.rows]
    starts = [*(block.start for block in table.blocks), table.end]
    rise = all(before < after for each in (firsts, starts) for before, after in itertools.pairwise(each))
    return rise and firsts[0] == 0 and starts[0] >= 0 and table.end <= directory.MOST_PLAN_BYTES


class RowsOnDemand(Generic[_Row]):
    """Rows of a plan, a block with each read; none is read twice.

    :param head_bytes: after which places count.
    :param check: raises for a row that none of ours is.
    """

    def __init__(
        self,
        place: Location,
        head_bytes: int,
        table: Table,
        kind: type[_Row],
        check: Callable[[_Row, int], None] = lambda row, number: None,
    ) -> None:
        self._place = place
        self._head_bytes = head_bytes
        self._table = table
        self._kind = kind
        self._check = check
        self._firsts = [block.first for block in table.blocks]
        self._blocks: dict[int, tuple[_Row, ...]] = {}

    def __len__(self) -> int:
        return self._table.rows

    def __getitem__(self, number: int, /) -> _Row:
        """:raises JobError: if it is not what the head says."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        block = bisect.bisect_right(self._firsts, number) - 1
        if block not in self._blocks:
            self._read(block, block + 1)
        return self._blocks[block][number - self._firsts[block]]

    def __iter__(self) -> Iterator[_Row]:
        """All of them, with one read."""
        if len(self._blocks) < len(self._firsts):
            self._read(0, len(self._firsts))
        for block in range(len(self._firsts)):
            yield from self._blocks[block]

    def _read(self, first: int, last: int) -> None:
        """The blocks from ``first`` to ``last`` (exclusive)."""
        starts = [*(block.start for block in self._table.blocks), self._table.end]
        origin = starts[first]
        data = self._place.read_range(self._head_bytes + origin, self._head_bytes + starts[last])
        for block in range(first, last):
            self._blocks[block] = self._decode(
                block, data[starts[block] - origin : starts[block + 1] - origin]
            )

    def _decode(self, block: int, data: bytes) -> tuple[_Row, ...]:
        known, number = self._table.blocks[block], self._firsts[block]
        end = [*self._firsts[1:], len(self)][block]
        try:
            rows = msgspec.json.decode(b"[%b]" % data.rstrip(b",\n"), type=tuple[self._kind, ...])  # type: ignore[name-defined]
        except msgspec.DecodeError:
            rows = ()
        if zlib.crc32(data) != known.crc32 or len(rows) != end - number:
            raise JobError(
                f"{self._place.uri}: is damaged, or another run has begun the job anew while it was read. Nothing was "
                "sent. Clear the task."
            )
        for place, row in enumerate(rows, start=number):
            self._check(row, place)
        return rows
