"""What a company has in a folder: its formats, their pages, and a list of what could not be read."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore
from fixtures.office_files import make_archive, make_docx, make_email, make_pdf, make_pptx, make_xlsx

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


def fill(folder: Path, outside: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    bomb = make_archive({"[Content_Types].xml": "", "word/document.xml": ""}, claimed_bytes=257 * 2**20)
    files = {
        "guide.pdf": make_pdf("The valve drips in the cellar.", "The gauge shows two bar.", compressed=True),
        "deep/plain.PDF": make_pdf("The pump hums.", compressed=False),
        "letter.docx": make_docx("Dear tenant, the boiler is new."),
        "talk.pptx": make_pptx("Slide about pumps", "Slide about valves"),
        "spares.xlsx": make_xlsx(Valves=[["part", "price"], ["v1", 2.5]]),
        "mail.eml": make_email(plain="Please send a plumber."),
        "page.html": "<h1>Heating</h1><p>Küche</p><script>var stolen = 1</script>".encode(),
        "old.txt": "Die Küche ist groß \u2013 das Gerät läuft.".encode("cp1252"),
        "notes.md": b"# Notes\n\nThe key hangs behind the clock.\n",
        "scan.pdf": make_pdf(""),
        "=bomb.docx": bomb,
        "logo.png": b"\x89PNG\r\n\x1a\n",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    outside.write_text("key of the cellar")
    (folder / "link.txt").symlink_to(outside)
    (folder / "blank.txt").write_text(" \n")


def read_chunks(store: PointStore) -> dict[str, list[tuple[Any, str]]]:
    found: dict[str, list[tuple[Any, str]]] = {}
    with store.open() as points:
        for page in points.read_pages(["name", "page", "text", "heading"]):
            for _, payload in page:
                text = f"{payload['heading']} {payload['text']}".strip()
                found.setdefault(payload["name"], []).append((payload.get("page"), text))
    return {
        name: sorted(chunks, key=lambda chunk: (chunk[0] or 0, chunk[1])) for name, chunks in found.items()
    }


def test_every_format_is_embedded_by_pages_and_what_cannot_be_read_is_listed(
    run_dag: RunDag, form_roots: Path, tmp_path_factory: pytest.TempPathFactory, openai_server: OpenAIServer
) -> None:
    folder = form_roots / "documents"
    fill(folder, tmp_path_factory.mktemp("elsewhere") / "secret.txt")
    form = {"documents": f"{folder}/", "poll_interval": 0.1, "queries": [], "collection": "house"}
    run = run_dag("embed_documents", {**form, "output_uri": f"file://{form_roots}/out"})
    assert run.state == "success", run.failures

    chunks = read_chunks(PointStore(collection="house", name="embed_documents"))
    assert chunks["guide.pdf"] == [(1, "The valve drips in the cellar."), (2, "The gauge shows two bar.")]
    assert chunks["deep/plain.PDF"] == [(1, "The pump hums.")]
    assert chunks["letter.docx"] == [(None, "Dear tenant, the boiler is new.")]
    assert chunks["talk.pptx"] == [(1, "Slide about pumps"), (2, "Slide about valves")]
    assert chunks["spares.xlsx"][0][0] == 1
    assert "| v1 | 2.5 |" in chunks["spares.xlsx"][0][1]
    assert "Please send a plumber." in chunks["mail.eml"][0][1]
    assert chunks["page.html"] == [(None, "Heating Küche")]
    assert chunks["old.txt"] == [(None, "Die Küche ist groß \u2013 das Gerät läuft.")]
    assert chunks["notes.md"] == [(None, "Notes The key hangs behind the clock.")]

    with (form_roots / "out" / "unread.csv").open(newline="", encoding="utf-8-sig") as file:
        unread = {row["name"]: row["reason"] for row in csv.DictReader(file)}
    assert unread.keys() == {"scan.pdf", "'=bomb.docx", "logo.png", "link.txt", "blank.txt"}
    assert unread["blank.txt"] == "has no text"
    assert "only pictures of pages" in unread["scan.pdf"]
    assert "bytes unpacked" in unread["'=bomb.docx"]
    assert unread["logo.png"] == "is a picture"
    assert unread["link.txt"] == "is a link that leads outside"
    assert "key of the cellar" not in str(chunks)

    # A page that moved keeps its vector and learns its place.
    paid = openai_server.books.good.total()
    (folder / "guide.pdf").write_bytes(
        make_pdf("A new first page.", "The valve drips in the cellar.", "The gauge shows two bar.")
    )
    run = run_dag("embed_documents", {**form, "output_uri": f"file://{form_roots}/again"})
    assert run.state == "success", run.failures
    assert openai_server.books.good.total() == paid + 1
    chunks = read_chunks(PointStore(collection="house", name="embed_documents"))
    assert chunks["guide.pdf"] == [
        (1, "A new first page."),
        (2, "The valve drips in the cellar."),
        (3, "The gauge shows two bar."),
    ]
