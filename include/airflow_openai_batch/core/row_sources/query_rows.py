"""Rows that a database returned, through whatever hands them out in portions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from airflow_openai_batch.core.row_sources.spool import RawBlock
from airflow_openai_batch.core.row_sources.table import BLOCK_ROWS, name_columns

Fetch = Callable[[int], Sequence[Sequence[Any]]]
"""At most so many rows more; none at the end. That of a DB-API cursor is ``fetchmany``."""
Describe = Callable[[], Sequence[str]]
"""The names of the columns; asked for after the first portion, since server-side cursors do not know before."""


def read_query_rows(fetch: Fetch, describe: Describe, notices: list[str] | None = None) -> Iterator[RawBlock]:
    """All rows of a query in blocks."""
    names: list[str] | None = None
    while True:
        rows = fetch(BLOCK_ROWS)
        if names is None:
            names, found = name_columns(describe())
            if notices is not None:
                notices.extend(found)
            if not rows:
                yield RawBlock(dict.fromkeys(names, ()), 0, {})
        if not rows:
            return
        columns = zip(*rows, strict=True)
        yield RawBlock(
            {name: [_plain(v) for v in values] for name, values in zip(names, columns, strict=True)},
            len(rows),
            {},
        )


def _plain(value: Any) -> Any:
    """Drivers hand out binary columns as views of their own memory."""
    return bytes(value) if isinstance(value, memoryview | bytearray) else value
