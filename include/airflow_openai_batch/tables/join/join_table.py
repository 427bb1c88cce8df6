"""Source rows with their answers beside them, in the source's order, as one table file.

Streams: a stretch of source rows, the answers at their positions, one piece of the table. Every source row stands in
it exactly once, beside the answer to its own request, or the file does not appear.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_openai_batch.errors import AccountingError, ConfigError, JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.plan import Counts, Limits, Plan
from airflow_openai_batch.job.rejected import RejectedLine
from airflow_openai_batch.results.landing_summary import find_unfinished
from airflow_openai_batch.tables.join.answer_columns import REJECTED, AnswerColumns
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED, AnswerReader
from airflow_openai_batch.tables.join.pairing import check_pair, compare_ids, make_foreign_error
from airflow_openai_batch.tables.join.source_rows import PreparedRows
from airflow_openai_batch.tables.writing.kept_files import KeptFile
from airflow_openai_batch.tables.writing.write_table import TableOptions, check_table, open_table
from airflow_openai_batch.wording import name_some, number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.join.source_rows import RowBatch
    from airflow_openai_batch.tables.writing.write_table import TableFormat

OnUnfinished = Literal["fail", "keep"]

_NOTHING_ASKED = Plan(
    fingerprint="",
    created_at=0.0,
    sources=(),
    limits=Limits(max_requests=1, max_bytes=1, max_tokens=None),
    counts=Counts(positions=0, requests=0, rejected=0, blank=0),
    shards=(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a join wrote."""

    uri: str
    format: TableFormat
    rows: int
    statuses: dict[str, int]
    """Rows by ``answer_status``."""
    columns: tuple[str, ...]
    """Of the answer, as they are named in the table."""
    cost_usd: float
    """Sum of the answers' costs in the table, each once."""
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} {status}" for status, count in self.statuses.items())
        return f"{self.uri}: {number_of(self.rows, 'row')} ({statuses or 'none'}), answers for ${self.cost_usd:,.4f}."


