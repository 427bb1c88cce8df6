"""Transcripts in Qdrant: which of them want tags, read into a table that the prompt is applied to."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.recipes.job_folder import FolderReading, find_reading, write_note
from airflow_openai_batch.recipes.qdrant.payload_text import check_text_field, read_field
from airflow_openai_batch.recipes.qdrant.qdrant_filters import make_filter
from airflow_openai_batch.recipes.qdrant.tag_choice import TagChoice, choose_failed, choose_points
from airflow_openai_batch.recipes.qdrant.tag_marks import (
    Fields,
    Origin,
    find_failure,
    find_foreign_keys,
    find_origin,
)
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.qdrant_points import Point, PointId, PointStore
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

log = logging.getLogger(__name__)

ROWS = "transcripts.parquet"
NOTE = "transcripts.json"
SET_ASIDE = "set_aside.jsonl"
"""Points that were not asked about, since the same was asked in vain before."""

_SCHEMA = pa.schema([("point_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
_Row = tuple[str, str | None, str]


class TranscriptReading(FolderReading, frozen=True, kw_only=True):
    """Of the transcripts in a collection."""

    matching: int
    """Points that the filters let through."""
    tagged: int
    """Of these, those that have their tags, see `TagChoice`."""
    empty: int
    """Untagged, but there is no text to ask about; each run passes them over."""
    read: int
    """The others, which stand in the table."""
    foreign: int = 0
    """Left out, since they have tags or a summary that this DAG did not write."""
    foreign_keys: dict[str, int] = msgspec.field(default_factory=dict)
    """How many of them have a value at which key."""
    set_aside: int = 0
    """Left out, since the same was asked in vain before."""


def seed_transcripts(store: PointStore, samples: Path) -> int:
    """Put the sample transcripts into a collection that is empty or not there; how many.

    :param samples: ``.jsonl`` files, an object with ``id`` on each line.
    """
    with store.open() as points:
        if points.exists() and points.count():
            return 0
        if not points.exists():
            points.create(None)
        payloads = [
            msgspec.json.decode(line)
            for file in sorted(samples.glob("*.jsonl"))
            for line in file.read_bytes().splitlines()
        ]
        points.write([payload.pop("id") for payload in payloads], payloads)
    log.info("Put %s into %s.", number_of(len(payloads), "sample transcript"), store)
    return len(payloads)


def read_transcripts(
    store: PointStore,
    folder: Location,
    prompt: PromptSpec,
    *,
    filters: Mapping[str, Any],
    fields: Fields,
    choice: TagChoice | None = None,
    restart_of: str | None = None,
) -> TranscriptReading:
    """Write the transcripts that match and want tags into a table; a page at a time.

    Done once per directory: whoever clears the task later, when points have their tags, gets the same rows.

    :param choice: what is asked about besides points without tags.
    :param restart_of: the id of a run that reads anew, once, what was read into the directory before it.
    :raises ConfigError: if no point has a text under the key that ``fields`` names.
    :raises JobError: if the directory has the rows of another question.
    """
    choice = choice or TagChoice()
    asked = _digest(store, filters, fields, prompt, choice)
    done = find_reading(
        folder.child(NOTE),
        TranscriptReading,
        asked=asked,
        restart_of=restart_of,
        describe=describe_reading,
        what="another collection, other filters, other keys or another prompt",
    )
    if done is not None:
        return done
    where, origin = make_filter(filters), find_origin(prompt)
    with (
        store.open() as points,
        folder.child(SET_ASIDE).open_write() as set_aside,
        folder.child(ROWS).open_write() as file,
        pq.ParquetWriter(file, _SCHEMA) as table,
    ):
        matching = points.count(where)
        if matching:
            check_text_field(points, where, fields.text, matching)
        sieve = _Sieve(fields, origin, choice, set_aside)
        wanted = choose_points(where, fields, origin, choice.retag)
        names = [*fields.names, *fields.written]
        for page in points.read_pages(names, wanted):
            _write_rows(table, list(sieve.choose(page)))
        untagged = sieve.counts.total()
        if choice.retry_failed:
            for page in points.read_pages(names, choose_failed(wanted, fields, origin)):
                _write_rows(table, list(sieve.choose_failed(page)))
    counts = sieve.counts
    found = TranscriptReading(
        asked=asked,
        matching=matching,
        tagged=max(0, matching - untagged),
        empty=counts["empty"],
        read=counts["read"],
        foreign=counts["foreign"],
        foreign_keys=dict(sieve.foreign_keys),
        set_aside=counts["set_aside"],
        restarted_by=restart_of or "",
    )
    write_note(folder.child(NOTE), found)
    log.info("%s: %s.", store, describe_reading(found))
    return found


def describe_reading(found: TranscriptReading) -> str:
    left = f"{found.empty:,} without a text, " if found.empty else ""
    if found.foreign:
        keys = ", ".join(f"{name} of {count:,}" for name, count in found.foreign_keys.items())
        left += (
            f"{found.foreign:,} left alone with tags or a summary of their own ({keys}: name other keys, or set "
            "overwrite to replace them), "
        )
    if found.set_aside:
        left += (
            f"{found.set_aside:,} set aside since the same was asked in vain ({SET_ASIDE} names them, "
            "retry_failed=true asks again), "
        )
    return (
        f"{found.matching:,} match, {found.tagged:,} of them have tags by this prompt version or a newer one, "
        f"{left}{found.read:,} to tag"
    )


class _Sieve:
    """Which of the points that came are asked about; counted while they go by."""

    def __init__(self, fields: Fields, origin: Origin, choice: TagChoice, set_aside: BinaryIO) -> None:
        self.counts: Counter[str] = Counter()
        self.foreign_keys: Counter[str] = Counter()
        self._fields = fields
        self._origin = origin
        self._choice = choice
        self._set_aside = set_aside

    def choose(self, page: list[Point]) -> Iterator[_Row]:
        for point in page:
            foreign = [] if self._choice.overwrite else find_foreign_keys(point.payload, self._fields)
            text = read_field(point.payload, self._fields.text)
            if foreign:
                self.counts["foreign"] += 1
                self.foreign_keys.update(foreign)
            elif text is None:
                self.counts["empty"] += 1
            elif failed := find_failure(point.payload, self._fields, self._origin, text):
                self.counts["set_aside"] += 1
                if not self._choice.retry_failed:
                    note = {"point_id": point.id, "code": failed.get("code"), "reason": failed.get("reason")}
                    self._set_aside.write(msgspec.json.encode(note) + b"\n")
            else:
                self.counts["read"] += 1
                yield self._make_row(point, text)

    def choose_failed(self, page: list[Point]) -> Iterator[_Row]:
        """Those that `choose` has set aside."""
        for point in page:
            text = read_field(point.payload, self._fields.text)
            is_foreign = not self._choice.overwrite and find_foreign_keys(point.payload, self._fields)
            if text is None or is_foreign:
                continue
            if find_failure(point.payload, self._fields, self._origin, text):
                self.counts["set_aside"] -= 1
                self.counts["read"] += 1
                yield self._make_row(point, text)

    def _make_row(self, point: Point, text: str) -> _Row:
        title = read_field(point.payload, self._fields.title) if self._fields.title else None
        return to_text(point.id), title, text


def to_text(point_id: PointId) -> str:
    return str(point_id)


def to_point_id(text: str) -> PointId:
    """A UUID has hyphens, or is longer than any number."""
    return int(text) if text.isdigit() and len(text) <= 20 else text


def _write_rows(table: pq.ParquetWriter, rows: list[_Row]) -> None:
    if rows:
        columns = zip(*rows, strict=True)
        arrays = [pa.array(values, column.type) for values, column in zip(columns, _SCHEMA, strict=True)]
        table.write_batch(pa.record_batch(arrays, schema=_SCHEMA))


def _digest(
    store: PointStore, filters: Mapping[str, Any], fields: Fields, prompt: PromptSpec, choice: TagChoice
) -> str:
    """What is as it always was adds nothing, so that a directory of an earlier release goes on."""
    further = [
        *(["overwrite"] if choice.overwrite else []),
        *([] if fields.written == Fields().written else [fields.written]),
        *([] if choice.retag == "version" else [choice.retag]),
        *(["retry_failed"] if choice.retry_failed else []),
    ]
    what: list[Any] = [
        store.collection,
        store.place,
        dict(filters),
        {"text": fields.text, "title": fields.title},
        prompt.name,
        str(prompt.version),
        *further,
    ]
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()
