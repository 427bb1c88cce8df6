"""Tables as Excel workbooks, streamed. Text stays text, numbers stay numbers, and nothing is lost silently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import pyarrow as pa

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.arrow_values import to_values
from airflow_openai_batch.tables.cell_values import to_cells
from airflow_openai_batch.tables.writing.excel_cells import (
    MAX_CELL_CHARS,
    count_units,
    cut_text,
    is_too_long,
    replace_controls,
    save_book,
    to_text_cell,
)
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from decimal import Decimal

    from openpyxl import Workbook
    from openpyxl.worksheet._write_only import WriteOnlyWorksheet

_EXACT = 10**15
"""Excel keeps 15 digits of a number; a longer one is written as text."""
_FIRST_DAY = date(1900, 3, 1)
"""Before it, Excel's calendar is off by a day or does not exist."""
_SHEET = "answers"


class ExcelWriter:
    """Writes one sheet after another, each with the header and at most so many rows.

    Rows go through a temporary file on this machine, since a workbook is a ZIP archive of them.

    :raises ConfigError: from `write`, for a text that no cell holds, unless ``long_text`` is ``cut``.
    """

    def __init__(
        self, file: BinaryIO, schema: pa.Schema, *, long_text: Literal["fail", "cut"], max_sheet_rows: int
    ) -> None:
        from openpyxl import Workbook

        self._file = file
        self._names = schema.names
        self._converters = [_converter(field.type) for field in schema]
        self._cuts = long_text == "cut"
        self._max_sheet_rows = max_sheet_rows
        self._book: Workbook = Workbook(write_only=True)
        self._in_sheet = 0
        self.rows = 0
        self._cut = self._replaced = 0
        self._sheet = self._begin_sheet()

    @property
    def notices(self) -> tuple[str, ...]:
        found = []
        if self._cut:
            found.append(
                f"{number_of(self._cut, 'text')} of more than {MAX_CELL_CHARS:,} characters cut to what a cell holds."
            )
        if self._replaced:
            found.append(
                f"{number_of(self._replaced, 'text')} had control characters, which Excel cannot hold: each is \ufffd."
            )
        if len(self._book.worksheets) > 1:
            found.append(f"{self.rows:,} rows in {len(self._book.worksheets)} sheets of the workbook.")
        return tuple(found)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [convert(column) for convert, column in zip(self._converters, batch.columns, strict=True)]
        for values in zip(*columns, strict=True):
            if self._in_sheet >= self._max_sheet_rows:
                self._sheet = self._begin_sheet()
            self._sheet.append(
                [self._to_text(value, at) if type(value) is str else value for at, value in enumerate(values)]
            )
            self._in_sheet += 1
            self.rows += 1

    def close(self) -> None:
        save_book(self._book, self._file)

    def abandon(self) -> None:
        for sheet in self._book.worksheets:
            sheet.close()

    def _begin_sheet(self) -> WriteOnlyWorksheet:
        number = len(self._book.worksheets) + 1
        sheet: WriteOnlyWorksheet = self._book.create_sheet(_SHEET if number == 1 else f"{_SHEET} {number}")
        sheet.freeze_panes = "A2"
        self._sheet = sheet
        sheet.append([self._to_text(name, at) for at, name in enumerate(self._names)])
        self._in_sheet = 1
        return sheet

    def _to_text(self, text: str, column: int) -> Any:
        clean = replace_controls(text)
        self._replaced += clean is not text
        if is_too_long(clean):
            clean = self._shorten(clean, column)
        return to_text_cell(self._sheet, clean)

    def _shorten(self, text: str, column: int) -> str:
        if not self._cuts:
            raise ConfigError(
                f"row {self.rows:,}, column {self._names[column]}: {count_units(text):,} characters, a cell of Excel "
                f"holds {MAX_CELL_CHARS:,}. Set long_text=cut, or choose format=parquet, csv or jsonl."
            )
        self._cut += 1
        return cut_text(text)


def _converter(kind: pa.DataType) -> Callable[[pa.Array], Sequence[Any]]:
    """How a column becomes cells."""
    if pa.types.is_integer(kind):
        return lambda column: [_to_number(value) for value in column.to_pylist()]
    if pa.types.is_floating(kind):
        return lambda column: [_to_finite(value) for value in to_cells(column)]
    if pa.types.is_decimal(kind):
        return lambda column: [_to_decimal(value) for value in column.to_pylist()]
    if pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None):
        return _to_dates
    return to_cells


def _to_number(value: int | None) -> int | str | None:
    return value if value is None or -_EXACT < value < _EXACT else str(value)


def _to_finite(value: float | None) -> float | str | None:
    """NaN and the infinities are no numbers to Excel."""
    return value if value is None or value - value == 0 else str(value)


def _to_decimal(value: Decimal | None) -> Decimal | str | None:
    return value if value is None or len(value.as_tuple().digits) <= 15 else str(value)


def _to_dates(column: pa.Array) -> Sequence[Any]:
    """Dates as such; where Excel has none, or would drop digits, as text."""
    return [
        value if _fits(value) else text
        for text, value in zip(to_cells(column), to_values(column), strict=True)
    ]


def _fits(value: date | str | None) -> bool:
    """Excel keeps milliseconds, and knows no day before its first."""
    if value is None:
        return True
    if isinstance(value, str):  # beyond Python's years
        return False
    day = value.date() if isinstance(value, datetime) else value
    return day >= _FIRST_DAY
