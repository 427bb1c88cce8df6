"""Rows as an Excel workbook of several sheets: streamed, text as text, within Excel's limits."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.core.errors import ConfigError
from airflow_openai_batch.core.table_files_excel import MAX_CELL_CHARS, check_installed

if TYPE_CHECKING:
    from airflow_openai_batch.core.storage import Location
    from airflow_openai_batch.recipes.json_rows import Row

MAX_ROWS = 1_048_576
"""In one sheet, with its header. Source: "Excel specifications and limits"."""
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_NOT_TEXT = re.compile(r"[=+\-@#]")
"""Excel would run a text that begins with one of these when its cell is edited."""
_WIDTHS = {"photo": 24, "title": 32, "artist": 28, "detail": 44, "way_out": 48, "as_read": 48, "reason": 48}
_WIDTH = 16


class Sheet(NamedTuple):
    """One sheet: its columns are keys of the rows."""

    name: str
    columns: Sequence[str]
    rows: Iterable[Row]


def write_workbook(place: Location, sheets: Iterable[Sheet]) -> list[int]:
    """Write the sheets in their order; the file appears whole or not at all.

    :returns: the rows of each, without the header.
    :raises ConfigError: if openpyxl is missing, or a sheet has more rows than Excel takes.
    """
    check_installed()
    from openpyxl import Workbook

    book: Any = Workbook(write_only=True)
    counts = [_fill(book, each) for each in sheets]
    # An object store's file cannot go back, as an archive does.
    with tempfile.TemporaryFile() as whole:
        book.save(whole)
        whole.seek(0)
        with place.open_write() as file:
            shutil.copyfileobj(whole, file, 1 << 20)
    return counts


def _fill(book: Any, sheet: Sheet) -> int:
    from openpyxl.utils import get_column_letter

    target: Any = book.create_sheet(sheet.name)  # its types know no column widths
    target.freeze_panes = "A2"
    for number, name in enumerate(sheet.columns, 1):
        target.column_dimensions[get_column_letter(number)].width = _WIDTHS.get(name, _WIDTH)
    target.append(list(sheet.columns))
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
    text = _NOT_IN_XML.sub("\ufffd", value)
    if len(text.encode("utf-16-le")) > 2 * MAX_CELL_CHARS:
        text = text.encode("utf-16-le")[: 2 * MAX_CELL_CHARS].decode("utf-16-le", "ignore")
    if not _NOT_TEXT.match(text):
        return text
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, text)
    cell.data_type = "s"
    cell.quotePrefix = True
    return cell
