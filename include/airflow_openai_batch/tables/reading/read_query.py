"""Rows that a database returned, through whatever hands them out in portions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from airflow_openai_batch.tables.reading.row_table import BLOCK_BYTES, BLOCK_ROWS, name_columns
from airflow_openai_batch.tables.reading.spool import RawBlock

_FIRST_ROWS = 100

Fetch = Callable[[int], Sequence[Sequence[Any]]]
"""At most so many rows more; none at the end. That of a DB-API cursor is ``fetchmany``."""
Describe = Callable[[], Sequence[str]]
"""The names of the columns; asked for after the first portion, since server-side cursors do not know before."""


def read_query_rows(fetch: Fetch, describe: Describe, notices: list[str] | None = None) -> Iterator[RawBlock]:
    """All rows of a query in blocks."""
    names: list[str] | None = None
    portion = _FIRST_ROWS
    while True:
        rows = fetch(portion)
        portion = _next_portion(rows)
        if names is None:
            names, found = name_columns(describe())
            if notices is not None:
                notices.extend(found)
            if not rows:
                yield RawBlock((), {}, names)
        if not rows:
            return
        yield RawBlock([dict(zip(names, row, strict=True)) for row in rows], {}, names)


def gather_rows(fetch_one: Callable[[], Sequence[Any] | None], most: int) -> list[Sequence[Any]]:
    """A portion row by row, where that costs no way to a server: it ends with the row that makes a block of it."""
    rows: list[Sequence[Any]] = []
    size = 0
    while len(rows) < most and size < BLOCK_BYTES and (row := fetch_one()) is not None:
        rows.append(row)
        size += _measure(row)
    return rows


def _measure(row: Sequence[Any]) -> int:
    return sum(len(value) for value in row if isinstance(value, str | bytes | memoryview))


def _next_portion(rows: Sequence[Sequence[Any]]) -> int:
    """As many rows of this size as make a block: they may hold whole documents."""
    size = sum(map(_measure, rows))
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES * len(rows) // max(1, size)))
