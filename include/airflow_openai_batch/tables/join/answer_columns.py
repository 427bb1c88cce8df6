"""The answer's columns beside a source row: text or vector, status, error, model, cost, and what a schema types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.tables.join.answer_types import PropertyReader, find_free_names, find_properties

if TYPE_CHECKING:
    import numpy.typing as npt

    from airflow_openai_batch.tables.join.answer_reader import Positions
    from airflow_openai_batch.tables.join.source_rows import RowBatch

PREFIX = "openai_"
"""Goes before the name of an answer's column where the source has one of that name."""
VECTOR = pa.list_(pa.float32())

REJECTED = "rejected"
"""``answer_status`` of a row that was never sent."""

_RESULTS = ("custom_id", "status", "error_code", "error_message", "model", "cost_usd")


@dataclass(slots=True)
class AnswerColumns:
    """What stands beside the source's columns, and how it comes about.

    :param endpoint: of the requests: vectors come from ``/v1/embeddings`` alone.
    :param answer_schema: JSON Schema of the answers, if one was asked for.
    :param source: the source's columns, whose names are taken.
    """

    endpoint: str
    answer_schema: Mapping[str, Any] | None
    source: pa.Schema
    fields: tuple[pa.Field, ...] = field(init=False)
    _reader: PropertyReader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = PropertyReader(() if self.is_vector else find_properties(self.answer_schema))
        own = [
            ("embedding", VECTOR) if self.is_vector else ("answer", pa.string()),
            ("answer_status", pa.string()),
            ("answer_error", pa.string()),
            ("answer_model", pa.string()),
            ("answer_cost_usd", pa.float64()),
            *((each.name, each.type) for each in self._reader.properties),
        ]
        names = find_free_names([name for name, _ in own], self.source.names, PREFIX)
        self.fields = tuple(pa.field(name, kind) for name, (_, kind) in zip(names, own, strict=True))

    @property
    def is_vector(self) -> bool:
        return self.endpoint == Endpoint.EMBEDDINGS

    @property
    def schema(self) -> pa.Schema:
        """Of the joined table."""
        return pa.schema([*self.source, *self.fields])

    @property
    def results(self) -> tuple[str, ...]:
        """Columns of ``results/`` that are needed."""
        content = ("embeddings",) if self.is_vector else ("content",)
        return (*_RESULTS, *content, *(("parsed",) if self._reader.properties else ()))

    @property
    def unfit(self) -> int:
        """Values of structured answers that did not fit their column."""
        return self._reader.unfit

    def build(
        self,
        rows: RowBatch,
        answers: pa.Table,
        is_first: npt.NDArray[np.bool_],
        explain: Callable[[int], tuple[str, str | None]],
    ) -> pa.RecordBatch:
        """The joined rows.

        :param answers: one row for each of ``rows``; nulls where there is no result.
        :param is_first: whether a row is the first that its answer stands beside: only that has its cost.
        :param explain: status and error for a position that has no result.
        """
        answers = answers.combine_chunks()
        status, error = self._describe(rows, answers, explain)
        if self.is_vector:
            content, status, error = _take_vectors(answers.column("embeddings"), rows.indexes, status, error)
        else:
            content = _flat(answers.column("content"))
        parsed = answers.column("parsed").to_pylist() if self._reader.properties else ()
        cost = pc.if_else(pa.array(is_first), _flat(answers.column("cost_usd")), None)
        columns = [
            content,
            status,
            error,
            _flat(answers.column("model")),
            cost,
            *(self._reader.read(parsed) if parsed else ()),
        ]
        return pa.record_batch([*rows.source.columns, *columns], schema=self.schema)

    def _describe(
        self, rows: RowBatch, answers: pa.Table, explain: Callable[[int], tuple[str, str | None]]
    ) -> tuple[pa.Array, pa.Array]:
        status = _flat(answers.column("status"))
        code, message = _flat(answers.column("error_code")), _flat(answers.column("error_message"))
        # Null where one of them is.
        error = pc.coalesce(pc.binary_join_element_wise(code, message, ": "), code, message)
        unsent = rows.positions < 0
        if not unsent.any() and not status.null_count:
            return status, error
        without = np.flatnonzero(status.is_null().to_numpy(zero_copy_only=False) & ~unsent)
        found = {int(at): explain(int(rows.positions[at])) for at in without}
        mask = pa.array(unsent)
        status = pc.if_else(mask, REJECTED, status)
        error = pc.if_else(mask, rows.reasons, error)
        if found:
            statuses, errors = status.to_pylist(), error.to_pylist()
            for at, (why, text) in found.items():
                statuses[at], errors[at] = why, text
            status, error = pa.array(statuses, pa.string()), pa.array(errors, pa.string())
        return status, error


def _take_vectors(
    embeddings: pa.ChunkedArray, indexes: Positions, status: pa.Array, error: pa.Array
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Of the vectors of each request the one for its row. An ``ok`` without it is none; of a request that lacks others
    it is good."""
    whole = _flat(embeddings)
    counts = pc.fill_null(pc.list_value_length(whole), 0).to_numpy()
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    is_there = indexes < counts
    vectors = whole.flatten().take(pa.array(starts + indexes, pa.int64(), mask=~is_there))
    has, is_ok = pc.is_valid(vectors), pc.equal(status, "ok")
    lacks, came = pc.and_not(is_ok, has), pc.and_not(has, is_ok)
    status = pc.if_else(came, "ok", pc.if_else(lacks, "missing", status))
    error = pc.if_else(lacks, "no_vector: the answer has no vector for this row", error)
    return vectors, status, pc.if_else(came, None, error)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """As one array; the tables here are small."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
