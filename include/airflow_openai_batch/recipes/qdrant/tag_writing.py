"""Tags on their way back into the points that they were asked for, and what a person is told of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow.parquet as pq

from airflow_openai_batch.errors import AccountingError, JobError
from airflow_openai_batch.recipes.job_folder import read_note, write_note
from airflow_openai_batch.recipes.qdrant.payload_text import read_field
from airflow_openai_batch.recipes.qdrant.qdrant_points import PAGE_POINTS
from airflow_openai_batch.recipes.qdrant.tag_marks import (
    Fields,
    Origin,
    find_foreign_keys,
    find_origin,
    is_newer,
    make_payload,
    mark_failure,
)
from airflow_openai_batch.recipes.qdrant.tags import Tagged, TagRules, read_more
from airflow_openai_batch.recipes.qdrant.transcripts import NOTE as READING
from airflow_openai_batch.recipes.qdrant.transcripts import (
    TranscriptReading,
    describe_reading,
    to_point_id,
)
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED
from airflow_openai_batch.tables.join.join_table import join_answers
from airflow_openai_batch.tables.preparation import read_manifest
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.qdrant_points import PointId, PointStore
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.preparation import Manifest
    from airflow_openai_batch.tables.prompts import PromptSpec

log = logging.getLogger(__name__)

PREPARED = "prepared"
JOB = "job"
SAMPLE_TABLE = "sample.parquet"
TABLE = "tagged.parquet"
SKIPPED = "skipped.jsonl"
SAMPLE = "sample.jsonl"
SUMMARY = "summary.md"
NOTE = "written.json"
_COLUMNS = [
    "point_id",
    "text",
    "answer",
    "answer_status",
    "answer_error",
    "answer_model",
    "answer_cost_usd",
    "tags",
    "summary",
]
_UNASKED = (UNFINISHED, "rejected", "missing")
_IN_VAIN = ("failed", "invalid_output", "rejected", "against_the_rules")
"""What the same question would come to again."""
_TOP_TAGS = 20
_MOST_TAGS = 20_000


class TagsWritten(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows of a table."""

    read: int
    written: int
    skipped: int
    cost_usd: float
    """Of all answers, those that were not written too."""
    reasons: dict[str, int]
    """Rows that were not written, by the kind of reason."""
    top_tags: list[tuple[str, int]]


class _Wrong(NamedTuple):
    """An answer of a sample that cannot be used."""

    point: PointId
    text: str
    code: str
    reason: str


