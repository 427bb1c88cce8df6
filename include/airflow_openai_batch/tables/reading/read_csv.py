"""Rows of CSV files. Every cell is text and stays as it is; an empty cell is null.

The reader is strict: a quote that is closed in the wrong place, or never, spoils its own line only. What it has
swallowed until that shows is read again.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa

from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.tables.reading.encodings import (
    SAMPLE_BYTES,
    Encoding,
    check_encoding,
    find_encoding,
)
from airflow_openai_batch.tables.reading.limits import MAX_RECORD_BYTES
from airflow_openai_batch.tables.reading.lines import Line, read_lines, read_sample
from airflow_openai_batch.tables.reading.row_table import (
    BLOCK_BYTES,
    RowBlock,
    RowTable,
    block_rows,
    check_width,
    merge_names,
    name_columns,
)
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.sources import SourceFile

_DELIMITERS = ",;\t|"
_ROWS_OF_A_HABIT = 100
"""So many first rows tell whether all rows end with a delimiter that the header lacks."""
_SEP_LINE = re.compile(rb'"?sep=([^"\r\n\x80-\xff])"?\r?', re.IGNORECASE)
"""A first line that tells Excel the delimiter, and is no row."""


def open_csv(files: Sequence[SourceFile], *, delimiter: str | None = None, encoding: str = "") -> RowTable:
    """The rows of CSV files with a header each; columns that a file lacks are null.

    :param delimiter: one character; by default what a first line ``sep=;`` says, as Excel has it, or the one of comma,
        semicolon, tab and bar that the header has most of.
    :param encoding: of files without a byte order mark; by default UTF-8, or what else is found.
    :raises InputError: if a file has no header that can be read.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise ConfigError(f"delimiter={delimiter!r}: must be one character.")
    encoding = check_encoding(encoding)
    readers = [_CsvFile(file, delimiter, encoding) for file in files]
    names = merge_names([reader.names for reader in readers])
    check_width(files[0].uri if len(files) == 1 else f"{files[0].uri} and others", len(names))
    schema = pa.schema([(name, pa.string()) for name in names])
    notices = [f"{reader.uri}: {notice}" for reader in readers for notice in reader.notices]
    return RowTable(schema, _read_all(readers, schema), tuple(notices))


def _read_all(readers: Sequence[_CsvFile], schema: pa.Schema) -> Iterator[RowBlock]:
    for reader in readers:
        yield from reader.read(schema)


class _CsvFile:
    """One file: its header, read at once, and its rows, read later."""

    def __init__(self, file: SourceFile, delimiter: str | None, encoding: str) -> None:
        self.uri = file.uri
        self._file = file
        self._encoding, notice = self._find_encoding(encoding)
        self._delimiter = delimiter or self._find_delimiter()
        with_header = next((record for record in self._records() if record.cells), None)
        if with_header is not None and with_header.problem:
            raise InputError(f"{self.uri}: the header cannot be read: {with_header.problem}.")
        header = with_header.cells if with_header else []
        check_width(self.uri, len(header))
        self.names, self.notices = name_columns(header)
        if notice:
            self.notices.insert(0, notice)
        self._has_trailing_delimiters = self._find_trailing_delimiters()
        if self._has_trailing_delimiters:
            self.notices.append(
                "Its rows end with a delimiter, its header does not: the empty cell is left out."
            )

    def _find_trailing_delimiters(self) -> bool:
        """Whether every row does, not one alone, which may as well have a delimiter too many within it."""
        records = (record for record in self._records() if record.cells)
        rows = list(islice(records, 1, 1 + _ROWS_OF_A_HABIT))
        return len(rows) > 1 and all(_is_wider_by_nothing(row, len(self.names)) for row in rows)

    def _find_encoding(self, encoding: str) -> Encoding:
        sample, mark = read_sample(self._file, SAMPLE_BYTES)
        if mark.startswith("utf-16"):
            return Encoding("utf-8", "is UTF-16 by its first bytes and was read as such.")
        if mark or encoding:
            return Encoding(mark or encoding)
        return find_encoding(sample, self.uri)

    def _read_lines(self) -> Iterator[Line]:
        return read_lines(self._file, max_bytes=MAX_RECORD_BYTES, encoding=self._encoding)

    def _find_delimiter(self) -> str:
        first = next((line.data for line in self._read_lines() if line.data and line.data.strip()), b"")
        if said := _SEP_LINE.fullmatch(first):
            return said[1].decode()
        text = "".join(first.decode(self._text_encoding, "replace").split('"')[::2])
        most = max(_DELIMITERS, key=text.count)
        return most if most in text else ","

    @property
    def _text_encoding(self) -> str:
        """Of the lines, which are UTF-8 where the file is UTF-16."""
        return "utf-8" if self._encoding.startswith("utf-16") else self._encoding

    def read(self, schema: pa.Schema) -> Iterator[RowBlock]:
        block = _Block(self.names, schema)
        records = (record for record in self._records() if record.cells)
        next(records, None)
        for record in records:
            if self._has_trailing_delimiters and _is_wider_by_nothing(record, len(self.names)):
                record.cells.pop()
            block.add(record)
            if block.is_full:
                yield block.finish()
        if block.rows:
            yield block.finish()

    def _records(self) -> Iterator[_Record]:
        lines = (line for line in self._read_lines() if not _is_sep_line(line))
        source = _DecodedLines(lines, self._text_encoding)
        while source.more():
            yield _read_record(source, self._delimiter)


