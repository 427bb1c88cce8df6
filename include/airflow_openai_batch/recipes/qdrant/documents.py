"""Documents below a prefix, cut into chunks; those that have no vector yet go into a table to be embedded."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError, EmptyInputError, JobError
from airflow_openai_batch.operators.report import make_asset_uri
from airflow_openai_batch.recipes.job_folder import read_note, write_note
from airflow_openai_batch.recipes.qdrant.document_chunks import DocumentChunk, cut_document
from airflow_openai_batch.storage.sources import SourceFile, explained, version_of
from airflow_openai_batch.tables.reading.read_objects import list_objects, open_objects
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.qdrant_points import PointId, Points, PointStore
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

log = logging.getLogger(__name__)

CHUNKS = "chunks.parquet"
DOCUMENTS = "documents.jsonl"
NOTE = "documents.json"

_SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("document", pa.string()),
        ("name", pa.string()),
        ("heading", pa.string()),
        ("position", pa.int64()),
        ("text", pa.string()),
    ]
)
_NAMESPACE = uuid.UUID("8a1d9b5e-8f0c-5d0e-9d43-5a8f4d1f6c70")
_BATCH_ROWS = 256


class DocumentReading(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for a run; its file says that the files beside it are complete."""

    asked: str
    """Digest of the question: a run goes on with its own reading only."""
    documents: int
    unreadable: int
    """That are no UTF-8, too large, or gone; their chunks stay as they are."""
    chunks: int
    new: int
    """Chunks without a vector of the prompt's model, which stand in the table."""
    restarted_by: str = ""
    """The run that read anew what an earlier one had read into this directory."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``documents.jsonl``."""

    uri: str
    name: str
    ids: list[str]
    """Of all its chunks, in their order."""


class _Row(NamedTuple):
    """A chunk, in the order of the schema."""

    chunk_id: str
    document: str
    name: str
    heading: str
    position: int
    text: str


def read_documents(
    store: PointStore,
    folder: Location,
    prompt: PromptSpec,
    *,
    source: str,
    max_chars: int,
    restart_of: str | None = None,
) -> DocumentReading:
    """Cut every document and write the chunks that have no vector yet into a table; one document at a time.

    Done once per directory. A chunk is known by document and content: one that only moved within its document is not
    embedded again.

    :param source: a prefix that ends in ``/``, or one document.
    :param restart_of: the id of a run that reads anew, once, what was read into the directory before it.
    :raises EmptyInputError: if there is no document.
    :raises JobError: if the directory has the chunks of another question.
    """
    if not 100 <= max_chars <= 20_000:  # 8,191 tokens are the models' limit
        raise ConfigError(f"max_chars={max_chars:,}: must be 100 to 20,000 characters a chunk.")
    asked = hashlib.sha256(
        msgspec.json.encode([store.collection, store.place, source, max_chars, prompt.sha256])
    ).hexdigest()
    done = read_note(folder.child(NOTE), DocumentReading)
    if done is not None and restart_of in (None, done.restarted_by):
        if done.asked != asked:
            raise JobError(
                f"{folder.uri}: was read from another source, for another collection or with another prompt. Choose "
                "another output_uri, or set on_existing=restart to read anew."
            )
        log.info("Read before, and used as it is: %s.", describe_reading(done))
        return done
    prefix, files = find_documents(source)
    counts: Counter[str] = Counter()
    with (
        store.open() as points,
        folder.child(CHUNKS).open_write() as chunk_file,
        pq.ParquetWriter(chunk_file, _SCHEMA) as table,
        folder.child(DOCUMENTS).open_write() as document_file,
    ):
        known = _Known(points, prompt)
        rows: list[_Row] = []
        for uri, name, text in _read_texts(prefix, files):
            counts["documents"] += 1
            if text is None:
                counts["unreadable"] += 1
                continue
            chunks = list(_name_chunks(uri, name, cut_document(text, max_chars=max_chars)))
            document = Document(uri=uri, name=name, ids=[row.chunk_id for row in chunks])
            document_file.write(msgspec.json.encode(document) + b"\n")
            counts["chunks"] += len(chunks)
            rows += known.leave_out(chunks)
            if len(rows) >= _BATCH_ROWS:
                counts["new"] += _flush(rows, table)
        counts["new"] += _flush(rows, table)
    found = DocumentReading(
        asked=asked,
        documents=counts["documents"],
        unreadable=counts["unreadable"],
        chunks=counts["chunks"],
        new=counts["new"],
        restarted_by=restart_of or "",
    )
    write_note(folder.child(NOTE), found)
    log.info("%s: %s.", source, describe_reading(found))
    return found


