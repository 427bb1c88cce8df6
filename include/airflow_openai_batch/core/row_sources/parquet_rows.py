"""Rows of Parquet files, with their types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.core.errors import InputError
from airflow_openai_batch.core.row_sources.table import BLOCK_BYTES, BLOCK_ROWS, RowBlock, RowTable
from airflow_openai_batch.core.sources import explained

if TYPE_CHECKING:
    from airflow_openai_batch.core.sources import SourceFile


def open_parquet(files: Sequence[SourceFile]) -> RowTable:
    """The rows of Parquet files; columns that a file lacks are null, types are widened where files differ.

    :raises InputError: if one is none, or columns of the same name do not go together.
    """
    schemas = [_read_schema(file) for file in files]
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"{files[0].uri} and others: a column has types that do not go together ({error}). Convert one of them."
        ) from None
    return RowTable(schema.remove_metadata(), _read_all(files, schema.remove_metadata()))


def _read_schema(file: SourceFile) -> pa.Schema:
    with explained(file.uri), file.location.open_read() as opened:
        try:
            schema = pq.read_schema(opened)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{file.uri}: is no Parquet file, or was cut off ({_first_line(error)})."
            ) from None
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{file.uri}: has two columns of the same name. Rename one.")
    return schema.remove_metadata()


def _read_all(files: Sequence[SourceFile], schema: pa.Schema) -> Iterator[RowBlock]:
    for file in files:
        with explained(file.uri):
            opened = file.location.open_read()
        with opened:
            for batch in _read_batches(file.uri, opened):
                yield RowBlock(_fit(batch, schema))


def _read_batches(uri: str, opened: object) -> Iterator[pa.RecordBatch]:
    try:
        # Without read-ahead of whole columns: a row group may be gigabytes.
        file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
        yield from file.iter_batches(batch_size=_block_rows(file.metadata), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{uri}: is damaged ({_first_line(error)}). Copy it again.") from None


def _block_rows(metadata: pq.FileMetaData) -> int:
    """Fewer where rows are long."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    longest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(BLOCK_ROWS, int(BLOCK_BYTES / max(1, longest))))


def _fit(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    arrays = []
    for column in schema:
        at = batch.schema.get_field_index(column.name)
        array = pa.nulls(batch.num_rows, column.type) if at < 0 else batch.column(at)
        arrays.append(array if array.type.equals(column.type) else array.cast(column.type))
    return pa.record_batch(arrays, schema=schema)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