@dataclass(slots=True)
class _Tally:
    """Counted while rows go by."""

    read: int = 0
    written: int = 0
    cost_usd: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)

    def count_tags(self, tags: list[str]) -> None:
        """Rare ones are forgotten where there are too many to hold."""
        self.tags.update(tags)
        if len(self.tags) > _MOST_TAGS:
            self.tags = Counter(dict(self.tags.most_common(_MOST_TAGS // 2)))

    def close(self) -> TagsWritten:
        return TagsWritten(
            read=self.read,
            written=self.written,
            skipped=self.reasons.total(),
            cost_usd=self.cost_usd,
            reasons=dict(self.reasons.most_common()),
            top_tags=self.tags.most_common(_TOP_TAGS),
        )


def check_sample(folder: Location, store: PointStore, *, fields: Fields, rules: TagRules) -> None:
    """Say in the log what a sample came to; ``sample.jsonl`` has its answers, for whoever wants to read them first.

    :param folder: has the preparation below `PREPARED` and the job, of which only a part was asked, below `JOB`.
    :raises JobError: if half of the answers or more break the rules: the prompt wants work before all are asked. What
        failed is noted in the points, so that the next run asks others.
    """
    table = folder.child(SAMPLE_TABLE)
    join_answers(folder.child(PREPARED), folder.child(JOB), table, format="parquet", on_unfinished="keep")
    good, cost_usd = 0, 0.0
    wrong: list[_Wrong] = []
    with folder.child(SAMPLE).open_write() as sample:
        for row in _read_rows(table):
            if row["answer_status"] in _UNASKED:
                continue
            cost_usd += row["answer_cost_usd"] or 0.0
            judged = _judge(row, rules)
            found: dict[str, Any] = {"point_id": row["point_id"]}
            if isinstance(judged, Tagged):
                good += 1
                found |= {"tags": judged.tags, "summary": judged.summary, **judged.more}
            else:
                wrong.append(_Wrong(to_point_id(row["point_id"]), row["text"], *judged))
                found |= {"problem": judged[1]}
            sample.write(msgspec.json.encode(found) + b"\n")
    if len(wrong) >= good:
        _note_failures(wrong, folder, store, fields)
        listed = "".join(f"\n  point {each.point}: {each.reason}." for each in wrong[:10])
        raise JobError(
            f"{len(wrong):,} of {number_of(good + len(wrong), 'sampled answer')} cannot be used, so the rest was not "
            "asked. If the prompt is at fault, mend it, raise its version, and start a new run. If these points are, a "
            f"new run with another output sets them aside and goes on with others.{listed}"
        )
    log.info(
        "%s of %s can be used, for $%s; %s has them.",
        f"{good:,}",
        number_of(good + len(wrong), "sampled answer"),
        f"{cost_usd:,.4f}",
        folder.child(SAMPLE).uri,
    )


def write_tags(
    folder: Location, store: PointStore, *, fields: Fields, rules: TagRules, overwrite: bool = False
) -> TagsWritten:
    """Set tags, summary and their origin in the payload of each point whose answer keeps the rules; nothing else of a
    point is touched. May be repeated: the same table writes the same.

    A point whose text has changed since it was read, or that is gone, is left alone; so is one that has been tagged by
    a newer version of the prompt meanwhile, and one that has tags or a summary of others' (unless ``overwrite``).
    ``skipped.jsonl`` has each point that was not written, with its reason. What the same question would come to again
    is noted in the point, so that the next run sets it aside.

    :param folder: has the joined rows as `TABLE`, and the preparation below `PREPARED`.
    :raises AccountingError: if a row was neither written nor skipped.
    """
    manifest = _read_manifest(folder)
    table = folder.child(TABLE)
    tally = _Tally()
    origin = find_origin(manifest.prompt)
    with store.open() as points, folder.child(SKIPPED).open_write() as skipped:
        for page in _read_pages(table):
            payloads: dict[PointId, dict[str, Any]] = {}
            known = points.fetch(list(page), [*fields.names, *fields.written])
            for point, row in page.items():
                there = known.get(point)
                obstacle = _find_obstacle(row, there, fields, origin, overwrite=overwrite)
                judged = obstacle or _judge(row, rules)
                cost_usd = row["answer_cost_usd"] or 0.0
                tally.cost_usd += cost_usd
                if isinstance(judged, Tagged):
                    tally.count_tags(judged.tags)
                    tally.written += 1
                    payloads[point] = make_payload(
                        judged, fields, origin, model=row["answer_model"], cost_usd=cost_usd
                    )
                    continue
                code, reason = judged
                tally.reasons[code] += 1
                note = {"point_id": point, "code": code, "reason": reason}
                skipped.write(msgspec.json.encode(note) + b"\n")
                if code in _IN_VAIN and there is not None:
                    payloads[point] = mark_failure(
                        there, fields, origin, text=row["text"], code=code, reason=reason
                    )
            points.set_payloads(payloads)
            tally.read += len(page)
    done = tally.close()
    if done.written + done.skipped != done.read or done.read != manifest.counts.rows:
        raise AccountingError(
            f"{table.uri}: {manifest.counts.rows:,} rows were prepared, {done.read:,} read, {done.written:,} written "
            f"and {done.skipped:,} skipped."
        )
    write_note(folder.child(NOTE), done)
    log.info("%s: %s.", store, _describe(done))
    return done


def write_summary(folder: Location, *, store: PointStore, prompt: PromptSpec) -> None:
    """Write ``summary.md``, and log it.

    :raises JobError: if nothing has been read for this directory.
    """
    reading = read_note(folder.child(READING), TranscriptReading)
    if reading is None:
        raise JobError(
            f"{folder.child(READING).uri}: is not there. Clear the task that reads the transcripts."
        )
    done = read_note(folder.child(NOTE), TagsWritten)
    lines = [
        f"# Tags for {store}",
        "",
        f"Prompt {prompt.name} version {prompt.version}. {describe_reading(reading)}.",
        "",
    ]
    if done is None:
        lines += ["Nothing was written in this run."]
    else:
        lines += [
            "| read | written | skipped | cost |",
            "| ---: | ---: | ---: | ---: |",
            f"| {done.read:,} | {done.written:,} | {done.skipped:,} | ${done.cost_usd:,.4f} |",
        ]
        if done.reasons:
            lines += ["", f"Skipped ({SKIPPED} has each, with its reason):", ""]
            lines += [f"* {count:,} {reason}" for reason, count in done.reasons.items()]
        if done.top_tags:
            lines += ["", "The most frequent tags:", ""]
            lines += [f"* {tag}: {count:,}" for tag, count in done.top_tags]
    text = "\n".join(lines) + "\n"
    folder.child(SUMMARY).write_bytes(text.encode())
    log.info("%s", text)


def check_skipped(folder: Location, max_failed_fraction: float) -> None:
    """Judge what `write_tags` has noted. Rows of a sample, and of shards that are not done, are not counted as skipped:
    the report of the job judges these.

    :raises JobError: if more than this fraction of the rows was not written.
    """
    done = read_note(folder.child(NOTE), TagsWritten)
    if done is None:
        raise JobError(f"{folder.child(NOTE).uri}: is not there. Clear the task that writes the tags.")
    failed = {reason: count for reason, count in done.reasons.items() if reason != UNFINISHED}
    skipped = sum(failed.values())
    if skipped > max_failed_fraction * done.read:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in list(failed.items())[:5])
        raise JobError(
            f"{skipped:,} of {done.read:,} points were not tagged ({reasons}): more than "
            f"max_failed_fraction={max_failed_fraction:g} allows. The others have their tags. {SKIPPED} names these. A "
            "new run with another output and retry_failed=true asks about them again; without retry_failed only about "
            "those changed meanwhile. repair=true with the same output asks about those alone that got no valid "
            "answer: not about what is against_the_rules or changed."
        )


def _describe(done: TagsWritten) -> str:
    return (
        f"{done.read:,} read, {number_of(done.written, 'point')} written, {done.skipped:,} skipped, "
        f"answers for ${done.cost_usd:,.4f}"
    )


def _read_rows(table: Location) -> Iterator[dict[str, Any]]:
    with table.open_read() as file:
        for batch in pq.ParquetFile(file).iter_batches(PAGE_POINTS, columns=_COLUMNS):
            yield from batch.to_pylist()


def _read_pages(table: Location) -> Iterator[dict[PointId, dict[str, Any]]]:
    with table.open_read() as file:
        for batch in pq.ParquetFile(file).iter_batches(PAGE_POINTS, columns=_COLUMNS):
            yield {to_point_id(row["point_id"]): row for row in batch.to_pylist()}


def _judge(row: Mapping[str, Any], rules: TagRules) -> Tagged | tuple[str, str]:
    """What can be written of a row, or the kind of reason why nothing can, and the reason."""
    if row["answer_status"] != "ok":
        return row["answer_status"], row["answer_error"] or "there is no answer"
    judged = rules.check_answer(row["tags"], row["summary"])
    if isinstance(judged, Tagged):
        return judged._replace(more=read_more(row["answer"]))
    return "against_the_rules", f"the answer {judged}"


def _read_manifest(folder: Location) -> Manifest:
    manifest = read_manifest(folder.child(PREPARED))
    if manifest is None:
        raise JobError(f"{folder.child(PREPARED).uri}: nothing was prepared. Clear the task that prepares.")
    return manifest


def _note_failures(wrong: list[_Wrong], folder: Location, store: PointStore, fields: Fields) -> None:
    """In the points, as far as nobody else has written there."""
    origin = find_origin(_read_manifest(folder).prompt)
    with store.open() as points:
        for start in range(0, len(wrong), PAGE_POINTS):
            page = {each.point: each for each in wrong[start : start + PAGE_POINTS] if each.code in _IN_VAIN}
            known = points.fetch(list(page), fields.written)
            points.set_payloads(
                {
                    point: mark_failure(
                        there,
                        fields,
                        origin,
                        text=page[point].text,
                        code=page[point].code,
                        reason=page[point].reason,
                    )
                    for point, there in known.items()
                    if not find_foreign_keys(there, fields)
                }
            )


def _find_obstacle(
    row: Mapping[str, Any],
    payload: Mapping[str, Any] | None,
    fields: Fields,
    origin: Origin,
    *,
    overwrite: bool,
) -> tuple[str, str] | None:
    if payload is None:
        return "gone", "the point was deleted since it was read"
    if read_field(payload, fields.text) != row["text"]:
        return "changed", "the transcript was changed since it was read; the next run asks again"
    if is_newer(payload.get(fields.tagging), origin):
        return "tagged_meanwhile", "a newer version of the prompt has tagged it since"
    if not overwrite and (keys := find_foreign_keys(payload, fields)):
        return (
            "foreign",
            f"it has values in {', '.join(keys)} that this DAG did not write; name other keys, or set overwrite",
        )
    return None
