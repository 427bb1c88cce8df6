"""Rows whose types show only while they are read: kept in a temporary file until all have been seen.

A JSONL, a workbook and a query can be read once from front to back (an unordered query is another one the second
time), while a Parquet file must know its columns before its first row. So rows go through a compressed file on the
worker's disk; memory stays bounded by one block.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from airflow_openai_batch.core.row_sources.table import RowBlock, RowTable, merge_names

_FLOAT_EXACT = 2**53
"""Larger whole numbers have no float of their own."""


class RawBlock(NamedTuple):
    """Rows as a reader found them."""

    columns: Mapping[str, Sequence[Any]]
    rows: int
    problems: Mapping[int, str]


@contextlib.contextmanager
def spool_table(
    blocks: Iterable[RawBlock], notices: Sequence[str] = (), *, max_rows: int | None = None
) -> Iterator[RowTable]:
    """Read all blocks, find a type for each column, and give the rows again as a table.

    A column in which types do not go together (numbers here, texts there) becomes text, what is no text in it as
    JSON; nothing is rounded or lost. The file is removed with the block.

    :param notices: for the log; may grow while the blocks are read.
    :param max_rows: no block is read beyond so many.
    """
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        path = Path(folder) / "rows.arrow"
        types = _ColumnTypes()
        problems: list[Mapping[int, str]] = []
        rows = 0
        with pa.OSFile(str(path), "wb") as file:
            for block in blocks:
                batch = types.take(block)
                problems.append(block.problems)
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                with pa.ipc.new_stream(file, batch.schema, options=options) as writer:
                    writer.write_batch(batch)
                rows += block.rows
                if max_rows is not None and rows >= max_rows:
                    break
        schema, mixed = types.decide()
        with pa.OSFile(str(path), "rb") as file:
            yield RowTable(schema, _read_again(file, problems, schema, mixed), tuple(notices))


def _read_again(
    file: Any, problems: Iterable[Mapping[int, str]], schema: pa.Schema, mixed: frozenset[str]
) -> Iterator[RowBlock]:
    for found in problems:
        with pa.ipc.open_stream(file) as reader:
            batch = reader.read_next_batch()
            for _ in reader:
                pass
        arrays = []
        for column in schema:
            at = batch.schema.get_field_index(column.name)
            array = pa.nulls(batch.num_rows, column.type) if at < 0 else batch.column(at)
            if column.name in mixed:
                array = _to_texts(array)
            arrays.append(array if array.type.equals(column.type) else array.cast(column.type))
        yield RowBlock(pa.record_batch(arrays, schema=schema), found)


class _ColumnTypes:
    """What was seen of each column so far."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._mixed: set[str] = set()
        self._has_large_int: set[str] = set()

    def take(self, block: RawBlock) -> pa.RecordBatch:
        arrays = {name: self._take_column(name, values) for name, values in block.columns.items()}
        if not arrays:  # rows of nothing have to be counted, too
            return pa.RecordBatch.from_struct_array(pa.nulls(block.rows, pa.struct([])).fill_null({}))
        return pa.record_batch(list(arrays.values()), names=list(arrays))

    def _take_column(self, name: str, values: Sequence[Any]) -> pa.Array:
        try:
            array = pa.array(values)
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            OverflowError,
            ValueError,
            TypeError,
        ):
            array = None
        if array is None or not _fits_parquet(array.type):
            self._mixed.add(name)
            array = pa.array([_to_text(value) for value in values], pa.string())
        self._note(name, array)
        return array

    def _note(self, name: str, array: pa.Array) -> None:
        known = self._types.setdefault(name, array.type)
        if not known.equals(array.type):
            self._types[name] = self._widen(name, known, array.type)
        if pa.types.is_integer(array.type) and len(array):
            ends = pc.min_max(array).as_py()
            if max(abs(ends["min"] or 0), abs(ends["max"] or 0)) > _FLOAT_EXACT:
                self._has_large_int.add(name)

    def _widen(self, name: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
        numbers = {pa.types.is_boolean(one), pa.types.is_boolean(other)}
        try:
            if numbers == {True, False} and not (pa.types.is_null(one) or pa.types.is_null(other)):
                raise pa.ArrowTypeError("true is not 1")
            fields = [pa.schema([("c", one)]), pa.schema([("c", other)])]
            return pa.unify_schemas(fields, promote_options="permissive").field("c").type
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            self._mixed.add(name)
            return pa.string()

    def decide(self) -> tuple[pa.Schema, frozenset[str]]:
        mixed = set(self._mixed)
        mixed |= {name for name in self._has_large_int if not pa.types.is_integer(self._types[name])}
        fields = []
        for name in merge_names([list(self._types)]):
            kind = self._types[name]
            # A column without any value has to have some type, and text is what most readers take.
            fields.append((name, pa.string() if name in mixed or pa.types.is_null(kind) else kind))
        return pa.schema(fields), frozenset(mixed)


def _fits_parquet(kind: pa.DataType) -> bool:
    """Not what Parquet has no form for (an object without keys), nor what only Arrow knows (a UUID of its own)."""
    if isinstance(kind, pa.BaseExtensionType):
        return False
    if pa.types.is_struct(kind) and kind.num_fields == 0:
        return False
    return all(_fits_parquet(kind.field(number).type) for number in range(kind.num_fields))


def _to_texts(array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type):
        return array
    return pa.array([_to_text(value) for value in array.to_pylist()], pa.string())


def _to_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be stored
    if isinstance(value, bool | int | float | dict | list | tuple):
        return msgspec.json.encode(value, enc_hook=str).decode() if not _is_huge(value) else str(value)
    return str(value)


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**64
