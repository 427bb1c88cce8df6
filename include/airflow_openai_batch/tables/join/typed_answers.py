"""A job's answers one by one, as Python values: beside their source rows where there was a preparation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.job import directory
from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.results.landing_summary import find_unfinished
from airflow_openai_batch.tables.arrow_values import read_values
from airflow_openai_batch.tables.join.answer_columns import REJECTED
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED, AnswerReader
from airflow_openai_batch.tables.join.pairing import check_pair, compare_ids
from airflow_openai_batch.tables.join.source_rows import PreparedRows
from airflow_openai_batch.wording import name_some

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

_COLUMNS = (
    "custom_id", "status", "error_code", "error_message", "content", "parsed", "choices", "embeddings", "media",
    "model", "cost_usd",
)  # fmt: skip
_BATCH_ROWS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one row or request came to."""

    custom_id: str | None
    """None of a row that was never sent."""
    row: Mapping[str, Any] | None
    """The source row, by column; None where the job ran on requests that nothing here prepared."""
    value: Any
    """The answer: an instance of the ``output_type``; without one the JSON of a structured answer, the text, or the
    vector. None where there is no good one."""
    status: str
    """``ok``, ``failed``, ``invalid_output``, ``missing``, ``rejected`` or ``unfinished``."""
    error: str | None = None
    choices: tuple[str | None, ...] | None = None
    """The texts of all choices, where the request asked for several; ``value`` is the first."""
    media: tuple[str, ...] = ()
    """Where the files lie that it brought (pictures, sound, videos), as URIs."""
    model: str | None = None
    cost_usd: float | None = None
    """Of the request; rows that share one all have it."""


def read_answers(
    output: Location, prepared: Location | None, *, output_type: Any = None, unfinished: bool = False
) -> Iterator[Answer]:
    """Every row of the preparation, or every request of the job, in order. Memory is bounded by one block.

    :param output: the job directory.
    :param prepared: the directory of the preparation whose requests the job ran on.
    :param output_type: a Pydantic model; answers that it refuses are ``invalid_output``.
    :param unfinished: give also what belongs to shards that are not done.
    :raises ConfigError: if there is no job, or no preparation where one is named.
    :raises JobError: if shards are not done, or the job did not run on that preparation.
    """
    plan = directory.read_plan(output)
    if plan is None:
        raise ConfigError(f"{output.uri}: there is no plan.json; run the job first.")
    open_ = sorted(find_unfinished(plan, output))
    if open_ and not unfinished:
        raise JobError(
            f"{output.uri}: {len(open_):,} of {len(plan.shards):,} shards are not done "
            f"({name_some(open_)}). Clear their tasks first. After a sample (sample_requests), "
            "iter_answers(job, unfinished=True) gives what there is."
        )
    rows = None if prepared is None else PreparedRows(prepared)
    if rows is not None:
        check_pair(rows, plan, output)
    with AnswerReader(
        plan, lambda shard: output.child(directory.part(shard)), _COLUMNS, unfinished=open_
    ) as reader:
        if rows is not None:
            yield from _read_rows(rows, reader, output_type, output.uri)
            return
        for start in range(0, plan.counts.positions, _BATCH_ROWS):
            positions = np.arange(start, min(start + _BATCH_ROWS, plan.counts.positions), dtype=np.int64)
            for piece in reader.cut(positions):
                found = reader.take(positions[piece])
                for cells in found.filter(found.column("position").is_valid()).to_pylist():
                    yield _make_answer(cells, None, 0, output_type, output.uri)


def _read_rows(rows: PreparedRows, reader: AnswerReader, output_type: Any, job: str) -> Iterator[Answer]:
    names = list(rows.schema.names)
    for batch in rows.batches():
        for piece in reader.cut(batch.positions):
            part = batch.slice(piece)
            answers = reader.take(part.positions)
            compare_ids(part, answers, job)
            found = answers.to_pylist()
            values = read_values(part.source, names)
            reasons = part.reasons.to_pylist()
            for at, (cells, row) in enumerate(zip(found, values, strict=True)):
                if part.positions[at] < 0:
                    yield Answer(custom_id=None, row=row, value=None, status=REJECTED, error=reasons[at])
                else:
                    cells["custom_id"] = cells["custom_id"] or part.custom_ids[at].as_py()
                    yield _make_answer(cells, row, int(part.indexes[at]), output_type, job)


def _make_answer(
    cells: Mapping[str, Any], row: Mapping[str, Any] | None, slot: int, output_type: Any, job: str
) -> Answer:
    status = cells["status"] or UNFINISHED
    error = ": ".join(text for text in (cells["error_code"], cells["error_message"]) if text) or None
    value = None
    if row is not None and slot < len(vectors := cells["embeddings"] or ()) and vectors[slot] is not None:
        status, error = "ok", None  # whatever became of the rows that it was asked with
    if status == "ok":
        value, problem = _read_value(cells, slot, output_type)
        if problem is not None:
            status, error = "invalid_output", problem
    return Answer(
        custom_id=cells["custom_id"],
        row=row,
        value=value,
        status=status,
        error=error,
        choices=None if cells["choices"] is None else tuple(cells["choices"]),
        media=tuple(_find_uri(found, job) for found in cells["media"] or ()),
        model=cells["model"],
        cost_usd=cells["cost_usd"],
    )


def _find_uri(media: Mapping[str, Any], job: str) -> str:
    """:param job: the URI of its directory."""
    return f"{job.rstrip('/')}/{media['path']}" if media["path"] else str(media["url"])


def _read_value(cells: Mapping[str, Any], slot: int, output_type: Any) -> tuple[Any, str | None]:
    """The answer, or why it is none; the reason quotes nothing of it."""
    if cells["embeddings"] is not None:
        vectors = cells["embeddings"]
        return (vectors[slot], None) if slot < len(vectors) else (None, "no_vector: for this row")
    if output_type is None and cells["parsed"] is None:
        return cells["content"], None
    try:
        value, text = lenient_json.read(cells["parsed"] or cells["content"] or "")
    except lenient_json.UnreadableJSONError:
        return None, "not_json: the answer is not JSON"
    if output_type is None:
        return value, None
    try:
        return output_type.model_validate_json(text), None
    except ValueError as error:  # pydantic's own is one; its words quote the value
        return None, f"output_type: {_describe(error)}"


def _describe(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return type(error).__name__
    found = errors(include_input=False, include_context=False, include_url=False)
    first = found[0]
    return f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['type']}"
