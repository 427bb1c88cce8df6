"""Rows as an Excel workbook of several sheets: streamed, text as text, within Excel's limits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.writing.excel_cells import (
    check_installed,
    cut_text,
    is_too_long,
    replace_controls,
    save_book,
    to_text_cell,
)
from airflow_openai_batch.tables.writing.kept_files import KeptFile

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.json_rows import Row
    from airflow_openai_batch.storage.location import Location

MAX_ROWS = 1_048_576
"""In one sheet, with its header. Source: "Excel specifications and limits"."""
_WIDTHS = {"photo": 24, "title": 32, "artist": 28, "detail": 44, "way_out": 48, "as_read": 48, "reason": 48}
_WIDTH = 16


class WorkbookSheet(NamedTuple):
    """One sheet: its columns are keys of the rows."""

    name: str
    columns: Sequence[str]
    rows: Iterable[Row]


def write_workbook(place: Location, sheets: Iterable[WorkbookSheet]) -> list[int]:
    """Write the sheets in their order; the file appears whole or not at all.

    A workbook that somebody has changed since it was written is put aside under another name.

    :returns: the rows of each, without the header.
    :raises ConfigError: if openpyxl is missing, or a sheet has more rows than Excel takes.
    """
    check_installed()
    from openpyxl import Workbook

    book: Any = Workbook(write_only=True)
    filled = [(each.name, _fill(book, each)) for each in sheets]
    kept = KeptFile(place, mark=filled[0][0])
    kept.check()
    with place.open_write(for_people=True) as file:
        save_book(book, file)
        for notice in kept.put_aside():
            log.warning("%s", notice)
    kept.note()
    return [count for _, count in filled]


def _fill(book: Any, sheet: WorkbookSheet) -> int:
    from openpyxl.utils import get_column_letter

    target: Any = book.create_sheet(sheet.name)  # its types know no column widths
    target.freeze_panes = "A2"
    for number, name in enumerate(sheet.columns, 1):
        target.column_dimensions[get_column_letter(number)].width = _WIDTHS.get(name, _WIDTH)
    target.append([_to_cell(target, name) for name in sheet.columns])
    count = 0
    for row in sheet.rows:
        count += 1
        if count >= MAX_ROWS:
            raise ConfigError(
                f"sheet {sheet.name!r}: more than {MAX_ROWS - 1:,} rows, the limit of Excel. The JSON Lines beside it "
                "have them all."
            )
        target.append([_to_cell(target, row.get(name)) for name in sheet.columns])
    return count


def _to_cell(sheet: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = replace_controls(value)
    return to_text_cell(sheet, cut_text(text) if is_too_long(text) else text)