def describe_reading(found: DocumentReading) -> str:
    unreadable = f" ({found.unreadable:,} of them cannot be read)" if found.unreadable else ""
    return (
        f"{number_of(found.documents, 'document')}{unreadable}, {number_of(found.chunks, 'chunk')}, "
        f"{found.new:,} of them new or changed"
    )


def find_documents(source: str) -> tuple[Location, list[SourceFile]]:
    """The prefix and the objects below it, hidden ones left out; or one object and where it lies.

    :raises EmptyInputError: if there is none.
    """
    uri = source.strip()
    if not uri:
        raise ConfigError("documents is empty: name a prefix that ends in /, or one document.")
    place = open_place(uri, "input", find_giver_of(uri, "documents"))
    files: list[SourceFile]
    with explained(uri):
        info = None if uri.endswith("/") else place.fs.info(place.path)
    if info is None or info.get("type") == "directory":
        files = list_objects(place)
    else:
        files = [SourceFile(place, int(info.get("size") or 0), version_of(info), None)]
        place = place.at(place.path.rpartition("/")[0], place.uri.rpartition("/")[0])
    if not files:
        raise EmptyInputError(f"{uri}: there is no document below it.")
    return place, files


def make_chunk_id(document: str, chunk: DocumentChunk, occurrence: int) -> str:
    """The same for the same content in the same document; ``occurrence`` tells equal chunks apart."""
    content = hashlib.sha256(f"{chunk.heading}\0{chunk.text}".encode()).hexdigest()
    return str(uuid.uuid5(_NAMESPACE, f"{document}\0{content}\0{occurrence}"))


def describe_embedding(prompt: PromptSpec) -> dict[str, Any]:
    """What the payload says of a vector: vectors of another model cannot be compared with it."""
    return {"model": prompt.model, "dimensions": prompt.parameters.get("dimensions")}


class _Known:
    """Which chunks have their vector."""

    def __init__(self, points: Points, prompt: PromptSpec) -> None:
        self._points = points if points.exists() else None
        self._embedding = describe_embedding(prompt)

    def leave_out(self, chunks: list[_Row]) -> list[_Row]:
        if self._points is None or not chunks:
            return chunks
        ids: list[PointId] = [row.chunk_id for row in chunks]
        there = self._points.fetch(ids, ["embedding"])
        return [row for row in chunks if there.get(row.chunk_id, {}).get("embedding") != self._embedding]


def _name_chunks(document: str, name: str, chunks: Iterator[DocumentChunk]) -> Iterator[_Row]:
    seen: Counter[DocumentChunk] = Counter()
    for position, chunk in enumerate(chunks):
        chunk_id = make_chunk_id(document, chunk, seen[chunk])
        seen[chunk] += 1
        yield _Row(chunk_id, document, name, chunk.heading, position, chunk.text)


def _read_texts(prefix: Location, files: list[SourceFile]) -> Iterator[tuple[str, str, str | None]]:
    """URI, name and text of each; None where it cannot be read, with a line in the log. An empty one is one."""
    for block in open_objects(prefix, files, with_text=True).blocks:
        for at, row in enumerate(block.batch.to_pylist()):
            problem = block.problems.get(at)
            if problem:
                log.warning("%s: %s; its chunks stay as they are.", row["uri"], problem)
            yield make_asset_uri(row["uri"]), row["name"], None if problem else row["text"] or ""


def _flush(rows: list[_Row], table: pq.ParquetWriter) -> int:
    if not rows:
        return 0
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, column.type) for values, column in zip(columns, _SCHEMA, strict=True)]
    table.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
    written = len(rows)
    rows.clear()
    return written
