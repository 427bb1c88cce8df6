"""Files of people at the places where tables for people are written: nothing that we did not write is overwritten.

Beside each table lies a small hidden note of how it looked when it was written. A file that looks otherwise by now
was changed by somebody, and is put aside under another name; one that was never ours is an error.
"""

from __future__ import annotations

import contextlib
import time
import zipfile
from typing import TYPE_CHECKING

import msgspec
import pyarrow.parquet as pq

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.first_bytes import PARQUET, ZIP
from airflow_openai_batch.storage.sources import version_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

_HEAD_BYTES = 2**20
_MAX_NAMES = 1_000


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    version: str


class KeptFile:
    """A file on its way to a place where there may be one already.

    :param mark: what the beginning of a file of ours holds: a column, or a sheet's name. For files without a note,
        as earlier releases wrote them.
    :param overwrite: whatever lies there.
    """

    def __init__(self, place: Location, *, mark: str, overwrite: bool = False) -> None:
        self._place = place
        self._mark = mark
        self._overwrite = overwrite
        folder, _, name = place.path.rpartition("/")
        uri = place.uri.rpartition("/")[0]
        note = f".{name}.written.json"
        self._note = type(place)(place.fs, f"{folder}/{note}", f"{uri}/{note}" if uri else note)

    def check(self) -> None:
        """Before anything is written.

        :raises ConfigError: if there is a file of somebody else.
        """
        if self._overwrite or not self._place.exists() or self._read_note() is not None:
            return
        if not _holds(self._place, self._mark):
            raise ConfigError(
                f"{self._place.uri}: is there already, and was not written here. Name another file, move it away, or "
                "set overwrite."
            )

    def put_aside(self) -> tuple[str, ...]:
        """At the last moment before the new file appears. Says what was done with one that somebody has changed."""
        noted = self._read_note()
        if self._overwrite or noted is None or not self._place.exists() or noted == self._look():
            return ()
        kept = self._find_name()
        self._place.fs.mv(self._place.path, kept.path)
        return (f"{self._place.uri} was changed since it was written here: kept as {kept.uri}.",)

    def note(self) -> None:
        """After the new file has appeared."""
        self._note.write_bytes(msgspec.json.encode(self._look()))

    def _look(self) -> _Note:
        self._place.fs.invalidate_cache()
        info = self._place.fs.info(self._place.path)
        return _Note(size=int(info["size"]), version=version_of(info))

    def _read_note(self) -> _Note | None:
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=_Note)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _find_name(self) -> Location:
        """``answers.kept-20261129T120000Z.csv``, or with a number behind it."""
        place = self._place
        stem, dot, extension = place.path.rpartition(".")
        uri = place.uri.rpartition(".")[0]
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        for number in range(1, _MAX_NAMES):
            end = f".kept-{at}{f'-{number}' if number > 1 else ''}{dot}{extension}"
            found = type(place)(place.fs, f"{stem}{end}", f"{uri}{end}")
            if not found.exists():
                return found
        raise ConfigError(
            f"{place.uri}: {_MAX_NAMES:,} files were put aside beside it already. Clear some away."
        )


def _holds(place: Location, mark: str) -> bool:
    """Whether a file, of whatever format, has the mark in its beginning; false where it cannot be read."""
    with contextlib.suppress(Exception), place.open_read() as file:
        head = file.read(_HEAD_BYTES)
        if head.startswith(PARQUET):
            file.seek(0)
            return any(name.endswith(mark) for name in pq.read_schema(file).names)
        if head.startswith(ZIP):
            with zipfile.ZipFile(file) as archive, archive.open("xl/workbook.xml") as book:
                return f'name="{mark}'.encode() in book.read(_HEAD_BYTES)
        return mark.encode() in head.partition(b"\n")[0]
    return False
