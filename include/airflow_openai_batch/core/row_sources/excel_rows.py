"""Rows of one sheet of Excel workbooks, as values: formulas as what they last came to."""

from __future__ import annotations

import contextlib
import importlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.core.errors import ConfigError, InputError
from airflow_openai_batch.core.row_sources.spool import RawBlock
from airflow_openai_batch.core.row_sources.table import BLOCK_ROWS, name_columns
from airflow_openai_batch.core.sources import explained

if TYPE_CHECKING:
    from airflow_openai_batch.core.sources import SourceFile

_BEYOND = "has a value beyond the last column of the header"


def read_excel_rows(
    files: Sequence[SourceFile], sheet: str | None = None, notices: list[str] | None = None
) -> Iterator[RawBlock]:
    """The rows below the first row that is not blank, which is the header; blank rows are no rows.

    :param sheet: by name; the first by default.
    :param notices: what is odd is added to these while rows are read.
    :raises ConfigError: if the extra ``tables`` is not installed.
    :raises InputError: for what is no workbook, or has no such sheet.
    """
    try:
        openpyxl = importlib.import_module("openpyxl")
    except ImportError:
        raise ConfigError(
            "Excel workbooks need openpyxl: pip install 'airflow-provider-openai-batch[tables]' on the workers."
        ) from None
    for file in files:
        with contextlib.ExitStack() as stack:
            with explained(file.uri):
                opened = stack.enter_context(file.location.open_read())
            found = _open_sheet(openpyxl, opened, file.uri, sheet, stack)
            yield from _read_sheet(found, file.uri, notices if notices is not None else [])


def _open_sheet(openpyxl: Any, opened: Any, uri: str, sheet: str | None, stack: contextlib.ExitStack) -> Any:
    try:
        book = openpyxl.load_workbook(opened, read_only=True, data_only=True)
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        openpyxl.utils.exceptions.InvalidFileException,
    ) as error:
        raise InputError(
            f"{uri}: is no Excel workbook (.xlsx), or is damaged or encrypted ({type(error).__name__}). "
            "Save it as .xlsx."
        ) from None
    stack.callback(book.close)
    titles = [each.title for each in book.worksheets]
    if sheet is None:
        if not titles:
            raise InputError(f"{uri}: has no sheet with cells.")
        found = book.worksheets[0]
    elif sheet in titles:
        found = book[sheet]
    else:
        raise InputError(f"{uri}: has no sheet {sheet!r}; it has {', '.join(titles)}.")
    found.reset_dimensions()  # what the file says of its size is often wrong
    return found


def _read_sheet(sheet: Any, uri: str, notices: list[str]) -> Iterator[RawBlock]:
    names: list[str] | None = None
    rows: list[Sequence[Any]] = []
    problems: dict[int, str] = {}
    for cells in sheet.iter_rows(values_only=True):
        if all(cell is None for cell in cells):
            continue
        if names is None:
            names, found = name_columns(_strip_end(cells))
            notices.extend(f"{uri}: {notice}" for notice in found)
            continue
        if any(cell is not None for cell in cells[len(names) :]):
            problems[len(rows)] = _BEYOND
        rows.append([*cells[: len(names)], *[None] * (len(names) - len(cells))])
        if len(rows) >= BLOCK_ROWS:
            yield _make_block(names, rows, problems)
            rows, problems = [], {}
    if names is not None:
        yield _make_block(names, rows, problems)


def _strip_end(cells: Sequence[Any]) -> Sequence[Any]:
    end = max(number for number, cell in enumerate(cells, 1) if cell is not None)
    return cells[:end]


def _make_block(names: Sequence[str], rows: Sequence[Sequence[Any]], problems: dict[int, str]) -> RawBlock:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return RawBlock(dict(zip(names, columns, strict=True)), len(rows), problems)
