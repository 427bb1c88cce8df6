"""Rows of one sheet, as values: formulas as what they last came to. One row in memory, whatever the file says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.tables.reading import limits
from airflow_openai_batch.tables.reading.excel_book import MAIN, Sheet, damaged, read_text, unescape
from airflow_openai_batch.wording import number_of

_ROW, _CELL, _DATA = f"{MAIN}row", f"{MAIN}c", f"{MAIN}sheetData"
_VALUE, _FORMULA, _INLINE = f"{MAIN}v", f"{MAIN}f", f"{MAIN}is"


class SheetRow(NamedTuple):
    """Cells up to the last one; a row that cannot be used has a problem."""

    cells: list[Any]
    problem: str
    size: int
    """Bytes of its texts."""


class SheetReader:
    """Reads a sheet once. What is odd is counted meanwhile."""

    def __init__(self, sheet: Sheet) -> None:
        self.uri = sheet.archive.uri
        self._sheet = sheet
        self._errors: Counter[str] = Counter()
        self._uncomputed = 0

    @property
    def notices(self) -> list[str]:
        found = []
        if self._errors:
            kinds = ", ".join(sorted(self._errors))
            found.append(
                f"{number_of(self._errors.total(), 'cell')} with an error of Excel's ({kinds}) taken as empty."
            )
        if self._uncomputed:
            found.append(
                f"{number_of(self._uncomputed, 'formula')} without a value taken as empty: the program that wrote the "
                "workbook did not compute them. Open it in Excel or LibreOffice and save it."
            )
        return found

    def read(self) -> Iterator[SheetRow]:
        """Rows in the order of the file, those between them that are not there left out.

        :raises InputError: for a row or column beyond what a sheet has, or a damaged file.
        """
        with self._sheet.archive.open_large(self._sheet.part, None) as source:
            bounded = _Bounded(source, self.uri)
            number = 0
            for count, element in enumerate(_find_rows(bounded, self.uri), 1):
                number = self._read_number(element, number)
                if max(number, count) > limits.MAX_SHEET_ROWS:
                    raise InputError(
                        f"{self.uri}: has a row {max(number, count):,}, limit {limits.MAX_SHEET_ROWS:,} (Excel's "
                        "own). It is damaged, or was made to look large."
                    )
                yield self._read_row(element)

    def _read_number(self, row: Any, before: int) -> int:
        given = row.get("r")
        if given is None:
            return before + 1
        try:
            number = int(given[:20])
        except ValueError:
            number = 0
        if number < 1:
            raise InputError(f"{self.uri}: a row after row {before:,} has no number that could be one.")
        return number

    def _read_row(self, row: Any) -> SheetRow:
        cells: list[Any] = []
        problem, size, column = "", 0, 0
        for element in row:
            if element.tag != _CELL:
                continue
            column = self._read_column(element, column)
            cells.extend([None] * (column - len(cells)))
            try:
                value = self._read_cell(element)
            except (ValueError, IndexError, TypeError, OverflowError, ArithmeticError):
                problem = problem or f"its cell in column {column:,} cannot be read"
                continue
            if isinstance(value, bytes):
                size += len(value)
                if size > limits.MAX_RECORD_BYTES:
                    return SheetRow([None], f"is longer than {limits.MAX_RECORD_BYTES:,} bytes, the limit", 0)
                value = value.decode()
            cells[column - 1] = value
        return SheetRow(cells, problem, size)

    def _read_column(self, cell: Any, before: int) -> int:
        from openpyxl.utils import coordinate_to_tuple

        place = cell.get("r")
        try:
            column = coordinate_to_tuple(place[:12])[1] if place else before + 1
        except (ValueError, TypeError, AttributeError):
            column = 0
        if not 1 <= column <= limits.MAX_COLUMNS:
            raise InputError(
                f"{self.uri}: has a cell beyond column {limits.MAX_COLUMNS:,}, the limit (Excel's own)."
            )
        return int(column)

    def _read_cell(self, cell: Any) -> Any:
        """A text as UTF-8, so that its size is known before it takes memory."""
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            inline = cell.find(_INLINE)
            return None if inline is None else read_text(inline).encode("utf-8", "replace") or None
        found = cell.find(_VALUE)
        text = None if found is None else found.text
        if not text:
            # A formula that came to a text may have come to an empty one.
            self._uncomputed += kind != "str" and cell.find(_FORMULA) is not None
            return None
        if kind == "s":
            return self._sheet.strings[int(text)] or None
        if kind == "b":
            return bool(int(text))
        if kind == "e":
            self._errors[text[:20]] += 1
            return None
        if kind == "d":
            from openpyxl.utils.datetime import from_ISO8601

            return from_ISO8601(text)  # type: ignore[no-untyped-call]
        return (
            self._read_number_cell(text, cell) if kind == "n" else unescape(text).encode("utf-8", "replace")
        )

    def _read_number_cell(self, text: str, cell: Any) -> Any:
        from openpyxl.utils.datetime import from_excel

        value = float(text) if any(sign in text for sign in ".eE") else int(text)
        style = int(cell.get("s", 0))
        if style not in self._sheet.date_styles:
            return value
        return from_excel(value, self._sheet.epoch, timedelta=style in self._sheet.duration_styles)


class _Bounded:
    """The XML of a sheet, up to a limit for what stands between the ends of two rows."""

    def __init__(self, source: Any, uri: str) -> None:
        self._source = source
        self._uri = uri
        self._size = 0
        self._elements = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self._size += len(data)
        if self._size > limits.MAX_ROW_XML_BYTES:
            raise InputError(
                f"{self._uri}: a row of it has more than {limits.MAX_ROW_XML_BYTES:,} bytes unpacked, the limit."
            )
        return data

    def note_element(self) -> None:
        self._elements += 1
        if self._elements > limits.MAX_ROW_ELEMENTS:
            raise InputError(
                f"{self._uri}: a row of it has more cells than fit into {limits.MAX_COLUMNS:,} columns, the limit "
                "(Excel's own)."
            )

    def end_row(self) -> None:
        self._size = self._elements = 0


def _find_rows(source: _Bounded, uri: str) -> Iterator[Any]:
    """The elements of rows, each gone when the next is asked for; what follows the cells is not looked at."""
    from openpyxl.xml.functions import iterparse

    data: Any = None
    try:
        for event, element in iterparse(source, events=("start", "end")):
            if event == "start":
                source.note_element()
                data = element if element.tag == _DATA else data
            elif element.tag == _DATA:
                return
            elif element.tag == _ROW and data is not None:
                source.end_row()
                yield element
                data.clear()
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of the archive, the decompressor or the parser
        raise damaged(uri, error) from None
