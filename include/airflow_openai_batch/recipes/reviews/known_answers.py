"""Answers by what was asked, in a temporary database on disk: memory does not grow with the day."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_openai_batch.tables.reading.row_table import RowBlock, read_rows

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
        values = (self._make_key(row), round_number, msgspec.json.encode(cells))
        self._base.execute("INSERT OR IGNORE INTO known VALUES (?, ?, ?)", values)

    def find(self, row: Mapping[str, Any]) -> KnownAnswer | None:
        query = "SELECT cells, round FROM known WHERE key = ?"
        found = self._base.execute(query, (self._make_key(row),)).fetchone()
        return None if found is None else KnownAnswer(msgspec.json.decode(found[0]), found[1])

    def _make_key(self, row: Mapping[str, Any]) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for name in self._columns:
            value = row.get(name)
            if self._as_lines and isinstance(value, str):
                value = _read_text(value)
            digest.update(msgspec.json.encode(_to_text(value)))
        return digest.digest()

    def __enter__(self) -> KnownAnswers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()


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
    """What the rest of the file has no say in: whether 5 is a 5.0, and which keys an object lacks."""
    if isinstance(value, float):
        if not math.isfinite(value):  # JSON has null for all of them; to a prompt no number is nothing
            return None if math.isnan(value) else str(value)
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {name: _settle(item) for name, item in sorted(value.items()) if item is not None}
    if isinstance(value, list | tuple):
        return [_settle(item) for item in value]
    return value
