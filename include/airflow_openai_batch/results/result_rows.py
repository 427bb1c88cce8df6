"""The columns of ``results/`` and the writer of one part file.

Rows go out in row groups by bytes, not by count: 50,000 rows of text are 50 MB, of vectors 300 MB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.answer_parts import Vector
    from airflow_openai_batch.results.media_files import MediaFile

ROW_GROUP_BYTES = 8 * 2**20
ROW_BYTES = 200
"""Roughly what the short columns of one row take."""

SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("line_number", pa.int64(), nullable=False),
        pa.field("custom_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        ("status_code", pa.int32()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("content", pa.string()),
        ("refusal", pa.string()),
        ("parsed", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("embeddings", pa.list_(pa.list_(pa.float32()))),
        (
            "media",
            pa.list_(
                pa.struct(
                    [
                        ("path", pa.string()),
                        ("bytes", pa.int64()),
                        ("media_type", pa.string()),
                        ("revised_prompt", pa.string()),
                        ("url", pa.string()),
                    ]
                )
            ),
        ),
        ("finish_reason", pa.string()),
        ("model", pa.string()),
        ("input_tokens", pa.int64()),
        ("cached_input_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        pa.field("attempts", pa.int32(), nullable=False),
        ("sent_as", pa.string()),
        ("batch_id", pa.string()),
        ("openai_request_id", pa.string()),
        ("completed_at", pa.timestamp("ms", tz="UTC")),
        ("response_body", pa.string()),
    ]
)
"""position is 0-based over the whole input; cost_usd is of the answer in the row at the price it was
sent for; the order of rows is that of the input."""

REPETITIVE = [
    "source_uri",
    "status",
    "status_code",
    "error_code",
    "finish_reason",
    "model",
    "attempts",
    "sent_as",
    "batch_id",
    "completed_at",
]
"""Columns worth a dictionary; text and vectors are not."""


class ResultRow(NamedTuple):
    """One row, in the order of `SCHEMA`."""

    position: int
    source_uri: str
    line_number: int
    custom_id: str
    status: str
    status_code: int | None
    error_code: str | None
    error_message: str | None
    content: str | None
    refusal: str | None
    parsed: str | None
    choices: list[str | None] | None
    embeddings: list[Vector | None] | None
    media: list[MediaFile] | None
    finish_reason: str | None
    model: str | None
    input_tokens: int | None
    cached_input_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    attempts: int
    sent_as: str | None
    batch_id: str | None
    openai_request_id: str | None
    completed_at: int | None
    """Unix milliseconds."""
    response_body: str | None


class ResultsWriter:
    """Writes rows to one part file; memory is bounded by two row groups and one row.

    One row group is compressed, without Python's lock, while the rows of the next are made.
    """

    def __init__(self, file: BinaryIO, *, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        self._sink = _HashingSink(file)
        self._row_group_bytes = row_group_bytes
        self._rows: list[ResultRow] = []
        self._tables: list[pa.Table] = []
        self._pending_bytes = 0
        self._writer = pq.ParquetWriter(
            self._sink,
            SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=REPETITIVE,
            write_statistics=["position", "status", "custom_id", "line_number"],
        )
        self._thread = ThreadPoolExecutor(1, "results-writer")
        self._writing: Future[None] | None = None
        self.rows = 0

    @property
    def bytes_written(self) -> int:
        return self._sink.size

    @property
    def sha256(self) -> str:
        """Of the file, after the block has ended."""
        return self._sink.hash.hexdigest()

    def write(self, row: ResultRow) -> None:
        self._rows.append(row)
        self._count(1, _size_of(row))

    def write_mixed(
        self, made: pa.RecordBatch | None, rows: Sequence[ResultRow], places: Sequence[int]
    ) -> None:
        """Rows that are made already, and others between them.

        :param places: of the others among all of these, in their order.
        """
        if made is None:
            for row in rows:
                self.write(row)
            return
        self._close_rows()
        parts, total = [made], len(made) + len(rows)
        if rows:
            parts.append(_to_batch(rows))
        table = pa.Table.from_batches(parts)
        if rows:
            order = np.empty(total, np.int64)
            order[list(places)] = np.arange(len(made), total)
            order[np.delete(np.arange(total), places)] = np.arange(len(made))
            table = table.take(order)
        self._tables.append(table)
        self._count(total, table.nbytes)

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        with self._thread:
            if kind is None:
                self._flush()
                self._wait()
        self._writer.close()

    def _count(self, rows: int, size: int) -> None:
        self.rows += rows
        self._pending_bytes += size
        if self._pending_bytes >= self._row_group_bytes:
            self._flush()

    def _close_rows(self) -> None:
        if self._rows:
            self._tables.append(pa.Table.from_batches([_to_batch(self._rows)]))
            self._rows = []

    def _flush(self) -> None:
        self._close_rows()
        tables, self._tables, self._pending_bytes = self._tables, [], 0
        if tables:
            table = pa.concat_tables(tables)
            self._wait()
            self._writing = self._thread.submit(self._writer.write_table, table, row_group_size=len(table))

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def fill_columns(columns: Mapping[str, pa.Array | Sequence[Any]], rows: int) -> pa.RecordBatch:
    """Columns in the order of `SCHEMA`; those that are not there are null."""
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in SCHEMA
    ]
    return pa.record_batch(arrays, schema=SCHEMA)


def _to_batch(rows: Sequence[ResultRow]) -> pa.RecordBatch:
    columns: dict[str, Any] = dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True))
    columns["embeddings"] = _to_nested_array(columns["embeddings"])
    return fill_columns(columns, len(rows))


def _size_of(row: ResultRow) -> int:
    size = ROW_BYTES
    for text in (row.content, row.response_body, row.parsed, row.refusal):
        if text is not None:
            size += len(text)
    if row.choices is not None:
        size += sum(len(text) for text in row.choices if text is not None)
    if row.embeddings is not None:
        size += sum(vector.nbytes for vector in row.embeddings if vector is not None)
    return size + len(row.custom_id)


def _to_nested_array(rows: Sequence[list[Vector | None] | None]) -> pa.Array:
    """list<list<float32>> without a Python object per number."""
    if not any(rows):
        return pa.nulls(len(rows), pa.list_(pa.list_(pa.float32())))
    vectors = [vector for row in rows if row is not None for vector in row]
    there = [vector for vector in vectors if vector is not None]
    lengths = [0 if vector is None else len(vector) for vector in vectors]
    inner_offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    outer_offsets = np.concatenate([[0], np.cumsum([len(row or ()) for row in rows])]).astype(np.int32)
    inner = pa.ListArray.from_arrays(
        pa.array(inner_offsets),
        pa.array(np.concatenate(there)),
        mask=pa.array([vector is None for vector in vectors], pa.bool_())
        if len(there) < len(vectors)
        else None,
    )
    return pa.ListArray.from_arrays(
        pa.array(outer_offsets), inner, mask=pa.array([row is None for row in rows], pa.bool_())
    )


class _HashingSink:
    """A file that knows the sha256 and the size of what went through it."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        block = bytes(data)
        self.hash.update(block)
        self.size += len(block)
        self._file.write(block)
        return len(block)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self.size
