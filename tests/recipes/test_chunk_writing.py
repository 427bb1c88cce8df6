"""Tidying after embedding: what documents no longer have goes, and a collection on this machine is read once."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import msgspec
import pytest

from airflow_openai_batch.recipes.job_folder import write_note
from airflow_openai_batch.recipes.qdrant.chunk_writing import write_chunks
from airflow_openai_batch.recipes.qdrant.documents import DOCUMENTS, NOTE, Document, DocumentReading
from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.prompts import read_prompt

DOCUMENTS_THERE = 200
CHUNKS_EACH = 4


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PointStore:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT", f"file://{tmp_path}")
    return PointStore(collection="documents", name="embed_documents")


def make_id(document: int, chunk: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{document}/{chunk}"))


def test_many_documents_without_news_are_looked_through_at_once(store: PointStore, tmp_path: Path) -> None:
    documents = [
        Document(uri=f"file:///{at}.md", name=str(at), ids=[make_id(at, n) for n in range(CHUNKS_EACH)])
        for at in range(DOCUMENTS_THERE)
    ]
    with store.open() as points:
        points.create(2)
        for at, document in enumerate(documents):
            ids = [*document.ids, make_id(at, 99)]  # a chunk more than the document has
            payload = {"document": document.uri, "position": 0, "embedding": {"model": "m"}}
            points.write(ids, [payload] * len(ids), [[0.5, 0.5]] * len(ids))
        points.write([7], [{"document": [documents[0].uri], "embedding": "somebody else's"}], [[0.5, 0.5]])
    folder = resolve_plain(str(tmp_path / "out"))
    folder.child(DOCUMENTS).write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in documents))
    write_note(folder.child(NOTE), DocumentReading(asked="", documents=200, unreadable=0, chunks=800, new=0))
    prompt = read_prompt({"name": "e", "model": "m", "endpoint": "embeddings", "input": "{{ text }}"})
    begun = time.process_time()
    done = write_chunks(folder, store, prompt)
    assert time.process_time() - begun < 2, (
        "of the processor; a look for each document took ten times as long"
    )
    assert (done.deleted, done.incomplete) == (DOCUMENTS_THERE, 0)
    with store.open() as points:
        places = {
            point.id: point.payload.get("position")
            for page in points.read_pages(["position"])
            for point in page
        }
    assert len(places) == DOCUMENTS_THERE * CHUNKS_EACH + 1
    assert [places[number] for number in documents[3].ids] == list(range(CHUNKS_EACH))
