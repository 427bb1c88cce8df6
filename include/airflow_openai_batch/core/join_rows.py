"""The source rows that a preparation kept, with what each was asked in: the left side of a join."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.core.errors import AccountingError, ConfigError, JobError
from airflow_openai_batch.core.join_answers import NO_POSITION

if TYPE_CHECKING:
    from airflow_openai_batch.core.join_answers import Positions
    from airflow_openai_batch.core.storage import Location

MANIFEST = "manifest.json"
ROWS = "rows"

ROW = "_row"
CUSTOM_ID = "_custom_id"
POSITION = "_position"
INDEX = "_index"
REASON = "_reason"
OWN_COLUMNS = (ROW, CUSTOM_ID, POSITION, INDEX, REASON)
"""What a preparation adds to the columns of the source."""

BATCH_BYTES = 24 * 2**20
_MAX_BATCH_ROWS = 16_384


class _Counts(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    requests: int


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a join needs of ``manifest.json``."""

    counts: _Counts
    endpoint: str = ""
    schema: dict[str, Any] | None = None


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
        self._rows = prepared.child(ROWS)
        self._manifest = _read_manifest(prepared)

    @property
    def requests(self) -> int:
        return self._manifest.counts.requests

    @property
    def count(self) -> int:
        return self._manifest.counts.rows

    @property
    def endpoint(self) -> str:
        return self._manifest.endpoint

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
            with part.open_read() as file:
                schemas.append(pq.read_schema(file).remove_metadata())
        try:
            whole = pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise JobError(
                f"{self._rows.uri}: the parts have columns of different types ({error}). Prepare again with "
                "on_existing=restart."
            ) from error
        missing = [name for name in OWN_COLUMNS if name not in whole.names]
        if missing and self._parts:
            raise JobError(f"{self._rows.uri}: has no column {', '.join(missing)}. {_AGAIN}")
        return pa.schema([field for field in whole if field.name not in OWN_COLUMNS])

    @cached_property
    def _parts(self) -> list[Location]:
        return [self._rows.child(name) for name in self._rows.names() if name.endswith(".parquet")]

    def batches(self) -> Iterator[RowBatch]:
        """All rows in the order of the source.

        :raises AccountingError: if one is missing, stands there twice, or there are more or fewer than were prepared.
        """
        done = 0
        for part in self._parts:
            with part.open_read() as file:
                parquet = pq.ParquetFile(file)
                for batch in parquet.iter_batches(_batch_rows(parquet.metadata)):
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
                f"{self._rows.uri}: has {done:,} rows, but {self.count:,} were prepared. {_AGAIN}"
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


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """So many rows at once that their bytes stay small, whatever a row holds."""
    size: int = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(_MAX_BATCH_ROWS, BATCH_BYTES * int(metadata.num_rows) // max(1, size)))


def _read_manifest(prepared: Location) -> _Manifest:
    place = prepared.child(MANIFEST)
    try:
        return msgspec.json.decode(place.read_bytes(), type=_Manifest)
    except FileNotFoundError:
        raise ConfigError(
            f"{place.uri}: is not there. Name the directory that OpenAIBatchPrepareOperator wrote, and run it first."
        ) from None
    except msgspec.MsgspecError as error:
        raise JobError(f"{place.uri}: cannot be read ({error}). {_AGAIN}") from error
