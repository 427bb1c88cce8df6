"""One table as one file: Parquet, CSV, JSON Lines or an Excel workbook; it appears whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.writing.write_text import CSVWriter, JSONLinesWriter

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

TableFormat = Literal["parquet", "csv", "jsonl", "xlsx"]
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)

_BY_EXTENSION: dict[str, TableFormat] = {
    "parquet": "parquet",
    "csv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "xlsx": "xlsx",
}
_EXCEL_COLUMNS = 16_384
_GROUP_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How a table is written. Checks itself.

    :param for_excel: a CSV with a byte order mark, so that Excel takes it for UTF-8.
    :param raw_csv: leaves text in a CSV as it is. Without, an apostrophe stands before what a spreadsheet would run as
        a formula (see `formulas`): whoever wrote the rows, or made the model answer so, is no friend of whoever opens
        the file. A workbook needs neither, its text is text.
    :param long_text: a text beyond the 32,767 characters that a cell of Excel holds: ``fail``, or ``cut`` it.
    :param max_sheet_rows: rows of a sheet, with its header; more go on in further sheets of the workbook.
    :raises ConfigError: for a value that is none of these.
    """

    for_excel: bool = False
    raw_csv: bool = False
    long_text: Literal["fail", "cut"] = "fail"
    max_sheet_rows: int = 1_048_576

    def __post_init__(self) -> None:
        if self.long_text not in ("fail", "cut"):
            raise ConfigError(f"long_text={self.long_text!r}: must be fail or cut.")
        if not 2 <= self.max_sheet_rows <= 1_048_576:
            raise ConfigError(
                f"max_sheet_rows={self.max_sheet_rows}: must be 2 to 1,048,576 (Excel's limit per sheet)."
            )


class TableWriter(Protocol):
    """Takes a table piece by piece. ``rows`` counts what was taken, ``notices`` says what a person should know."""

    rows: int

    @property
    def notices(self) -> tuple[str, ...]: ...

    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None:
        """Write what is left."""

    def abandon(self) -> None:
        """Give up what is held; the file will not appear."""


def find_format(uri: str) -> TableFormat:
    """By the end of the name.

    :raises ConfigError: if it is none that can be written.
    """
    extension = uri.rpartition("/")[2].rpartition(".")[2].lower()
    if extension not in _BY_EXTENSION:
        raise ConfigError(
            f"{uri}: ends in none of {', '.join('.' + each for each in _BY_EXTENSION)}. Name a file that does, or set "
            f"format to one of {', '.join(FORMATS)}."
        )
    return _BY_EXTENSION[extension]


def check_table(format: TableFormat, schema: pa.Schema) -> None:
    """Fail before anything is written.

    :raises ConfigError: if the format cannot hold the columns, or what writes it is not installed.
    """
    vectors = [
        field.name
        for field in schema
        if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type)
    ]
    if vectors and format in ("csv", "xlsx"):
        raise ConfigError(
            f"format={format}: cannot hold vectors (column {vectors[0]}). Choose format=parquet or format=jsonl."
        )
    if format != "xlsx":
        return
    from airflow_openai_batch.tables.writing.excel_cells import check_installed

    check_installed()
    if len(schema) > _EXCEL_COLUMNS:
        raise ConfigError(
            f"format=xlsx: {len(schema):,} columns, Excel's limit is {_EXCEL_COLUMNS:,}. Choose another format."
        )


@contextlib.contextmanager
def open_table(
    place: Location, format: TableFormat, schema: pa.Schema, options: TableOptions
) -> Iterator[TableWriter]:
    """A writer whose file appears when the block ends well and leaves nothing when it does not."""
    with place.open_write(for_people=True) as file:
        writer = _open_writer(file, format, schema, options)
        try:
            yield writer
            writer.close()
        except BaseException:
            with contextlib.suppress(Exception):
                writer.abandon()
            raise


def _open_writer(
    file: BinaryIO, format: TableFormat, schema: pa.Schema, options: TableOptions
) -> TableWriter:
    if format == "parquet":
        return ParquetTableWriter(file, schema)
    if format == "csv":
        return CSVWriter(file, schema, for_excel=options.for_excel, raw=options.raw_csv)
    if format == "jsonl":
        return JSONLinesWriter(file, schema)
    from airflow_openai_batch.tables.writing.write_excel import ExcelWriter

    return ExcelWriter(file, schema, long_text=options.long_text, max_sheet_rows=options.max_sheet_rows)


class ParquetTableWriter:
    """Row groups by bytes; memory is bounded by one of them."""

    notices: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        self.rows += len(batch)
        if self._pending_bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        self._pending = []
        self._writer.close()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending))
        self._pending, self._pending_bytes = [], 0
