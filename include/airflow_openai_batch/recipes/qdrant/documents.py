"""Documents below a prefix, cut into chunks; those that have no vector yet go into a table to be embedded."""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.job_folder import FolderReading, find_reading, write_note
from airflow_openai_batch.recipes.qdrant.document_chunks import DocumentChunk, cut_pages
from airflow_openai_batch.recipes.qdrant.document_files import UnreadList, find_documents, read_files
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.qdrant_points import PointId, Points, PointStore
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

log = logging.getLogger(__name__)

CHUNKS = "chunks.parquet"
DOCUMENTS = "documents.jsonl"
NOTE = "documents.json"
UNREAD = "unread.csv"
"""Documents that could not be read, each with the reason."""

_SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("document", pa.string()),
        ("name", pa.string()),
        ("heading", pa.string()),
        ("position", pa.int64()),
        ("page", pa.int64()),
        ("text", pa.string()),
    ]
)
_NAMESPACE = uuid.UUID("8a1d9b5e-8f0c-5d0e-9d43-5a8f4d1f6c70")
_BATCH_ROWS = 256
_DIGITS = 16


class DocumentReading(FolderReading, frozen=True, kw_only=True):
    """Of the documents below a prefix."""

    documents: int
    unreadable: int
    """`UNREAD` names them; their chunks stay as they are."""
    empty: int = 0
    """Without a word of text; `UNREAD` names them, too, and their chunks go."""
    chunks: int
    new: int
    """Chunks without a vector of the prompt's model and input, which stand in the table."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``documents.jsonl``."""

    uri: str
    name: str
    ids: list[str]
    """Of all its chunks, in their order."""
    pages: list[int | None] = []
    """Of each, where the document has any."""


class _Row(NamedTuple):
    """A chunk, in the order of the schema."""

    chunk_id: str
    document: str
    name: str
    heading: str
    position: int
    page: int | None
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
    done = find_reading(
        folder.child(NOTE),
        DocumentReading,
        asked=asked,
        restart_of=restart_of,
        describe=describe_reading,
        what="another source, for another collection or with another prompt",
    )
    if done is not None:
        return done
    prefix, files = find_documents(source)
    counts: Counter[str] = Counter()
    unread = UnreadList()
    with (
        store.open() as points,
        folder.child(CHUNKS).open_write() as chunk_file,
        pq.ParquetWriter(chunk_file, _SCHEMA) as table,
        folder.child(DOCUMENTS).open_write() as document_file,
    ):
        known = _Known(points, prompt)
        rows: list[_Row] = []
        for file in read_files(prefix, files):
            counts["documents"] += 1
            if file.problem:
                counts["unreadable"] += 1
                unread.add(file)
                continue
            chunks = list(
                _name_chunks(
                    file.uri,
                    file.name,
                    cut_pages(((page.number, page.text) for page in file.pages), max_chars=max_chars),
                )
            )
            if not chunks:
                counts["empty"] += 1
                unread.add(file._replace(problem="has no text"))
            document = Document(
                uri=file.uri,
                name=file.name,
                ids=[row.chunk_id for row in chunks],
                pages=[row.page for row in chunks] if any(page.number for page in file.pages) else [],
            )
            document_file.write(msgspec.json.encode(document) + b"\n")
            counts["chunks"] += len(chunks)
            rows += known.leave_out(chunks)
            if len(rows) >= _BATCH_ROWS:
                counts["new"] += _flush(rows, table)
        counts["new"] += _flush(rows, table)
    unread.write(folder.child(UNREAD))
    found = DocumentReading(
        asked=asked,
        documents=counts["documents"],
        unreadable=counts["unreadable"],
        empty=counts["empty"],
        chunks=counts["chunks"],
        new=counts["new"],
        restarted_by=restart_of or "",
    )
    write_note(folder.child(NOTE), found)
    log.info("%s: %s.", source, describe_reading(found))
    return found


def describe_reading(found: DocumentReading) -> str:
    kinds = {"cannot be read": found.unreadable, "without text": found.empty}
    left_out = ", ".join(f"{count:,} {what}" for what, count in kinds.items() if count)
    named = f" ({left_out}: see {UNREAD})" if left_out else ""
    return (
        f"{number_of(found.documents, 'document')}{named}, {number_of(found.chunks, 'chunk')}, "
        f"{found.new:,} of them new or changed"
    )


def make_chunk_id(document: str, chunk: DocumentChunk, occurrence: int) -> str:
    """The same for the same content in the same document; ``occurrence`` tells equal chunks apart."""
    content = hashlib.sha256(f"{chunk.heading}\0{chunk.text}".encode()).hexdigest()
    return str(uuid.uuid5(_NAMESPACE, f"{document}\0{content}\0{occurrence}"))


def describe_embedding(prompt: PromptSpec) -> dict[str, Any]:
    """What the payload says of a vector: those of another model, or of more or less than the chunk's text (the prompt's
    ``input``), cannot be compared with it."""
    return {
        "model": prompt.model,
        "dimensions": prompt.parameters.get("dimensions"),
        "input": hashlib.sha256((prompt.input or "").encode()).hexdigest()[:_DIGITS],
    }


def is_embedded(chunk: Mapping[str, Any], embedding: Mapping[str, Any]) -> bool:
    """Whether the payload of a chunk says that its vector is such a one. Earlier releases did not note the input."""
    known = chunk.get("embedding")
    return isinstance(known, Mapping) and {"input": embedding["input"], **known} == embedding


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
        return [row for row in chunks if not is_embedded(there.get(row.chunk_id, {}), self._embedding)]


def _name_chunks(
    document: str, name: str, chunks: Iterator[tuple[int | None, DocumentChunk]]
) -> Iterator[_Row]:
    seen: Counter[DocumentChunk] = Counter()
    for position, (page, chunk) in enumerate(chunks):
        chunk_id = make_chunk_id(document, chunk, seen[chunk])
        seen[chunk] += 1
        yield _Row(chunk_id, document, name, chunk.heading, position, page, chunk.text)


def _flush(rows: list[_Row], table: pq.ParquetWriter) -> int:
    if not rows:
        return 0
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, column.type) for values, column in zip(columns, _SCHEMA, strict=True)]
    table.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
    written = len(rows)
    rows.clear()
    return written
