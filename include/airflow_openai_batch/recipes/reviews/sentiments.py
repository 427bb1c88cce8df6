"""From answers of one word to a table and a report of the day."""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_openai_batch.tables.writing.write_table import TableOptions, open_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_openai_batch.storage.location import Location

SENTIMENTS = ("Positive", "Neutral", "Negative")
OTHER = "Other"
"""An answer that is none of the words that were asked for."""
_BY_WORD = {word.casefold(): word for word in SENTIMENTS}
_BATCH_ROWS = 5_000
_TRIM = string.whitespace + string.punctuation


@dataclass(slots=True)
class DayCounts:
    """What the answers of a day say. Every row is in exactly one of ``sentiments`` and ``unanswered``."""

    rows: int = 0
    sentiments: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    """By ``answer_status``: ``rejected``, ``failed`` ..."""
    first: list[tuple[int, str]] = field(default_factory=list)
    """Row number from 1, and its answer."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "sentiments": {word: self.sentiments[word] for word in (*SENTIMENTS, OTHER)},
            "unanswered": dict(self.unanswered),
        }


def read_sentiment(answer: str) -> str:
    """``Positive``, ``Neutral`` or ``Negative`` however a model may dress it (``**positive.**``), else ``Other``."""
    return _BY_WORD.get(answer.strip(_TRIM).casefold(), OTHER)


def write_sentiments(answers: Location, table: Location, *, show: int) -> DayCounts:
    """Write the joined table again with a column ``sentiment``, which is null where there is no good answer.

    One batch of rows is held in memory. A file of that name is replaced as a whole.

    :param answers: Parquet, as `OpenAIBatchJoinOperator` writes it.
    :param show: how many of the first answers to keep for the log.
    """
    counts = DayCounts()
    with answers.open_read() as file, pq.ParquetFile(file) as source:
        schema = source.schema_arrow
        columns = _AnswerColumns(schema.names)
        name = columns.free("sentiment")
        wide = schema.append(pa.field(name, pa.string()))
        with open_table(table, "parquet", wide, TableOptions()) as writer:
            for batch in source.iter_batches(_BATCH_ROWS):
                words = pa.array(list(_count(batch, columns, counts, show)), pa.string())
                writer.write(pa.RecordBatch.from_arrays([*batch.columns, words], schema=wide))
    return counts


def select_rows(table: Location, sentiment: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The rows of a day's table with one sentiment, as a stream."""
    file = table.open_read()
    source = pq.ParquetFile(file)
    schema = source.schema_arrow
    name = _AnswerColumns(schema.names).own("sentiment")

    def select() -> Iterator[pa.RecordBatch]:
        with file, source:
            for batch in source.iter_batches(_BATCH_ROWS):
                yield batch.filter(pc.equal(batch.column(name), sentiment))

    return schema, select()


class _AnswerColumns:
    """Names of the join's columns: one that the source has already begins with ``openai_``."""

    def __init__(self, names: list[str]) -> None:
        self._names = frozenset(names)

    def own(self, name: str) -> str:
        return f"openai_{name}" if f"openai_{name}" in self._names else name

    def free(self, name: str) -> str:
        return f"openai_{name}" if name in self._names else name


def _count(
    batch: pa.RecordBatch, columns: _AnswerColumns, counts: DayCounts, show: int
) -> Iterator[str | None]:
    answers = batch.column(columns.own("answer")).to_pylist()
    statuses = batch.column(columns.own("answer_status")).to_pylist()
    for answer, status in zip(answers, statuses, strict=True):
        counts.rows += 1
        if status != "ok" or answer is None:
            counts.unanswered[status] += 1
            yield None
            continue
        word = read_sentiment(answer)
        counts.sentiments[word] += 1
        if len(counts.first) < show:
            counts.first.append((counts.rows, answer))
        yield word


def encode_counts(counts: DayCounts, **more: Any) -> bytes:
    """``report.json`` of a day."""
    return msgspec.json.format(msgspec.json.encode({**counts.to_dict(), **more}), indent=1)
