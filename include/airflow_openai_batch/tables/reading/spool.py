"""Rows whose types show only while they are read: kept in a temporary file until all have been seen.

A JSONL, a workbook and a query can be read once from front to back (an unordered query is another one the second
time), while a Parquet file must know its columns before its first row. So rows go through a compressed file on the
worker's disk, each as it was read; memory stays bounded by one block. Only what is written later knows columns with
one type each: prompts see a row's own values.
"""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from airflow_openai_batch.tables.plain_values import NoPlainFormError, is_plain, to_name, to_plain
from airflow_openai_batch.tables.reading.column_types import ColumnTypes
from airflow_openai_batch.tables.reading.row_codec import decode_rows, encode_rows
from airflow_openai_batch.tables.reading.row_table import RowBlock, RowTable
from airflow_openai_batch.wording import shorten

_ROWS = pa.schema([("rows", pa.large_binary())])
"""A block in each cell, and a cell in each batch."""


class RawBlock(NamedTuple):
    """Rows as a reader found them, each with the keys that it has."""

    rows: Sequence[Mapping[str, Any]]
    problems: Mapping[int, str]
    names: Sequence[str] = ()
    """Columns that a header names, whether a row has them or not."""
    is_json: bool = False
    """Whether all values are such as JSON has, within the limits of nesting."""


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
        types = ColumnTypes()
        problems: list[Mapping[int, str]] = []
        rows = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _ROWS, options=options) as writer:
            for block in blocks:
                kept, found = _clean(block, types)
                problems.append(found)
                types.take(kept)
                data = encode_rows(kept, is_json=block.is_json)
                writer.write_batch(pa.record_batch([pa.array([data], pa.large_binary())], schema=_ROWS))
                rows += len(kept)
                if max_rows is not None and rows >= max_rows:
                    break
        schema, mixed = types.decide()
        with pa.OSFile(str(path), "rb") as file:
            yield RowTable(schema, _read_again(file, problems, schema, mixed), (*notices, *types.notices))


def _clean(block: RawBlock, types: ColumnTypes) -> tuple[list[Mapping[str, Any]], dict[int, str]]:
    """The rows with values of the closed set alone, and what is wrong with those that have others."""
    types.add_names(block.names)
    problems = dict(block.problems)
    kept: list[Mapping[str, Any]] = []
    for at, row in enumerate(block.rows):
        cells: Mapping[str, Any] = {}
        try:
            cells = row if block.is_json else _clean_row(row)
            types.check_room(cells)
        except NoPlainFormError as error:
            problems.setdefault(at, str(error))
            cells = {}
        kept.append(cells)
    return kept, problems


def _clean_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if is_plain(row):
        return row
    cells = {}
    for name, value in row.items():
        try:
            cells[to_name(name)] = to_plain(value)
        except NoPlainFormError as error:
            raise NoPlainFormError(f"column {shorten(name)!r} {error}") from None
    return cells


def _read_again(
    file: Any, problems: Iterable[Mapping[int, str]], schema: pa.Schema, mixed: frozenset[str]
) -> Iterator[RowBlock]:
    with pa.ipc.open_stream(file) as reader:
        for found, batch in zip(problems, reader, strict=True):
            rows = decode_rows(batch.column(0)[0].as_py())
            arrays = [_make_array(rows, column, column.name in mixed) for column in schema]
            yield RowBlock(_make_batch(arrays, schema, len(rows)), found, rows)


def _make_array(rows: Sequence[Mapping[str, Any]], column: pa.Field, is_mixed: bool) -> pa.Array:
    values = [row.get(column.name) for row in rows]
    return pa.array(map(to_column_text, values) if is_mixed else values, column.type)


def _make_batch(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if arrays:
        return pa.record_batch(arrays, schema=schema)
    # Rows of nothing have to be counted, too.
    return pa.RecordBatch.from_struct_array(pa.nulls(rows, pa.struct([])).fill_null({}))


def to_column_text(value: Any) -> str | None:
    """What stands for a value in a column of texts, because nothing else holds all of the column's values."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, bool | int | float | dict | list):
        return _to_json(value)
    return str(value)


def _to_json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except OverflowError:  # an integer beyond 64 bits in it
        return json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))
