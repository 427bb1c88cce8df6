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

ROW_GROUP_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20
"""So much waits as Python's objects before it becomes Arrow's, which take a fraction of the memory."""
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
        self._columns: list[list[Any]] = [[] for _ in SCHEMA]
        self._pending_bytes = 0
        self._chunks: list[pa.RecordBatch] = []
        self._chunk_bytes = 0
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
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        self._count(1, _size_of(row))

    def write_columns(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Several rows of plain answers at once; columns that are not there are null."""
        rows = len(columns["custom_id"])
        nulls = [None] * rows
        for column, name in zip(self._columns, SCHEMA.names, strict=True):
            column += columns.get(name, nulls)
        self._count(rows, _measure_columns(columns))

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
        if self._chunk_bytes + self._pending_bytes >= self._row_group_bytes:
            self._flush()
        elif self._pending_bytes >= _CHUNK_BYTES:
            self._close_chunk()

    def _close_chunk(self) -> None:
        columns = self._columns
        self._columns = [[] for _ in SCHEMA]
        self._chunk_bytes += self._pending_bytes
        self._pending_bytes = 0
        arrays = [_to_array(values, field) for values, field in zip(columns, SCHEMA, strict=True)]
        self._chunks.append(pa.record_batch(arrays, schema=SCHEMA))

    def _flush(self) -> None:
        if self._pending_bytes:
            self._close_chunk()
        chunks, self._chunks, self._chunk_bytes = self._chunks, [], 0
        if chunks:
            table = pa.Table.from_batches(chunks)
            self._wait()
            self._writing = self._thread.submit(self._writer.write_table, table, row_group_size=len(table))

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def _to_array(values: list[Any], field: pa.Field) -> pa.Array:
    return _to_nested_array(values) if field.name == "embeddings" else pa.array(values, field.type)


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


def _measure_columns(columns: Mapping[str, Sequence[Any]]) -> int:
    """As `_size_of`."""
    size = ROW_BYTES * len(columns["custom_id"])
    for name in ("custom_id", "content", "parsed"):
        size += sum(map(len, filter(None, columns.get(name, ()))))
    for vectors in columns.get("embeddings", ()):
        size += sum(vector.nbytes for vector in vectors)
    return size


def _to_nested_array(rows: list[list[Vector | None] | None]) -> pa.Array:
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
