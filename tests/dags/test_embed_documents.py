"""Documents and their vectors: what is in Qdrant after a first run, a change, a new document and a failure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

SAMPLES = Path(__file__).resolve().parents[2] / "include" / "samples" / "documents" / "guides"

Embed = Callable[..., "FinishedRun"]


@pytest.fixture
def guides(tmp_path: Path) -> Path:
    return shutil.copytree(SAMPLES, tmp_path / "guides")


@pytest.fixture
def store(form_roots: Path) -> PointStore:
    return PointStore(collection="documents", name="embed_documents")


@pytest.fixture
def embed(run_dag: RunDag, store: PointStore, guides: Path, tmp_path: Path) -> Embed:
    """Run the DAG on the guides, into ``tmp_path/<output>``."""

    def run(output: str, **conf: Any) -> FinishedRun:
        return run_dag(
            "embed_documents",
            {
                "documents": f"{guides}/",
                "output_uri": f"file://{tmp_path}/{output}",
                "poll_interval": 0.1,
                **conf,
            },
        )

    return run


def read_chunks(store: PointStore) -> dict[Any, dict[str, Any]]:
    with store.open() as points:
        fields = ["name", "heading", "position", "text", "document"]
        return {point.id: point.payload for page in points.read_pages(fields) for point in page}


def test_documents_get_vectors_that_find_them_and_only_what_changes_is_paid_for(
    embed: Embed, store: PointStore, guides: Path, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    run = embed("first")
    assert run.state == "success", run.failures
    chunks = read_chunks(store)
    assert len(chunks) == 32
    assert {chunk["name"] for chunk in chunks.values()} == {path.name for path in guides.iterdir()}
    assert openai_server.books.billed == {"batch": 11, "realtime": 1}, (
        "three chunks in a request, and the queries"
    )
    with store.open() as points:
        assert points.dimensions() == 512
    found = (tmp_path / "first" / "neighbours.md").read_text()
    hits = [line for line in found.splitlines() if line.startswith("| 0.")]
    assert len(hits) == 9
    for hit, section in zip(hits[::3], ["Proofing in the cold", "Descaling", "Mould"], strict=True):
        assert section in hit
    assert "chunks, 97% have a nearest neighbour in the same document" in found

    tent = guides / "tent.md"
    tent.write_text(
        tent.read_text().replace("Drive the pegs in", "Hammer the pegs in") + "\n## New\n\nA new one.\n"
    )
    paragraphs = (guides / "sourdough.md").read_text().split("\n\n## ")
    (guides / "sourdough.md").write_text("\n\n## ".join([paragraphs[0], *paragraphs[:1:-1]]))
    # Others work in the same collection: a key beside ours, a point of their own about the same document.
    old = next(each for each, chunk in chunks.items() if chunk["name"] == "espresso-machine.md")
    theirs = {"document": next(iter(chunks.values()))["document"], "embedding": "mine"}
    with store.open() as points:
        points.set_payloads({old: {"embedding": {"model": "an older one"}, "mine": "kept"}})
        points.write([7], [theirs], [[0.5] * 512])
    run = embed("second")
    assert run.state == "success", run.failures
    with store.open() as points:
        assert points.fetch([7]) == {7: theirs}
        assert points.fetch([old])[old]["mine"] == "kept"
        points.delete([7])
    assert run.xcom("write")["written"] == 3
    assert run.xcom("write")["deleted"] == 2, (
        "the changed one's old version, and the first section of the bread"
    )
    assert openai_server.books.billed == {"batch": 11, "realtime": 1 + 2}
    now = read_chunks(store)
    assert len(now) == 32
    places = {
        chunk["heading"]: chunk["position"] for chunk in now.values() if chunk["name"] == "sourdough.md"
    }
    assert sorted(places.values()) == [0, 1, 2]
    assert places["Sourdough bread > Baking"] == 0, "what moved knows its place"
    assert any("Hammer" in chunk["text"] for chunk in now.values())


@pytest.mark.long
def test_a_new_document_goes_the_real_time_way_and_nothing_new_costs_nothing(
    embed: Embed, store: PointStore, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    new = tmp_path / "notes.txt"
    new.write_text("The key to the cellar hangs behind the clock.\n\nThe bins are emptied on Tuesdays.")
    run = embed("first", documents=str(new), queries=["Where is the cellar key?"])
    assert run.state == "success", run.failures
    assert openai_server.books.billed["realtime"] == 1 + 1, "the document, and the query"
    assert openai_server.batches() == []
    assert [chunk["text"] for chunk in read_chunks(store).values()] == [new.read_text()]
    new.write_text("")
    run = embed("second", documents=str(new), queries=[])
    assert run.state == "success", run.failures
    assert run.states[("prepare", -1)] == run.states[("embed.publish", -1)] == "skipped"
    assert read_chunks(store) == {}, "what its document no longer has is gone, though nothing was new"


@pytest.mark.long
def test_a_document_keeps_its_old_chunks_until_the_new_ones_are_there(
    embed: Embed, store: PointStore, guides: Path, openai_server: OpenAIServer
) -> None:
    tent = guides / "tent.md"
    assert embed("first", documents=str(tent), queries=[]).state == "success"
    before = read_chunks(store)
    tent.write_text(tent.read_text().replace("Drive the pegs in", "Hammer the pegs in"))
    openai_server.script(line=400, code="invalid_request_error", custom_id="row-0", times=None)
    run = embed("second", documents=str(tent), queries=[], mode="batch")
    assert run.state == "failed"
    assert "1 chunk got no vector, so 1 document kept what was there before" in run.errors("judge")
    assert read_chunks(store) == before


@pytest.mark.long
def test_a_chunk_without_a_vector_does_not_hold_back_those_it_was_sent_with(
    embed: Embed, store: PointStore, openai_server: OpenAIServer
) -> None:
    rule = openai_server.script(line="missing_vector", custom_id="row-0", times=None)
    run = embed("first", queries=[], mode="batch")
    assert run.state == "failed"
    assert "1 chunk got no vector, so 1 document kept" in run.errors("judge")
    assert len(read_chunks(store)) == 31
    openai_server.unscript(rule)
    run = embed("second", queries=[])
    assert run.state == "success", run.failures
    assert run.xcom("write")["written"] == 1
    assert len(read_chunks(store)) == 32


def test_with_another_input_in_the_prompt_all_chunks_are_embedded_anew_and_those_of_earlier_releases_stay(
    run_dag: RunDag,
    store: PointStore,
    guides: Path,
    openai_server: OpenAIServer,
    tmp_path: Path,
    copied_dag: Any,
) -> None:
    def embed_with(output: str, *changes: tuple[str, str]) -> int:
        dag = copied_dag("embed_documents", "embed_chunks.yaml", *changes)
        form = {"documents": f"{guides}/tent.md", "output_uri": f"file://{tmp_path}/{output}", "queries": []}
        run = run_dag(dag, form | {"poll_interval": 0.1})
        assert run.state == "success", run.failures
        return int(run.xcom("write")["written"])

    def read_embeddings() -> dict[Any, Any]:
        with store.open() as points:
            return {
                point.id: point.payload["embedding"]
                for page in points.read_pages(["embedding"])
                for point in page
            }

    chunks = embed_with("first")
    assert embed_with("second") == 0
    changed = ("{{ text }}", "search_document: {{ text }}")
    assert embed_with("third", changed) == chunks
    assert embed_with("fourth", changed) == 0
    assert sum(openai_server.books.good.values()) == 2 * -(-chunks // 3)
    former = {name: {"model": each["model"], "dimensions": 512} for name, each in read_embeddings().items()}
    with store.open() as points:
        points.set_payloads({name: {"embedding": each} for name, each in former.items()})
    assert embed_with("fifth", changed) == 0
    assert read_embeddings() == former
