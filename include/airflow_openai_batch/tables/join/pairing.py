"""Whether a job ran on what was prepared: before the first row, by the request files; at each row, by its id.

By ids alone two preparations of equal length cannot be told apart, since the ids are the numbers of the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from airflow_openai_batch.errors import AccountingError, InputChangedError, InputError, JobError
from airflow_openai_batch.job.shard_reader import ShardReader
from airflow_openai_batch.storage.sources import describe_file
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.join.source_rows import PreparedRows, RowBatch

_WAY_OUT = "Name the preparation whose request files are the job's input"


def check_pair(rows: PreparedRows, plan: Plan, output: Location) -> None:
    """Compare numbers, sizes and versions; the content where only versions differ, since the files were copied or
    written anew. Request files that a task between the two made anew, under names of their own, go by number alone.

    :raises JobError: if the job did not run on this preparation.
    """
    if plan.counts.positions != rows.requests:
        raise JobError(
            f"{output.uri}: ran on {number_of(plan.counts.positions, 'request')}, but {rows.uri} prepared "
            f"{rows.requests:,}. {_WAY_OUT}."
        )
    files = {source.uri: source.uri.rpartition("/")[2] for source in plan.sources}
    if list(files.values()) != [note.name for note in rows.request_files]:
        return
    same = True
    for source, note in zip(plan.sources, rows.request_files, strict=True):
        if source.size != note.bytes:
            raise _make_error(rows, output, f"{note.name} had {source.size:,} bytes, not {note.bytes:,}")
        try:
            same &= describe_file(rows.place.child(note.name)).etag == source.etag
        except InputError:  # whoever deleted it needs it no more; its size was right
            return
    if same:
        return
    for shard in plan.shards:
        reader = ShardReader(plan.sources, shard, output, lambda uri: rows.place.child(files[uri]))
        try:
            for _ in reader.lines():
                pass
        except InputChangedError as error:
            raise _make_error(rows, output, f"the requests of shard {shard.shard} were others") from error


def compare_ids(batch: RowBatch, answers: pa.Table, output_uri: str) -> None:
    """:raises AccountingError: if a row stands beside the answer to another request."""
    same = pc.equal(batch.custom_ids, answers.column("custom_id").combine_chunks())
    if pc.all(same, min_count=0).as_py() is False:
        at = pc.index(same, False).as_py()
        raise make_foreign_error(
            output_uri, f"row {batch.first_row + at:,} stands beside the answer to another request"
        )


def make_foreign_error(output_uri: str, what: str) -> AccountingError:
    return AccountingError(
        f"{output_uri}: {what}. This job did not run on what was prepared there, or one of them was changed since. "
        f"{_WAY_OUT}."
    )


def _make_error(rows: PreparedRows, output: Location, how: str) -> JobError:
    return JobError(
        f"{output.uri}: did not run on what is prepared in {rows.uri} ({how}), so that answers would stand beside the "
        f"wrong rows. {_WAY_OUT}; if that was prepared anew since, run the job on it with on_existing=restart, which "
        "pays again."
    )
