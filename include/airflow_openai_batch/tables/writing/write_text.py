"""Tables as CSV (RFC 4180, UTF-8) and as JSON Lines."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable
from typing import Any, BinaryIO

import pyarrow as pa

from airflow_openai_batch.tables.cell_values import is_nested, to_cells, to_json, to_json_values
from airflow_openai_batch.tables.writing.formulas import guard_formulas


class CSVWriter:
    """Quotes where needed, ends lines with CRLF, writes null as nothing at all.

    :param for_excel, raw: see `table_files.TableOptions`.
    """

    notices: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO, schema: pa.Schema, *, for_excel: bool, raw: bool) -> None:
        self._file = file
        self._raw = raw
        self._text = io.StringIO(newline="")
        self._csv = csv.writer(self._text, lineterminator="\r\n")
        self.rows = 0
        if for_excel:
            file.write(codecs.BOM_UTF8)
        self._csv.writerow(self._guard(schema.names))
        self._flush()

    def write(self, batch: pa.RecordBatch) -> None:
        self._csv.writerows(zip(*map(self._to_column, batch.columns), strict=True))
        self.rows += len(batch)
        self._flush()

    def close(self) -> None:
        """Nothing is held back."""

    def abandon(self) -> None:
        """Nothing is held back."""

    def _to_column(self, column: pa.Array) -> Iterable[Any]:
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.string())  # true, not True
        cells = to_cells(column)
        return self._guard(cells) if _is_text(column.type) else cells

    def _guard(self, texts: Iterable[str | None]) -> Iterable[str | None]:
        return texts if self._raw else (text and guard_formulas(text) for text in texts)

    def _flush(self) -> None:
        self._file.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()


class JSONLinesWriter:
    """An object for each row; lists, objects and vectors as such."""

    notices: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._names = schema.names
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [to_json_values(column) for column in batch.columns]
        lines = io.BytesIO()
        for values in zip(*columns, strict=True):
            lines.write(to_json(dict(zip(self._names, values, strict=True))) + b"\n")
        self._file.write(lines.getvalue())
        self.rows += len(batch)

    def close(self) -> None:
        """Nothing is held back."""

    def abandon(self) -> None:
        """Nothing is held back."""


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_bytes = (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )
    return bool(is_bytes or pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_nested(kind))
