"""Rows of Parquet files, with their types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.storage.compression import FREE_BYTES, MAX_RATIO
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
_MAX_ROW_BYTES = 4 * _MAX_REPEATED_BYTES
"""Of such values in one row."""
_BURSTING_RATIO = 200
"""Of a group of rows, unpacked: text comes to a tenth of this."""
_BURSTING_ROWS = 8


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
                for part in _cut(batch, file.uri):
                    yield RowBlock(_fit(part, schema))


def _read_batches(uri: str, opened: object) -> Iterator[pa.RecordBatch]:
    try:
        # Without read-ahead of whole columns: a row group may be gigabytes.
        file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)
        _check_packing(uri, file.metadata)
        if repeated := _find_repeated(file):
            file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20, read_dictionary=repeated)
        yield from file.iter_batches(batch_size=_block_rows(file.metadata), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{uri}: is damaged ({_first_line(error)}). Copy it again.") from None


def _block_rows(metadata: pq.FileMetaData) -> int:
    """Fewer where rows are long, and very few where a group is so well packed that some may be far longer than most."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if any(map(_may_burst, groups)):
        return _BURSTING_ROWS
    longest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(block_rows(metadata.num_columns), int(BLOCK_BYTES / max(1, longest))))


def _may_burst(group: pq.RowGroupMetaData) -> bool:
    return bool(group.total_byte_size > max(FREE_BYTES, _BURSTING_RATIO * _find_packed(group)))


def _find_packed(group: pq.RowGroupMetaData) -> int:
    """Bytes in the file."""
    return sum(group.column(number).total_compressed_size for number in range(group.num_columns))


def _check_packing(uri: str, metadata: pq.FileMetaData) -> None:
    """:raises InputError: for what no table is packed like; one page of it may be all that memory holds."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        if group.total_byte_size > max(FREE_BYTES, MAX_RATIO * _find_packed(group)):
            raise InputError(
                f"{uri}: has {group.total_byte_size:,} bytes unpacked in a row group, more than {MAX_RATIO:,} for each "
                "byte in the file, the limit. Write it in smaller row groups."
            )


def _find_repeated(file: pq.ParquetFile) -> list[str]:
    """Columns of text or bytes of which a file holds every value once. A value may be long and stand in each row, so
    they are read as they are stored, and become values of rows in portions. They may lie in lists and objects."""
    metadata = file.metadata
    found: dict[str, None] = {}
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            if column.physical_type == "BYTE_ARRAY" and column.has_dictionary_page:
                found[column.path_in_schema] = None
    return list(found)


def _cut(batch: pa.RecordBatch, uri: str) -> Iterator[pa.RecordBatch]:
    """Parts of which each fits into memory when repeated values are written out.

    :raises InputError: if a row does not.
    """
    longest = [_find_longest(leaf) for leaf in _find_leaves(batch.columns)]
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        size = sum(most * len(leaf) for most, leaf in zip(longest, _find_leaves(part.columns), strict=True))
        if part.num_rows > 1 and size > _MAX_REPEATED_BYTES:
            half = part.num_rows // 2
            waiting += (part.slice(half), part.slice(0, half))
        elif size > _MAX_ROW_BYTES:
            raise InputError(
                f"{uri}: repeats long values in lists of one row, up to {size:,} bytes written out, limit "
                f"{_MAX_ROW_BYTES:,}. Leave that column out."
            )
        else:
            # A cast writes out what lies beside a slice of lists, too.
            yield part if part is batch else part.take(pa.array(range(part.num_rows)))


def _find_longest(leaf: pa.DictionaryArray) -> int:
    return pc.max(pc.binary_length(leaf.dictionary)).as_py() or 0


def _find_leaves(arrays: Iterable[pa.Array]) -> Iterator[pa.DictionaryArray]:
    """Repeated texts and bytes in columns, at any depth, as far as rows of these hold them."""
    for array in arrays:
        kind = array.type
        if pa.types.is_dictionary(kind):
            if _is_sized(kind.value_type):
                yield array
        elif pa.types.is_map(kind):
            start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
            yield from _find_leaves(
                (array.keys.slice(start, end - start), array.items.slice(start, end - start))
            )
        elif pa.types.is_struct(kind):
            yield from _find_leaves(array.flatten())
        elif pa.types.is_nested(kind):  # lists of any kind
            yield from _find_leaves([array.flatten()])


def _is_sized(kind: pa.DataType) -> bool:
    is_any_of = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return any(is_kind(kind) for is_kind in is_any_of)


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