def join_answers(
    prepared: Location,
    output: Location | None,
    place: Location,
    *,
    format: TableFormat,
    options: TableOptions | None = None,
    on_unfinished: OnUnfinished = "fail",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Joined:
    """Write the joined table; it appears whole or not at all. Costs nothing and may be repeated.

    :param prepared: the directory of the preparation.
    :param output: the job directory; None where no row could be asked about, so that there is none.
    :param place: the file to write.
    :param on_unfinished: rows of shards that are not done: ``fail``, or ``keep`` them with what there is.
    :param overwrite: a file at that place that was not written here, or was changed since; see `kept_files`.
    :param progress: called with rows done and rows in all.
    :raises ConfigError: if there is no preparation or no job, or the format cannot hold the columns.
    :raises JobError: if shards are not done, or the job is of another preparation.
    :raises AccountingError: if a row is missing or stands beside another's answer.
    """
    rows = PreparedRows(prepared)
    if {place.uri, place.path} & set(rows.source_names):
        raise ConfigError(
            f"{place.uri}: is the source of the rows and would be overwritten. Name another file."
        )
    output, plan = _find_job(rows, output, prepared)
    unfinished = frozenset(find_unfinished(plan, output))
    if unfinished and on_unfinished == "fail":
        raise JobError(
            f"{output.uri}: {len(unfinished):,} of {len(plan.shards):,} shards are not done "
            f"({name_some(sorted(unfinished))}). Clear their tasks, or set on_unfinished=keep for the rows there are, "
            "for instance after a sample (sample_requests)."
        )
    columns = AnswerColumns(rows.endpoint, rows.answer_schema, rows.schema)
    options = options or TableOptions()
    check_table(format, columns.schema)
    kept = KeptFile(place, mark="answers" if format == "xlsx" else "answer_status", overwrite=overwrite)
    kept.check()
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(
            AnswerReader(
                plan,
                lambda shard: output.child(directory.part(shard)),
                columns.results,
                unfinished=unfinished,
            )
        )
        rejected = _read_rejected(output) if plan.counts.rejected else {}
        join = _Join(plan, columns, answers, rejected, unfinished, output.uri)
        table = stack.enter_context(open_table(place, format, columns.schema, options))
        for batch in rows.batches():
            for piece in answers.cut(batch.positions):
                table.write(join.add(batch.slice(piece)))
            if progress is not None:
                progress(join.rows, rows.count)
        join.check(rows.count, table.rows)
        kept_notices = kept.put_aside()
    kept.note()
    return Joined(
        uri=place.uri,
        format=format,
        rows=join.rows,
        statuses=dict(sorted(join.statuses.items())),
        columns=tuple(each.name for each in columns.fields),
        cost_usd=join.cost_usd,
        notices=(*kept_notices, *_note_unfit(columns), *table.notices),
    )


@dataclass(slots=True)
class _Join:
    """What has been joined so far, and whether it adds up."""

    plan: Plan
    columns: AnswerColumns
    answers: AnswerReader
    rejected: dict[int, str]
    unfinished: frozenset[int]
    where: str
    rows: int = 0
    cost_usd: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    seen: np.ndarray[tuple[int], np.dtype[np.bool_]] = field(init=False)
    """Which positions stand beside a row: a byte for each request."""

    def __post_init__(self) -> None:
        self.seen = np.zeros(self.plan.counts.positions, np.bool_)

    def add(self, batch: RowBatch) -> pa.RecordBatch:
        """:raises AccountingError: if a row's answer is not that of its request, or is not there."""
        beyond = batch.positions >= len(self.seen)
        if beyond.any():
            raise make_foreign_error(
                self.where, f"request {int(batch.positions[beyond][0]):,} is not in the job"
            )
        answers = self.answers.take(batch.positions)
        compare_ids(batch, answers, self.where)
        table = self.columns.build(batch, answers, self._note_first(batch), self._explain)
        own = [each.name for each in self.columns.fields]
        for found in pc.value_counts(table.column(own[1])).to_pylist():
            self.statuses[found["values"]] += found["counts"]
        self.cost_usd += pc.sum(table.column(own[4])).as_py() or 0.0
        self.rows += len(batch)
        return table

    def check(self, prepared: int, written: int) -> None:
        """:raises AccountingError: if rows or answers were lost."""
        if not self.rows == prepared == written:
            raise AccountingError(
                f"{self.where}: {prepared:,} rows were prepared, {self.rows:,} joined and {written:,} written."
            )
        if not self.seen.all():
            missing = int(np.flatnonzero(~self.seen)[0])
            raise make_foreign_error(self.where, f"no row asks for request {missing:,} of the job")

    def _note_first(self, batch: RowBatch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether each row is the first with its position, over the whole table."""
        positions, firsts = np.unique(batch.positions, return_index=True)
        is_new = positions >= 0
        is_new[is_new] = ~self.seen[positions[is_new]]
        is_first = np.zeros(len(batch), np.bool_)
        is_first[firsts[is_new]] = True
        self.seen[positions[is_new]] = True
        return is_first

    def _explain(self, position: int) -> tuple[str, str | None]:
        """Why there is no result: the split left the request out, or its shard is not done.

        :raises AccountingError: if neither is so.
        """
        if position in self.rejected:
            return REJECTED, self.rejected[position]
        shard = int(self.answers.shards_of(np.array([position]))[0])
        if shard in self.unfinished:
            return UNFINISHED, f"shard {shard} is not done: it has no results yet"
        raise AccountingError(
            f"{self.where}: request {position:,} has no result and was not rejected. Clear the download task of shard "
            f"{shard}: landing again costs nothing."
        )


def _find_job(rows: PreparedRows, output: Location | None, prepared: Location) -> tuple[Location, Plan]:
    """The job and its plan; where nothing was asked, one without requests.

    :raises ConfigError: if there is none.
    :raises JobError: if it cannot be that of the preparation.
    """
    if not rows.requests:
        return prepared, _NOTHING_ASKED
    if output is None:
        raise ConfigError(
            f"job is empty, but {rows.uri} has {number_of(rows.requests, 'request')}: the task before pushed none. "
            "Look at its log."
        )
    plan = directory.read_plan(output)
    if plan is None:
        raise ConfigError(f"{output.uri}: there is no plan.json; run the job first.")
    check_pair(rows, plan, output)
    return output, plan


def _read_rejected(output: Location) -> dict[int, str]:
    """Requests that the split could not send, with the reason: few, since a preparation wrote them all."""
    place = output.child(directory.REJECTED)
    decode = msgspec.json.Decoder(RejectedLine).decode
    with place.open_read() as file:
        lines = (decode(line) for line in file if line.strip())
        return {line.position: f"{line.code}: {line.message}" for line in lines}


def _note_unfit(columns: AnswerColumns) -> Iterator[str]:
    if columns.unfit:
        yield (
            f"{number_of(columns.unfit, 'value')} of structured answers did not fit the type that the schema says and "
            "are empty in their columns; the column of the whole answer has them."
        )