def _is_sep_line(line: Line) -> bool:
    return line.number == 1 and line.data is not None and _SEP_LINE.fullmatch(line.data) is not None


class _Record:
    """One row; no cells for a blank line."""

    __slots__ = ("cells", "problem")

    def __init__(self, cells: list[str], problem: str = "") -> None:
        self.cells = cells
        self.problem = problem


def _is_wider_by_nothing(record: _Record, width: int) -> bool:
    return len(record.cells) == width + 1 and not record.cells[-1]


class _DecodedLines:
    """Lines as text, which remembers those of the record at hand, so that they can be read again."""

    def __init__(self, lines: Iterator[Line], encoding: str) -> None:
        self._lines = lines
        self._encoding = encoding
        self._waiting: deque[tuple[str, str]] = deque()
        self._taken: list[tuple[str, str]] = []
        self._taken_size = 0

    def more(self) -> bool:
        if not self._waiting:
            line = next(self._lines, None)
            if line is None:
                return False
            self._waiting.append(self._decode(line))
        return True

    def start(self) -> None:
        self._taken, self._taken_size = [], 0

    def __iter__(self) -> _DecodedLines:
        return self

    def __next__(self) -> str:
        if self._taken_size > MAX_RECORD_BYTES or not self.more():
            raise StopIteration
        text, problem = self._waiting.popleft()
        self._taken.append((text, problem))
        self._taken_size += len(text)
        return text

    @property
    def problem(self) -> str:
        """Of the lines of this record."""
        return next((problem for _, problem in self._taken if problem), "")

    def keep_first_only(self) -> str:
        """Put all lines but the first back. Returns the first."""
        self._waiting.extendleft(reversed(self._taken[1:]))
        return self._taken[0][0]

    def _decode(self, line: Line) -> tuple[str, str]:
        if line.data is None:
            return "\n", f"is longer than any row may be (limit {MAX_RECORD_BYTES:,} bytes)"
        data = line.data + b"\n"
        try:
            return data.decode(self._encoding), ""
        except UnicodeDecodeError as error:
            problem = (
                f"is not valid {self._encoding.upper()} (byte {error.start + 1:,} of line {line.number:,})"
            )
            return data.decode(self._encoding, "replace"), problem


def _read_record(lines: _DecodedLines, delimiter: str) -> _Record:
    lines.start()
    try:
        cells = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        cells = lines.keep_first_only().rstrip("\r\n").split(delimiter)
        if "new-line" in str(error):
            return _Record(cells, "has a carriage return outside of quotes")
        return _Record(cells, "a quote is not closed, or closed in the middle of a cell")
    problem = lines.problem
    return _Record(cells or [""] if problem else cells, problem)


class _Block:
    """Collects rows of one file and turns them into a batch of the whole table."""

    def __init__(self, names: list[str], schema: pa.Schema) -> None:
        self._width = len(names)
        places = {name: at for at, name in enumerate(names)}
        self._order = [places.get(name) for name in schema.names]
        self._schema = schema
        self._most_rows = block_rows(len(schema))
        self._start()

    def _start(self) -> None:
        self.rows: list[list[str | None]] = []
        self._problems: dict[int, str] = {}
        self._size = 0

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= self._most_rows or self._size >= BLOCK_BYTES

    def add(self, record: _Record) -> None:
        cells, width = record.cells, self._width
        problem = record.problem
        if not problem and len(cells) != width:
            problem = f"has {number_of(len(cells), 'cell')}, the header {width:,}"
        if problem:
            self._problems[len(self.rows)] = problem
        row: list[str | None] = [cell or None for cell in cells[:width]]
        row += [None] * (width - len(row))
        self.rows.append(row)
        self._size += sum(map(len, cells))

    def finish(self) -> RowBlock:
        columns = list(zip(*self.rows, strict=True))
        arrays = [
            pa.nulls(len(self.rows), pa.string()) if at is None else pa.array(columns[at], pa.string())
            for at in self._order
        ]
        block = RowBlock(pa.record_batch(arrays, schema=self._schema), self._problems)
        self._start()
        return block


csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES * 2))
