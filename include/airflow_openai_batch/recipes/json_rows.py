"""Tables that tasks hand to each other as JSON Lines: streamed, whole or not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.storage.sources import explained

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

Row = dict[str, Any]


def read_rows(place: Location, *, made_by: str) -> Iterator[Row]:
    """One row at a time.

    :param made_by: the task to run where the file is not there, for the message.
    :raises InputError: if it is not there, or no JSON Lines.
    """
    if not place.exists():
        raise InputError(f"{place.uri}: is not there. Run the task {made_by} first.")
    decode = msgspec.json.Decoder().decode
    with explained(place.uri), place.open_read() as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield decode(line)
            except msgspec.DecodeError:
                raise InputError(f"{place.uri}:{number:,}: is not valid JSON. Run {made_by} again.") from None


def write_rows(place: Location, rows: Iterable[Row]) -> int:
    """Replace the file by these rows, and say how many they were."""
    encode = msgspec.json.encode
    count = 0
    with place.open_write() as file:
        for row in rows:
            file.write(encode(row) + b"\n")
            count += 1
    return count
