"""Templates that may take long or become large, filled in where limits of time and memory hold."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.processes.limited_process import LimitedProcess, Overrun
from airflow_openai_batch.tables.plain_values import is_plain, to_plain
from airflow_openai_batch.tables.prompts.filling import Filling, Texts
from airflow_openai_batch.tables.prompts.templates import BadRowError
from airflow_openai_batch.tables.reading.row_codec import decode_rows, encode_rows

MAX_OVERDUE_ROWS = 20
"""Rows that take longer than the limit before the prompt is given up: that many are no oddity of a row."""
_BATCH_ROWS = 500
_BATCH_BYTES = 4 * 2**20

Row = tuple[int, Mapping[str, Any], str | None]


class _Setup(msgspec.Struct, array_like=True):
    fields: dict[str, str]
    columns: list[str]


class Filled(msgspec.Struct, array_like=True):
    """What came of a row: texts, or why there are none."""

    texts: Texts | None = None
    reason: str | None = None
    error: str | None = None
    """What no row can mend."""

    def check(self) -> Texts:
        """:raises BadRowError: as `Filling.fill`.
        :raises ConfigError: as `Filling.fill`.
        """
        if self.error is not None:
            raise ConfigError(self.error)
        if self.texts is None:
            raise BadRowError(self.reason or "")
        return self.texts


def open_filling(setup: bytes) -> Callable[[bytes], bytes]:
    """The side of the process: takes a number and a row, gives a `Filled`."""
    found = msgspec.msgpack.decode(setup, type=_Setup)
    filling = Filling(found.fields, found.columns)
    encode = msgspec.msgpack.Encoder().encode
    read = msgspec.msgpack.Decoder(tuple[int, bytes]).decode

    def fill(item: bytes) -> bytes:
        number, row = read(item)
        try:
            return encode(Filled(filling.fill(number, decode_rows(row)[0])))
        except BadRowError as error:
            return encode(Filled(reason=str(error)))
        except ConfigError as error:
            return encode(Filled(error=str(error)))

    return fill


class FillingApart:
    """The side of the task.

    :param fields: templates by field.
    :param columns: of the table.
    """

    def __init__(self, fields: Mapping[str, str], columns: Iterable[str]) -> None:
        setup = msgspec.msgpack.encode(_Setup(dict(fields), list(columns)))
        self._process = LimitedProcess("tables.prompts.filling_apart:open_filling", setup)
        self._overdue = 0

    def fill_all(self, rows: Iterable[Row]) -> Generator[tuple[Row, Filled | None]]:
        """Each row with what came of it; None where it cannot be used anyway. Closing it ends the process.

        :raises ConfigError: if too many rows take too long.
        """
        try:
            for batch in _cut(rows):
                items = [item for _, item in batch if item is not None]
                with contextlib.closing(self._process.map(items)) as replies:
                    for row, item in batch:
                        yield row, None if item is None else self._read(next(replies))
        finally:
            self._process.close()

    def _read(self, reply: bytes | Overrun) -> Filled:
        if not isinstance(reply, Overrun):
            return msgspec.msgpack.decode(reply, type=Filled)
        self._overdue += reply.is_time
        if self._overdue >= MAX_OVERDUE_ROWS:
            raise ConfigError(
                f"the prompt's templates: for {self._overdue} rows filling them in {reply}. Simplify loops and filters."
            )
        return Filled(reason=f"filling in the templates {reply}")


def _cut(rows: Iterable[Row]) -> Iterator[list[tuple[Row, bytes | None]]]:
    """Portions that are sent at once, each row with its bytes."""
    rows = iter(rows)
    while first := next(rows, None):
        size = 0
        batch = []
        for row in itertools.chain([first], rows):
            item = None if row[2] is not None else _encode(row)
            batch.append((row, item))
            size += len(item or b"")
            if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                break
        yield batch


def _encode(row: Row) -> bytes:
    number, values, _ = row
    plain = values if is_plain(values) else {name: to_plain(value) for name, value in values.items()}
    return msgspec.msgpack.encode((number, encode_rows([plain], is_json=False)))
