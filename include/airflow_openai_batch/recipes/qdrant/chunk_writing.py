"""Vectors on their way into a collection, and chunks that their documents no longer have on their way out."""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.parquet as pq

from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.recipes.job_folder import read_note, write_note
from airflow_openai_batch.recipes.qdrant.documents import (
    DOCUMENTS,
    NOTE,
    Document,
    DocumentReading,
    describe_embedding,
)
from airflow_openai_batch.recipes.qdrant.qdrant_points import PAGE_POINTS
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.qdrant_points import Point, PointId, Points, PointStore
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

log = logging.getLogger(__name__)

TABLE = "embedded.parquet"
WRITTEN = "written.json"
MISSING = "without_vector.jsonl"
"""The chunks that got none, each with the reason."""
_LOOK_DOCUMENTS = 200
_LOOK_CHUNKS = 50_000
"""Documents and their chunks that one look at the collection is about."""
_LOOK_POINTS = 1_000
"""Of a page, without their texts."""
_KEPT = ["document", "name", "heading", "position", "text"]
_NAMED = ("document", "heading", "position", "answer_status", "answer_error")


class ChunksWritten(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the chunks of a run."""

    written: int
    failed: int
    """Without a vector; their documents keep the chunks that they had."""
    deleted: int
    incomplete: int
    """Documents of which a chunk is missing."""
    unfinished: int = 0
    """Not asked yet: beyond the sample, or of a shard that is not done."""
    cost_usd: float


def write_chunks(folder: Location, store: PointStore, prompt: PromptSpec) -> ChunksWritten:
    """Put each new chunk with its vector into the collection, then delete what the documents no longer have. May be
    repeated: the same chunks have the same ids.

    Chunks of a document are deleted only when all its present ones are there.

    :param folder: has the joined vectors as `TABLE`, unless nothing was new.
    :raises ConfigError: if the collection has vectors of another size.
    """
    reading = read_note(folder.child(NOTE), DocumentReading)
    if reading is None:
        raise JobError(f"{folder.child(NOTE).uri}: is not there. Clear the task that reads the documents.")
    counts: Counter[str] = Counter()
    cost_usd = 0.0
    with store.open() as points, folder.child(MISSING).open_write() as missing:
        for batch in _read_batches(folder.child(TABLE)) if reading.new else ():
            cost_usd += sum(row["answer_cost_usd"] or 0.0 for row in batch)
            good = [row for row in batch if row["answer_status"] == "ok"]
            _write(points, good, prompt, store)
            counts["written"] += len(good)
            for row in batch:
                if row["answer_status"] != "ok":
                    counts["unfinished" if row["answer_status"] == UNFINISHED else "failed"] += 1
                    missing.write(msgspec.json.encode({name: row[name] for name in _NAMED}) + b"\n")
        if points.exists():
            counts.update(_tidy_all(points, _read_documents(folder.child(DOCUMENTS))))
    done = ChunksWritten(
        written=counts["written"],
        failed=counts["failed"],
        deleted=counts["deleted"],
        incomplete=counts["incomplete"],
        unfinished=counts["unfinished"],
        cost_usd=cost_usd,
    )
    log.info(
        "%s: %s written, %s without a vector, %s deleted, for $%s.",
        store,
        number_of(done.written, "chunk"),
        f"{done.failed + done.unfinished:,}",
        f"{done.deleted:,}",
        f"{done.cost_usd:,.6f}",
    )
    write_note(folder.child(WRITTEN), done)
    return done


def check_failed(folder: Location, max_failed_fraction: float) -> None:
    """Judge what `write_chunks` has noted. Chunks that a sample left out, and those of shards that are not done, are
    not counted as failed: the report of the job judges these.

    :raises JobError: if more than this fraction of the chunks that were asked for has no vector.
    """
    done = read_note(folder.child(WRITTEN), ChunksWritten)
    if done is None:
        raise JobError(f"{folder.child(WRITTEN).uri}: is not there. Clear the task that writes the chunks.")
    if done.failed > max_failed_fraction * (done.written + done.failed):
        raise JobError(
            f"{number_of(done.failed, 'chunk')} got no vector, so {number_of(done.incomplete, 'document')} kept what "
            f"was there before: more than max_failed_fraction={max_failed_fraction:g} allows. {MISSING} says which and "
            "why; a new run asks for these alone."
        )


def _write(points: Points, rows: list[dict[str, Any]], prompt: PromptSpec, store: PointStore) -> None:
    if not rows:
        return
    size = len(rows[0]["embedding"])
    if not points.exists():
        points.create(size, keywords=["document"])
    elif (there := points.dimensions()) != size:
        raise ConfigError(
            f"{store}: has vectors of {there or 'another form than'} {size} numbers. Name another collection, "
            "or ask for the same dimensions in the prompt."
        )
    ids: list[PointId] = [row["chunk_id"] for row in rows]
    known = points.fetch(ids)  # others may have put more into the payload since, such as tags
    own = (
        {name: row[name] for name in _KEPT}
        | ({} if row.get("page") is None else {"page": row["page"]})
        | {"embedding": describe_embedding(prompt)}
        for row in rows
    )
    points.write(
        ids,
        [known.get(each, {}) | payload for each, payload in zip(ids, own, strict=True)],
        [row["embedding"] for row in rows],
    )


def _tidy_all(points: Points, documents: Iterable[Document]) -> Counter[str]:
    """Chunks that stayed get their place, those that are no longer in their document go. Points of others stay.

    Files on this machine have no index: each page of a look goes over the whole collection, which is in memory anyway.
    There it is one look at all, on large pages; a server is asked about some documents at a time.
    """
    counts: Counter[str] = Counter()
    for batch in [list(documents)] if points.is_local else _group(documents):
        counts.update(_tidy(points, batch))
    return counts


def _group(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    chunks = 0
    for document in documents:
        batch.append(document)
        chunks += len(document.ids)
        if len(batch) >= _LOOK_DOCUMENTS or chunks >= _LOOK_CHUNKS:
            yield batch
            batch, chunks = [], 0
    if batch:
        yield batch


def _tidy(points: Points, documents: list[Document]) -> Counter[str]:
    from airflow_openai_batch.recipes.qdrant.qdrant_filters import make_filter

    places = {each.uri: _find_places(each) for each in documents}
    there = dict.fromkeys(places, 0)
    gone: dict[str, list[PointId]] = {uri: [] for uri in places}
    where = None if points.is_local else make_filter({"document": list(places)})
    for page in points.read_pages(["document", "position", "page", "embedding"], where, points=_LOOK_POINTS):
        moved: dict[PointId, dict[str, Any]] = {}
        for point in page:
            uri = str(point.payload.get("document"))  # one of somebody else's may be a list that names it
            place = places.get(uri, {}).get(str(point.id))
            if place is not None:
                there[uri] += 1
                if not place.items() <= point.payload.items():
                    moved[point.id] = place
            elif uri in gone and is_chunk(point):
                gone[uri].append(point.id)
        points.set_payloads(moved)
    counts: Counter[str] = Counter()
    for uri, wanted in places.items():
        if there[uri] < len(wanted):
            counts["incomplete"] += 1
        else:
            points.delete(gone[uri])
            counts["deleted"] += len(gone[uri])
    return counts


def _find_places(document: Document) -> dict[str, dict[str, Any]]:
    """What the payload of each chunk says of its place."""
    pages = document.pages or [None] * len(document.ids)
    return {
        number: {"position": position} | ({} if page is None else {"page": page})
        for position, (number, page) in enumerate(zip(document.ids, pages, strict=True))
    }


def is_chunk(point: Point) -> bool:
    """Whether it was written here: by its id, which is made from document and content, and the note on its vector."""
    embedding = point.payload.get("embedding")
    try:
        is_ours = uuid.UUID(str(point.id)).version == 5
    except ValueError:
        return False
    return is_ours and isinstance(embedding, Mapping) and "model" in embedding


def _read_batches(table: Location) -> Iterator[list[dict[str, Any]]]:
    columns = ["chunk_id", *_KEPT, "page", "embedding", "answer_status", "answer_error", "answer_cost_usd"]
    with table.open_read() as file:
        for batch in pq.ParquetFile(file).iter_batches(PAGE_POINTS, columns=columns):
            yield batch.to_pylist()


def _read_documents(place: Location) -> Iterator[Document]:
    decode = msgspec.json.Decoder(Document).decode
    with place.open_read() as file:
        for line in file:
            yield decode(line)
