"""Answers by what was asked, in a temporary database on disk: memory does not grow with the day."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_openai_batch.tables.reading.column_types import FLOAT_EXACT
from airflow_openai_batch.tables.reading.row_table import RowBlock, read_rows
from airflow_openai_batch.tables.reading.spool import to_column_text

if TYPE_CHECKING:
    import pyarrow as pa


_FIRST_LETTERS = frozenset("{[-0123456789")
STATUS = 1
"""Which of an answer's cells it is."""


class KnownAnswer(NamedTuple):
    """The answer's cells in the order of its columns, and the round that it came with."""

    cells: list[Any]
    round: int

    @property
    def status(self) -> str:
        return str(self.cells[STATUS])


class KnownAnswers:
    """What is known already.

    :param columns: of the table, that the prompt reads: rows with the same cells in them are the same to the model.
        Cells as the table's columns have them, not as they were read: so do the tables of answers.
    :param as_lines: of a JSONL: there a column of numbers or objects may have become one of their JSON texts.
    """

    def __init__(self, columns: Iterable[str], *, as_lines: bool) -> None:
        self._columns = sorted(columns)
        self._as_lines = as_lines
        self._base = sqlite3.connect("")  # a file of its own, which is gone when it is closed
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute(
            "CREATE TABLE known (key BLOB PRIMARY KEY, round INTEGER, cells BLOB) WITHOUT ROWID"
        )

    def read(self, batch: pa.RecordBatch) -> Iterator[Mapping[str, Any]]:
        """What of each row of a table tells it from others."""
        names = set(batch.schema.names)
        return read_rows(RowBlock(batch), [name for name in self._columns if name in names])

    def add(self, row: Mapping[str, Any], cells: list[Any], round_number: int) -> None:
        """Of equal rows the first counts: it alone has the cost."""
        data = msgspec.json.encode(cells)
        values = [(key, round_number, data) for key in self._make_keys(row)]
        self._base.executemany("INSERT OR IGNORE INTO known VALUES (?, ?, ?)", values)

    def find(self, row: Mapping[str, Any]) -> KnownAnswer | None:
        query = "SELECT cells, round FROM known WHERE key = ?"
        for key in self._make_keys(row):
            found = self._base.execute(query, (key,)).fetchone()
            if found is not None:
                return KnownAnswer(msgspec.json.decode(found[0]), found[1])
        return None

    def _make_keys(self, row: Mapping[str, Any]) -> list[bytes]:
        """By the cells as a column of texts has them, whole numbers as 5.0 or as 5, and by what they come to in columns
        of any other type; one where these are the same. A text is itself in all of them: no two texts are equal."""
        values = [row.get(name) for name in self._columns]
        if self._as_lines:
            values = [_read_text(value) if isinstance(value, str) else value for value in values]
        return list(dict.fromkeys(_make_key(values, form) for form in (_to_written, _to_entered, _to_text)))

    def __enter__(self) -> KnownAnswers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()


def _make_key(values: Iterable[Any], form: Callable[[Any], str | None]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        digest.update(msgspec.json.encode(form(value)))
    return digest.digest()


def _to_written(value: Any) -> str | None:
    """As it stands in a column that another row has turned into texts: 5.0 and not 5, a date with a space."""
    if isinstance(value, (bytes, Decimal, dt.date, dt.time, dt.timedelta)) or (
        isinstance(value, float) and math.isfinite(value)
    ):
        return to_column_text(value)
    return _to_text(value)


def _to_entered(value: Any) -> str | None:
    """The same of a 5 that stood in a column of floats; larger ones have stood there as floats only."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= FLOAT_EXACT
    return str(int(value)) if is_whole else _to_written(value)


def _to_text(value: Any) -> str | None:
    """The same for a number or a date and for its text: which of the two it is depends on the rest of the file."""
    value = _settle(value)
    if value is None or isinstance(value, str):
        return value or None
    return msgspec.json.encode(value).decode().strip('"')


def _read_text(text: str) -> Any:
    """The value whose JSON text it may be. Of numbers only what such a text looks like: 1.10 is none of them."""
    if not text or text[0] not in _FIRST_LETTERS:
        return text
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return found if isinstance(found, dict | list) or msgspec.json.encode(found).decode() == text else text


def _settle(value: Any) -> Any:
    """What the rest of the file has no say in: whether 5 is a 5.0, how many zeros end a decimal, from where an instant
    is seen, and which keys an object lacks."""
    if isinstance(value, float):
        if not math.isfinite(value):  # JSON has null for all of them; to a prompt no number is nothing
            return None if math.isnan(value) else str(value)
        return int(value) if value.is_integer() else value
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return _to_utc(value)
    if isinstance(value, dict):
        return {name: _settle(item) for name, item in sorted(value.items()) if item is not None}
    if isinstance(value, list | tuple):
        return [_settle(item) for item in value]
    return value


def _to_utc(value: dt.datetime) -> dt.datetime:
    try:
        return value.astimezone(dt.UTC)
    except OverflowError:  # of the first or the last day that Python knows
        return value
