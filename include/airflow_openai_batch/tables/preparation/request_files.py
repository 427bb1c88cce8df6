"""The files of a prepared directory, each of which appears whole or not at all."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.errors import UnreadableInputError
from airflow_openai_batch.storage.sources import version_of
from airflow_openai_batch.tables.preparation.manifest import MANIFEST, FileNote, request_file, row_file

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

REQUEST_FILE_BYTES = 200_000_000
ROW_FILE_ROWS = 50_000
ROW_FILE_BYTES = 64 * 2**20
"""Of the columns in memory; the file is smaller."""
ROW_GROUP_ROWS = 10_000
ROW_GROUP_BYTES = 16 * 2**20

OWN_FIELDS = [
    pa.field("_row", pa.int64(), nullable=False),
    pa.field("_custom_id", pa.string()),
    pa.field("_position", pa.int64()),
    pa.field("_index", pa.int32(), nullable=False),
    pa.field("_reason", pa.string()),
]
"""What stands beside the columns of the source: number of the row; id, position and place of the request that
answers it; why it was rejected."""


class PublishedFiles:
    """Files that are written one after another, and what is known of those that are there."""

    def __init__(self, output: Location) -> None:
        self._output = output
        self.notes: list[FileNote] = []
        self._versions: list[str] = []
        self._stack = contextlib.ExitStack()

    def open(self, name: str) -> BinaryIO:
        """Begin the next one."""
        self._name = name
        return self._stack.enter_context(self._output.child(name).open_write())

    def publish(self, items: int) -> None:
        """The one at hand is complete.

        :raises UnreadableInputError: if another try has done the same work meanwhile, whose files must stay.
        """
        try:
            self._check_alone()
        except UnreadableInputError:
            self.give_up(*sys.exc_info())
            raise
        self._stack.close()
        info = self._look(self._name)
        self.notes.append(FileNote(name=self._name, items=items, bytes=int(info["size"])))
        self._versions.append(version_of(info))

    def give_up(self, *error: Any) -> None:
        """The one at hand leaves nothing."""
        self._stack.__exit__(*error)

    def check(self) -> None:
        """:raises UnreadableInputError: if somebody else wrote to a file since it was published."""
        self._check_alone()
        for note, version in zip(self.notes, self._versions, strict=True):
            info = self._look(note.name)
            if (int(info["size"]), version_of(info)) != (note.bytes, version):
                raise UnreadableInputError(
                    f"{self._output.child(note.name).uri}: was written by another try of this task meanwhile. "
                    "Try again when only one is running."
                )

    def _check_alone(self) -> None:
        if self._output.child(MANIFEST).exists():
            raise UnreadableInputError(
                f"{self._output.uri}: was prepared by another try of this task meanwhile. The next try will use that."
            )

    def _look(self, name: str) -> dict[str, Any]:
        place = self._output.child(name)
        place.fs.invalidate_cache()
        found: dict[str, Any] = place.fs.info(place.path)
        return found


class RequestWriter:
    """Request lines in files of at most `REQUEST_FILE_BYTES`."""

    def __init__(self, output: Location, url: str, *, file_bytes: int = REQUEST_FILE_BYTES) -> None:
        self.files = PublishedFiles(output)
        self.written = 0
        self._middle = b',"method":"POST","url":' + msgspec.json.encode(url) + b',"body":'
        self._limit = file_bytes
        self._file: BinaryIO | None = None
        self._size = self._items = 0

    def write(self, custom_id: str, body: bytes) -> None:
        line = b"".join((b'{"custom_id":', msgspec.json.encode(custom_id), self._middle, body, b"}\n"))
        if self._file is not None and self._size + len(line) > self._limit:
            self._publish()
        if self._file is None:
            self._file = self.files.open(request_file(len(self.files.notes)))
        self._file.write(line)
        self._size += len(line)
        self._items += 1
        self.written += 1

    def _publish(self) -> None:
        if self._file is not None:
            self.files.publish(self._items)
            self._file, self._size, self._items = None, 0, 0

    def __enter__(self) -> RequestWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._publish()
        else:
            self.files.give_up(kind, error, trace)


class RowWriter:
    """Rows with `OWN_FIELDS` in Parquet files of at most `ROW_FILE_ROWS`; memory is bounded by a row group."""

    def __init__(self, output: Location, columns: pa.Schema) -> None:
        self.files = PublishedFiles(output)
        self.written = 0
        self._schema = pa.schema([*columns, *OWN_FIELDS])
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._group_rows = self._group_bytes = self._rows = self._bytes = 0

    def write(self, batch: pa.RecordBatch, own: list[pa.Array]) -> None:
        """:param own: one array for each of `OWN_FIELDS`."""
        if self._rows and (self._rows + batch.num_rows > ROW_FILE_ROWS or self._bytes >= ROW_FILE_BYTES):
            self._publish()
        if self._writer is None:
            self._open()
        self._waiting.append(pa.record_batch([*batch.columns, *own], schema=self._schema))
        size = batch.nbytes
        self._group_rows += batch.num_rows
        self._group_bytes += size
        self._rows += batch.num_rows
        self._bytes += size
        self.written += batch.num_rows
        if self._group_rows >= ROW_GROUP_ROWS or self._group_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _open(self) -> None:
        file = self.files.open(row_file(len(self.files.notes)))
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd", compression_level=1)

    def _flush(self) -> None:
        if self._waiting and self._writer is not None:
            table = pa.Table.from_batches(self._waiting)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
            self._waiting, self._group_rows, self._group_bytes = [], 0, 0

    def _publish(self) -> None:
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self.files.publish(self._rows)
            self._writer, self._rows, self._bytes = None, 0, 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if self._writer is not None:
                with contextlib.suppress(Exception):
                    self._writer.close()
            self.files.give_up(kind, error, trace)
            return
        if not self.files.notes and self._writer is None:
            self._open()  # a table without rows has columns all the same
        self._publish()
