"""The source rows that a preparation kept, with what each was asked in: the left side of a join."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.errors import AccountingError, ConfigError, JobError
from airflow_openai_batch.tables.join.answer_reader import NO_POSITION
from airflow_openai_batch.tables.preparation.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.join.answer_reader import Positions
    from airflow_openai_batch.tables.preparation.manifest import FileNote

ROW = "_row"
CUSTOM_ID = "_custom_id"
POSITION = "_position"
INDEX = "_index"
REASON = "_reason"
OWN_COLUMNS = (ROW, CUSTOM_ID, POSITION, INDEX, REASON)
"""What a preparation adds to the columns of the source."""

BATCH_BYTES = 24 * 2**20
_MAX_BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some source rows, in order."""

    source: pa.RecordBatch
    """The columns of the source, as they were."""
    first_row: int
    """0-based over the whole source."""
    positions: Positions
    """Of the request that answers each; `NO_POSITION` where it was rejected."""
    indexes: Positions
    """Place within a request that asks for several rows."""
    custom_ids: pa.Array
    reasons: pa.Array

    def __len__(self) -> int:
        return len(self.positions)

    def slice(self, piece: slice) -> RowBatch:
        start, length = piece.start, piece.stop - piece.start
        return RowBatch(
            self.source.slice(start, length),
            self.first_row + start,
            self.positions[piece],
            self.indexes[piece],
            self.custom_ids.slice(start, length),
            self.reasons.slice(start, length),
        )


class PreparedRows:
    """Reads ``rows/`` of a preparation; memory is bounded by one row group of it.

    :raises ConfigError: if there is no ``manifest.json``.
    :raises JobError: if it cannot be read.
    """

    def __init__(self, prepared: Location) -> None:
        self.uri = prepared.uri
        self.place = prepared
        manifest = read_manifest(prepared)
        if manifest is None:
            raise ConfigError(
                f"{prepared.child(MANIFEST).uri}: is not there. Name the directory that OpenAIBatchPrepareOperator "
                "wrote, and run it first."
            )
        self._manifest = manifest
        self._parts = [prepared.child(file.name) for file in manifest.rows]

    @property
    def requests(self) -> int:
        return self._manifest.counts.requests

    @property
    def request_files(self) -> tuple[FileNote, ...]:
        return self._manifest.requests

    @property
    def count(self) -> int:
        return self._manifest.counts.rows

    @property
    def endpoint(self) -> str:
        return self._manifest.endpoint

    @property
    def source_names(self) -> tuple[str, ...]:
        """What the rows were read from, as the person wrote it."""
        return self._manifest.source.named

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the answers; None where any text will do."""
        return self._manifest.schema

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the source's columns, over all parts.

        :raises JobError: if they do not go together.
        """
        schemas = []
        for part in self._parts:
            with _opened(part) as file:
                schemas.append(file.schema_arrow.remove_metadata())
        try:
            whole = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise JobError(
                f"{self.uri}: the parts have columns of different types ({error}). Prepare again with "
                "on_existing=restart."
            ) from error
        missing = [name for name in OWN_COLUMNS if name not in whole.names]
        if missing and self._parts:
            raise JobError(f"{self.uri}: has no column {', '.join(missing)}. {_AGAIN}")
        return pa.schema([field for field in whole if field.name not in OWN_COLUMNS])

    def batches(self) -> Iterator[RowBatch]:
        """All rows in the order of the source.

        :raises AccountingError: if one is missing, stands there twice, or there are more or fewer than were prepared.
        """
        done = 0
        for part in self._parts:
            with _opened(part) as file:
                for batch in file.iter_batches(_batch_rows(file.metadata)):
                    rows = batch.column(ROW).to_numpy()
                    expected = np.arange(done, done + len(rows))
                    if not np.array_equal(rows, expected):
                        wrong = int(np.flatnonzero(rows != expected)[0])
                        raise AccountingError(
                            f"{part.uri}: row {rows[wrong]:,} stands where row {expected[wrong]:,} belongs. {_AGAIN}"
                        )
                    yield self._to_rows(batch, done)
                    done += len(rows)
        if done != self.count:
            raise AccountingError(
                f"{self.uri}: has {done:,} rows, but {self.count:,} were prepared. {_AGAIN}"
            )

    def _to_rows(self, batch: pa.RecordBatch, first_row: int) -> RowBatch:
        columns = [
            batch.column(field.name).cast(field.type)
            if field.name in batch.schema.names
            else pa.nulls(len(batch), field.type)
            for field in self.schema
        ]
        return RowBatch(
            pa.record_batch(columns, schema=self.schema),
            first_row,
            batch.column(POSITION).cast(pa.int64()).fill_null(NO_POSITION).to_numpy(),
            batch.column(INDEX).cast(pa.int64()).fill_null(0).to_numpy(),
            batch.column(CUSTOM_ID).cast(pa.string()),
            batch.column(REASON).cast(pa.string()),
        )


_AGAIN = "The files were changed since they were prepared; restore them, or prepare again with on_existing=restart."


@contextlib.contextmanager
def _opened(part: Location) -> Iterator[pq.ParquetFile]:
    """:raises AccountingError: if it is gone or not whole."""
    try:
        with part.open_read() as file:
            yield pq.ParquetFile(file)
    except FileNotFoundError:
        raise AccountingError(f"{part.uri}: is not there. {_AGAIN}") from None
    except pa.ArrowInvalid as error:
        raise AccountingError(f"{part.uri}: is no whole Parquet file. {_AGAIN}") from error


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """So many rows at once that their bytes stay small, whatever a row holds."""
    size: int = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(_MAX_BATCH_ROWS, BATCH_BYTES * int(metadata.num_rows) // max(1, size)))
