"""Rows of one sheet of Excel workbooks, in blocks below their header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.tables.reading.excel_book import open_sheet
from airflow_openai_batch.tables.reading.excel_sheet import SheetReader
from airflow_openai_batch.tables.reading.row_table import BLOCK_BYTES, block_rows, name_columns
from airflow_openai_batch.tables.reading.spool import RawBlock

if TYPE_CHECKING:
    from airflow_openai_batch.storage.sources import SourceFile

_BEYOND = "has a value beyond the last column of the header, which is the first row that is not blank: take away titles"


def read_excel_rows(
    files: Sequence[SourceFile], sheet: str | None = None, notices: list[str] | None = None
) -> Iterator[RawBlock]:
    """The rows below the first row that is not blank, which is the header; blank rows are no rows.

    :param sheet: by name; the first by default.
    :param notices: what is odd is added to these while rows are read.
    :raises ConfigError: if the extra ``tables`` is not installed.
    :raises InputError: for what is no workbook, has no such sheet, or breaks a limit.
    """
    for file in files:
        with open_sheet(file, sheet) as found:
            reader = SheetReader(found)
            odd: list[str] = []
            yield from _read_blocks(reader, odd)
            if notices is not None:
                notices.extend(f"{file.uri}: {notice}" for notice in [*odd, *reader.notices])


def _read_blocks(reader: SheetReader, notices: list[str]) -> Iterator[RawBlock]:
    names: list[str] | None = None
    rows: list[dict[str, Any]] = []
    problems: dict[int, str] = {}
    size = 0
    for cells, problem, bytes_ in reader.read():
        if not problem and all(cell is None for cell in cells):
            continue
        if names is None:
            if problem:
                raise InputError(f"{reader.uri}: the header cannot be read: {problem}.")
            names, found = name_columns(_strip_end(cells))
            notices.extend(found)
            continue
        if not problem and any(cell is not None for cell in cells[len(names) :]):
            problem = _BEYOND
        if problem:
            problems[len(rows)] = problem
        rows.append(dict(zip(names, [*cells, *[None] * (len(names) - len(cells))], strict=False)))
        size += bytes_
        if len(rows) >= block_rows(len(names)) or size >= BLOCK_BYTES:
            yield RawBlock(rows, problems, names)
            rows, problems, size = [], {}, 0
    if names is not None:
        yield RawBlock(rows, problems, names)


def _strip_end(cells: Sequence[Any]) -> Sequence[Any]:
    end = max((number for number, cell in enumerate(cells, 1) if cell is not None), default=0)
    return cells[:end]
