"""A job's result rows by position: those that stand beside a stretch of source rows, in its order.

Rows and results run through the input in the same order, so nearly every row group is read once. Rows that share
an answer (``dedupe``) look back to an earlier one: row groups are kept while they fit into a cache, and read again
when they do not. Memory is bounded by the cache and one piece.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_openai_batch.errors import AccountingError
from airflow_openai_batch.results.outcome import NOT_SENT
from airflow_openai_batch.results.result_rows import SCHEMA

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.storage.location import Location

Positions = npt.NDArray[np.int64]

CACHE_BYTES = 64 * 2**20
"""Of decoded row groups."""
PIECE_BYTES = 24 * 2**20
"""Of answers beside one piece of source rows."""
NO_POSITION = -1
"""A source row that was never sent."""
UNFINISHED = "unfinished"
"""``answer_status`` of a row that has no result yet: its shard is not done, and perhaps the sample left it out."""

_ROW_BYTES = 64
"""What a row takes beyond what its columns are said to."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """The row groups of one part that has rows."""

    first_positions: Positions
    row_bytes: npt.NDArray[np.float64]
    """Mean of each group, over the columns that are read."""


class AnswerReader:
    """Looks up result rows by position.

    :param part_of: where the part of a shard lies, by its number. One that is not there has no rows.
    :param columns: those of ``results/`` that are wanted; ``position`` is always read.
    :param unfinished: shards that are not done: what a sample left out of them has no result yet, though it has a row.
    """

    def __init__(
        self,
        plan: Plan,
        part_of: Callable[[int], Location],
        columns: Sequence[str],
        *,
        unfinished: Collection[int] = (),
        cache_bytes: int = CACHE_BYTES,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._part_of = part_of
        self._columns = ["position", *(name for name in columns if name != "position")]
        self._schema = pa.schema([SCHEMA.field(name).with_nullable(True) for name in self._columns])
        self._first_positions: Positions = np.array([s.first_position for s in plan.shards], np.int64)
        self._unfinished = np.array(sorted(unfinished), np.int64)
        self._groups: dict[int, _Groups | None] = {}
        self._cache: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._piece_bytes = piece_bytes
        self._open_part: tuple[int, pq.ParquetFile] | None = None
        self._open_file = contextlib.ExitStack()
        self.groups_read = 0
        """How often a row group was read; for tests of the cache."""

    def __enter__(self) -> AnswerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._open_file.close()

    def cut(self, positions: Positions) -> Iterator[slice]:
        """Pieces whose answers fit into memory together; a long answer that many rows share counts for each."""
        sizes = np.full(len(positions), float(_ROW_BYTES))
        for shard, group, mask in self._locate(positions):
            sizes[mask] += self._groups_of(shard).row_bytes[group]
        pieces = np.floor(np.cumsum(sizes) / self._piece_bytes).astype(np.int64)
        starts = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), len(positions)]
        for start, end in itertools.pairwise(starts):
            if end > start:
                yield slice(start, end)

    def take(self, positions: Positions) -> pa.Table:
        """One row for each position, in their order; a row of nulls where there is no result."""
        rows = np.full(len(positions), NO_POSITION, np.int64)
        tables: list[pa.Table] = []
        taken = 0
        for shard, group, mask in self._locate(positions):
            table = self._read_group(shard, group)
            known = table.column("position").to_numpy()
            wanted = positions[mask]
            index = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            found = known[index] == wanted
            rows[np.flatnonzero(mask)[found]] = taken + np.arange(int(found.sum()))
            tables.append(table.take(pa.array(index[found])))
            taken += int(found.sum())
        gathered = pa.concat_tables([self._schema.empty_table(), *tables]).combine_chunks()
        return self._mark_unsent(positions, gathered.take(pa.array(rows, mask=rows == NO_POSITION)))

    def _mark_unsent(self, positions: Positions, answers: pa.Table) -> pa.Table:
        if not len(self._unfinished) or not {"status", "error_code"} <= set(answers.column_names):
            return answers
        is_open = pa.array(np.isin(self.shards_of(positions), self._unfinished))
        unsent = pc.and_(pc.fill_null(pc.equal(answers.column("error_code"), NOT_SENT), False), is_open)
        status = pc.if_else(unsent, UNFINISHED, answers.column("status"))
        return answers.set_column(
            answers.schema.get_field_index("status"), self._schema.field("status"), status
        )

    def shards_of(self, positions: Positions) -> Positions:
        """The shard that each position belongs to; -1 where it comes before the first."""
        return np.searchsorted(self._first_positions, positions, "right").astype(np.int64) - 1

    def _locate(self, positions: Positions) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
        """Each row group that may hold some of the positions: its shard, its number, and which they are."""
        shards = self.shards_of(positions)
        for shard in np.unique(shards[positions >= 0]).tolist():
            groups = self._find_groups(shard) if shard >= 0 else None
            if groups is None:
                continue
            in_shard = (shards == shard) & (positions >= groups.first_positions[0])
            numbers = np.searchsorted(groups.first_positions, positions, "right") - 1
            for number in np.unique(numbers[in_shard]).tolist():
                yield shard, number, in_shard & (numbers == number)

    def _groups_of(self, shard: int) -> _Groups:
        groups = self._find_groups(shard)
        assert groups is not None  # noqa: S101 - `_locate` names none but those that are there
        return groups

    def _find_groups(self, shard: int) -> _Groups | None:
        """None where the shard has no part yet, or one without rows."""
        if shard not in self._groups:
            self._groups[shard] = self._read_groups(shard)
        return self._groups[shard]

    def _read_groups(self, shard: int) -> _Groups | None:
        try:
            metadata = self._open(shard).metadata
        except FileNotFoundError:
            return None
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        if not groups:
            return None
        indexes = [_column_indexes(group, self._columns) for group in groups]
        return _Groups(
            np.array([_first_position(group) for group in groups], np.int64),
            np.array(
                [
                    sum(group.column(index).total_uncompressed_size for index in wanted) / group.num_rows
                    for group, wanted in zip(groups, indexes, strict=True)
                ]
            ),
        )

    def _read_group(self, shard: int, group: int) -> pa.Table:
        key = (shard, group)
        table = self._cache.get(key)
        if table is not None:
            self._cache.move_to_end(key)
            return table
        self.groups_read += 1
        found = self._open(shard).read_row_group(group, columns=self._columns)
        # A part of an earlier release lacks the columns that came later.
        columns = [
            found.column(field.name) if field.name in found.column_names else pa.nulls(len(found), field.type)
            for field in self._schema
        ]
        table = pa.table(columns, schema=self._schema)
        self._cache[key] = table
        while len(self._cache) > 1 and sum(each.nbytes for each in self._cache.values()) > self._cache_bytes:
            self._cache.popitem(last=False)
        return table

    def _open(self, shard: int) -> pq.ParquetFile:
        """:raises AccountingError: if the part is there and cannot be read as one."""
        if self._open_part is None or self._open_part[0] != shard:
            self._open_file.close()
            self._open_part = None
            place = self._part_of(shard)
            file = self._open_file.enter_context(place.open_read())
            try:
                self._open_part = (shard, pq.ParquetFile(file))
            except pa.ArrowInvalid as error:
                raise AccountingError(
                    f"{place.uri}: is no whole Parquet file. Clear the download task of shard {shard}: landing again "
                    "costs nothing."
                ) from error
        return self._open_part[1]


def _column_indexes(group: pq.RowGroupMetaData, names: Sequence[str]) -> list[int]:
    """Of the leaves below the wanted columns: a list is one, too, under a longer name."""
    wanted = set(names)
    paths = [group.column(index).path_in_schema for index in range(group.num_columns)]
    return [index for index, path in enumerate(paths) if path.partition(".")[0] in wanted]


def _first_position(group: pq.RowGroupMetaData) -> int:
    """From the statistics that `results.ResultsWriter` writes."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "position":
            return int(column.statistics.min)
    raise AssertionError("results have a position")
