"""Transcripts in Qdrant: which of them want tags, read into a table that the prompt is applied to."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.recipes.job_folder import read_note, write_note
from airflow_openai_batch.recipes.qdrant.qdrant_filters import leave_out, make_filter
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.qdrant_points import Point, PointId, PointStore
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

log = logging.getLogger(__name__)

ROWS = "transcripts.parquet"
NOTE = "transcripts.json"
TAGGING = "tagging"
"""The key of the payload that says by which prompt a point was tagged."""
VALUES = ("tags", "summary")
"""The keys of what was answered."""

_SCHEMA = pa.schema([("point_id", pa.string()), ("title", pa.string()), ("text", pa.string())])


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of the payload; ``a.b`` looks into an object."""

    text: str = "text"
    title: str = "title"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ConfigError("text_field is empty: name the key of the payload that has the transcript.")
        for name in self.names:
            if name.partition(".")[0] in (*VALUES, TAGGING):
                raise ConfigError(
                    f"{name!r}: is where answers are written ({', '.join((*VALUES, TAGGING))}), so it cannot hold the "
                    "transcript or its title, too. Name another key."
                )

    @property
    def names(self) -> list[str]:
        return [name for name in (self.text, self.title) if name]


class TranscriptReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for a run; its file says that the table beside it is complete."""

    asked: str
    """Digest of collection, filters, fields and prompt version: a run goes on with its own reading only."""
    matching: int
    """Points that the filters let through."""
    tagged: int
    """Of these, tagged by this version of the prompt or a newer one."""
    empty: int
    """Untagged, but there is no text to ask about; each run passes them over."""
    read: int
    """The others, which stand in the table."""
    foreign: int = 0
    """Left out, since they have tags or a summary that this DAG did not write."""
    restarted_by: str = ""
    """The run that read anew what an earlier one had read into this directory."""


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
    overwrite: bool = False,
    restart_of: str | None = None,
) -> TranscriptReading:
    """Write the transcripts that match and are untagged, or tagged by an older prompt, into a table; a page at a time.

    Done once per directory: whoever clears the task later, when points have their tags, gets the same rows.

    :param overwrite: ask also about points with tags or a summary that others wrote, see `is_foreign`.
    :param restart_of: the id of a run that reads anew, once, what was read into the directory before it.
    :raises JobError: if the directory has the rows of another question.
    """
    asked = _digest(store, filters, fields, prompt, overwrite)
    done = read_note(folder.child(NOTE), TranscriptReading)
    if done is not None and restart_of in (None, done.restarted_by):
        if done.asked != asked:
            raise JobError(
                f"{folder.uri}: was read with another collection, other filters or another prompt version. Choose "
                "another output_uri, or set on_existing=restart to read anew."
            )
        log.info("Read before, and used as it is: %s.", describe_reading(done))
        return done
    where = make_filter(filters)
    with store.open() as points:
        matching = points.count(where)
        wanted = leave_out(where, _tagged_by(prompt))
        with folder.child(ROWS).open_write() as file, pq.ParquetWriter(file, _SCHEMA) as table:
            untagged = read = foreign = 0
            for page in points.read_pages([*fields.names, *VALUES, TAGGING], wanted):
                untagged += len(page)
                kept = [point for point in page if overwrite or not is_foreign(point.payload)]
                foreign += len(page) - len(kept)
                rows = [row for row in (_make_row(point, fields) for point in kept) if row[-1] is not None]
                if rows:
                    table.write_batch(_make_batch(rows))
                    read += len(rows)
    found = TranscriptReading(
        asked=asked,
        matching=matching,
        tagged=max(0, matching - untagged),
        empty=untagged - read - foreign,
        read=read,
        foreign=foreign,
        restarted_by=restart_of or "",
    )
    write_note(folder.child(NOTE), found)
    log.info("%s: %s.", store, describe_reading(found))
    return found


def describe_reading(found: TranscriptReading) -> str:
    empty = f"{found.empty:,} without a text, " if found.empty else ""
    if found.foreign:
        empty += f"{found.foreign:,} left alone with tags or a summary of their own (set overwrite to replace them), "
    return (
        f"{found.matching:,} match, {found.tagged:,} of them have tags by this prompt version or a newer one, "
        f"{empty}{found.read:,} to tag"
    )


def is_foreign(payload: Mapping[str, Any]) -> bool:
    """Whether a point has values under our keys that others wrote: without our mark beside them, or not those any more
    that the mark was made for."""
    values = [payload.get(name) for name in VALUES]
    mark = payload.get(TAGGING)
    if not (isinstance(mark, Mapping) and {"prompt", "prompt_version"} <= mark.keys()):
        return any(values) or bool(mark)
    seen = mark.get("values_digest")  # earlier releases wrote none
    return seen is not None and any(values) and seen != digest_values(*values)


def digest_values(tags: Any, summary: Any) -> str:
    """Of what is written into a point, so that a change of somebody else's shows."""
    return hashlib.sha256(msgspec.json.encode([tags, summary], order="sorted")).hexdigest()[:16]


def read_version(version: object) -> int | float | str:
    """A prompt's version as it goes into payloads: a number where it is one, so that older ones can be told."""
    text = str(version).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def read_field(payload: Mapping[str, Any], name: str) -> str | None:
    """Text at a key of the payload; pieces are joined by lines. None where there is none."""
    found: Any = payload
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, list):
        found = "\n".join(piece for piece in found if isinstance(piece, str))
    return found if isinstance(found, str) and found.strip() else None


def to_text(point_id: PointId) -> str:
    return str(point_id)


def to_point_id(text: str) -> PointId:
    """A UUID has hyphens, or is longer than any number."""
    return int(text) if text.isdigit() and len(text) <= 20 else text


def _make_batch(rows: list[tuple[str, str | None, str | None]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, column.type) for values, column in zip(columns, _SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=_SCHEMA)


def _make_row(point: Point, fields: Fields) -> tuple[str, str | None, str | None]:
    title = read_field(point.payload, fields.title) if fields.title else None
    return to_text(point.id), title, read_field(point.payload, fields.text)


def _tagged_by(prompt: PromptSpec) -> list[Any]:
    """Conditions on what needs no tags again."""
    from qdrant_client import models

    version = read_version(prompt.version)
    key = f"{TAGGING}.prompt_version"
    return [
        models.FieldCondition(key=f"{TAGGING}.prompt", match=models.MatchValue(value=prompt.name)),
        models.FieldCondition(key=key, match=models.MatchValue(value=version))
        if isinstance(version, str)
        else models.FieldCondition(key=key, range=models.Range(gte=version)),
    ]


def _digest(
    store: PointStore, filters: Mapping[str, Any], fields: Fields, prompt: PromptSpec, overwrite: bool
) -> str:
    what: list[Any] = [
        store.collection,
        store.place,
        dict(filters),
        fields,
        prompt.name,
        str(prompt.version),
        *(["overwrite"] if overwrite else []),
    ]
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()
