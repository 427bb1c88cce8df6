"""The day's table: its rows as they are now, with the answers of all rounds beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.recipes.reviews.day_rounds import (
    ANSWERS,
    collect_answers,
    find_day_rows,
    list_rounds,
    read_columns,
)
from airflow_openai_batch.recipes.reviews.known_answers import STATUS, KnownAnswers
from airflow_openai_batch.tables.join.answer_columns import REJECTED, AnswerColumns
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED
from airflow_openai_batch.tables.reading import open_row_files

if TYPE_CHECKING:
    from airflow_openai_batch.access.givers import Giver
    from airflow_openai_batch.recipes.reviews.nights import Night
    from airflow_openai_batch.tables.preparation import Manifest
    from airflow_openai_batch.tables.reading import RowBlock

_ERROR = 2
"""Which of an answer's cells it is."""
_BATCH_ROWS = 5_000


@dataclass(slots=True)
class DayTable:
    """A stream of rows with their answers.

    :param answers: names of the answer's columns; the first is the answer itself, ``answers[STATUS]`` its status.
    """

    schema: pa.Schema
    answers: list[str]
    batches: Iterator[pa.RecordBatch]
    manifest: Manifest
    bad_before: int = 0
    """Rows so far that an earlier round than the last asked, and that have no good answer."""


@contextlib.contextmanager
def open_day_table(night: Night, giver: Giver) -> Iterator[DayTable]:
    """What there is of a day. One batch of rows is in memory, whatever the day's size.

    :param giver: who named the day's files.
    :raises FileNotFoundError: if nothing was prepared and joined yet.
    """
    rounds = list_rounds(night)
    manifest = rounds[0].read_manifest()
    if manifest is None:
        raise FileNotFoundError(f"{rounds[0].place.uri}/prepared")
    read = read_columns(night, rounds)
    if read is None:
        place = rounds[0].place.child(ANSWERS)
        with place.open_read() as file, pq.ParquetFile(file) as source:
            schema = source.schema_arrow
            names = schema.names[len(manifest.columns) :]
            yield DayTable(schema, names, source.iter_batches(_BATCH_ROWS), manifest)
        return
    found = find_day_rows(night, giver)
    with open_row_files(found) as rows, KnownAnswers(read, as_lines=found.format == "jsonl") as known:
        collect_answers(rounds, known)
        columns = AnswerColumns(manifest.endpoint, manifest.schema, rows.schema)
        table = DayTable(columns.schema, [each.name for each in columns.fields], iter(()), manifest)
        merge = _Merge(table, columns, known, len(rounds))
        table.batches = (merge.join(block) for block in rows.blocks)
        yield table


@dataclass(slots=True)
class _Merge:
    table: DayTable
    columns: AnswerColumns
    known: KnownAnswers
    last_round: int

    def join(self, block: RowBlock) -> pa.RecordBatch:
        rows = self.known.read(block.batch)
        cells = [self._find(row, block.problems.get(at)) for at, row in enumerate(rows)]
        beside = [
            pa.array([row[number] for row in cells], field.type)
            for number, field in enumerate(self.columns.fields)
        ]
        return pa.record_batch([*block.batch.columns, *beside], schema=self.table.schema)

    def _find(self, row: Any, problem: str | None) -> list[Any]:
        if problem is not None:
            return self._explain(REJECTED, problem)
        found = self.known.find(row)
        if found is None:
            return self._explain(UNFINISHED, "it came while others were asked: run this day again")
        is_good = found.status in ("ok", REJECTED)
        self.table.bad_before += not is_good and found.round < self.last_round
        return [*found.cells, *[None] * (len(self.columns.fields) - len(found.cells))]

    def _explain(self, status: str, why: str) -> list[Any]:
        cells: list[Any] = [None] * len(self.columns.fields)
        cells[STATUS], cells[_ERROR] = status, why
        return cells
