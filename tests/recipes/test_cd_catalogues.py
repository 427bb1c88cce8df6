"""Candidates from a catalogue: a file of records, or a server behind a connection of type HTTP."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.cds.cd_catalogues import CatalogueError, find_candidates, open_catalogue
from airflow_openai_batch.recipes.cds.cd_covers import Cover

READ = Cover(title="Harbour Lights", artist="The Paper Lanterns", year=1994)
SAMPLE = Path(__file__).resolve().parents[2] / "include" / "samples" / "cd_covers" / "catalogue.jsonl"
RELEASES = {
    "releases": [
        {
            "id": "mb-1",
            "title": "Harbour Lights",
            "date": "1994-05-02",
            "artist-credit": [{"name": "The Paper Lanterns"}],
            "label-info": [{"catalog-number": "TW 1042", "label": {"name": "Tidewater"}}],
        },
        {"id": "mb-2", "title": "Something Else", "artist-credit": [{"name": "Others"}]},
    ]
}
EXTRA = {
    "path": "/ws/2/release",
    "query": {"query": "release:({title}) AND artist:({artist})", "label": "{label}", "fmt": "json"},
    "items": "releases",
    "fields": {
        "artist": "artist-credit.0.name",
        "year": "date",
        "label": "label-info.0.label.name",
        "catalogue_number": "label-info.0.catalog-number",
    },
    "requests_per_second": 1000,
    "headers": {"User-Agent": "test"},
}


class Library:
    """A catalogue's server: what it answers in turn, and what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                url = urlsplit(handler.path)
                self.asked.append((url.path, parse_qs(url.query), dict(handler.headers)))
                status, body = self.answers.pop(0) if self.answers else (200, RELEASES)
                handler.send_response(status)
                handler.send_header("Retry-After", "0")
                handler.end_headers()
                handler.wfile.write(json.dumps(body).encode())

            def log_message(handler, *_: object) -> None:
                return None

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def library() -> Iterator[Library]:
    found = Library()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def connect(define_connection: Callable[..., str], library: Library) -> Callable[..., str]:
    """Define the connection ``library``, which leads to the server."""

    def define(**extra: Any) -> str:
        return define_connection(
            "library",
            conn_type="http",
            host="127.0.0.1",
            schema="http",
            port=library.port,
            password="hush",
            extra={**EXTRA, **extra},
        )

    return define


def search(conn_id: str, read: Cover = READ) -> list[Any]:
    with open_catalogue(conn_id, str(SAMPLE)) as catalogue:
        return find_candidates(catalogue, read)


def test_the_file_offers_the_best_first_and_nothing_for_nothing() -> None:
    found = search("")
    assert [each.id for each in found][:2] == ["lib-00017", "lib-00018"]
    assert found[0].score == 1
    assert search("", Cover(year=1994)) == []
    assert search("", Cover(title="Xylophone Requiem")) == []


def test_a_server_is_asked_as_the_connection_says(library: Library, connect: Callable[..., str]) -> None:
    (found,) = search(connect())
    assert (found.id, found.score, str(found.cover)) == (
        "mb-1",
        1.0,
        "Harbour Lights, The Paper Lanterns, 1994, Tidewater, TW 1042",
    )
    path, query, headers = library.asked[0]
    assert path == "/ws/2/release"
    assert query == {"query": ["release:(Harbour Lights) AND artist:(The Paper Lanterns)"], "fmt": ["json"]}
    assert headers["User-Agent"] == "test"
    assert headers["Authorization"] == "Bearer hush"


def test_a_busy_server_is_asked_again_and_a_broken_one_is_named_without_its_answer(
    library: Library, connect: Callable[..., str]
) -> None:
    conn_id = connect()
    library.answers = [(503, {}), (429, {})]
    assert len(search(conn_id)) == 1
    library.answers = [(500, {"secret": "x"})] * 9
    with pytest.raises(CatalogueError, match=r"answered 500 4 times") as caught:
        search(conn_id)
    assert "secret" not in str(caught.value)
    library.answers = [(200, {"other": []})]
    with pytest.raises(CatalogueError, match="no list under 'releases'"):
        search(conn_id)
    library.answers = [(403, {})]
    with pytest.raises(ConfigError, match="answered 403"):
        search(conn_id)


def test_an_extra_that_cannot_be_used_is_named(connect: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="'querry' in its extra is not known"):
        search(connect(querry={}))
