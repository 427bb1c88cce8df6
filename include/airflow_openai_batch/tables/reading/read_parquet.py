"""Rows of Parquet files, with their types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.storage.sources import explained
from airflow_openai_batch.tables.reading import limits
from airflow_openai_batch.tables.reading.row_table import (
    BLOCK_BYTES,
    RowBlock,
    RowTable,
    block_rows,
    check_width,
)

if TYPE_CHECKING:
    from airflow_openai_batch.storage.sources import SourceFile


_MAX_REPEATED_BYTES = 64 * 2**20
"""Of values in a block that a file holds once."""


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
    check_width(f"{files[0].uri} and others", len(schema))
    return RowTable(schema.remove_metadata(), _read_all(files, schema.remove_metadata()))


def _read_schema(file: SourceFile) -> pa.Schema:
    with explained(file.uri), file.location.open_read() as opened:
        try:
            schema = pq.read_schema(opened)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and "too deeply nested" not in str(error):
                raise
            raise InputError(
                f"{file.uri}: is no Parquet file, or was cut off ({_first_line(error)})."
            ) from None
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{file.uri}: has two columns of the same name. Rename one.")
    check_width(file.uri, len(schema))
    for field in schema:
        if _is_deeper(field.type, limits.MAX_DEPTH):
            raise InputError(
                f"{file.uri}: column {field.name[:100]!r} nests lists or objects more than {limits.MAX_DEPTH} deep, "
                "the limit. Leave it out, or store it as JSON text."
            )
    return schema.remove_metadata()


def _is_deeper(kind: pa.DataType, depth: int) -> bool:
    if not pa.types.is_nested(kind):
        return False
    return depth == 0 or any(
        _is_deeper(kind.field(number).type, depth - 1) for number in range(kind.num_fields)
    )


def _read_all(files: Sequence[SourceFile], schema: pa.Schema) -> Iterator[RowBlock]:
    for file in files:
        with explained(file.uri):
            opened = file.location.open_read()
        with opened:
            for batch in _read_batches(file.uri, opened):
                for part in _cut(batch):
                    yield RowBlock(_fit(part, schema))


def _read_batches(uri: str, opened: object) -> Iterator[pa.RecordBatch]:
    try:
        # Without read-ahead of whole columns: a row group may be gigabytes.
        file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
        if repeated := _find_repeated(file):
            file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20, read_dictionary=repeated)
        yield from file.iter_batches(batch_size=_block_rows(file.metadata), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{uri}: is damaged ({_first_line(error)}). Copy it again.") from None


def _block_rows(metadata: pq.FileMetaData) -> int:
    """Fewer where rows are long."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    longest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(block_rows(metadata.num_columns), int(BLOCK_BYTES / max(1, longest))))


def _find_repeated(file: pq.ParquetFile) -> list[str]:
    """Columns of text or bytes of which a file holds every value once. A value may be long and stand in each row, so
    they are read as they are stored, and become values of rows in portions."""
    metadata = file.metadata
    found: dict[str, None] = {}
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            if (
                column.physical_type == "BYTE_ARRAY"
                and column.has_dictionary_page
                and "." not in column.path_in_schema
            ):
                found[column.path_in_schema] = None
    return list(found)


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Parts of which each fits into memory when repeated values are written out."""
    longest = sum(
        pc.max(pc.binary_length(column.dictionary)).as_py() or 0
        for column in batch.columns
        if pa.types.is_dictionary(column.type)
    )
    rows = max(1, min(batch.num_rows, _MAX_REPEATED_BYTES // max(1, longest)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


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
