"""A catalogue that wants tokens, as OCLC's does: fetched with id and secret, renewed in time, told to nobody."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.cds.cd_catalogues import CatalogueError, find_candidates, open_catalogue
from airflow_openai_batch.recipes.cds.cd_covers import Cover

READ = Cover(title="Harbour Lights", artist="The Paper Lanterns")
SECRET = "a+secret/of=the client%2f"
SCOPE = "wcapi:view_bib WorldCatMetadataAPI"


class TokenLibrary:
    """A catalogue, and beside it on another port what gives its tokens."""

    def __init__(self) -> None:
        self.lives_s: Any = 1_200
        self.granted: list[str] = []
        self.refused = 0
        self.forms: list[dict[str, list[str]]] = []
        self.token_answers: list[tuple[int, Any]] = []
        self.seen_headers: list[str] = []
        self.revoked: set[str] = set()
        self.ends_at: dict[str, float] = {}
        self.servers = [
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), each)
            for each in (self._make_catalogue(), self._make_tokens())
        ]
        self.port, self.token_port = (each.server_address[1] for each in self.servers)

    def _make_catalogue(self) -> Any:
        class Catalogue(Quiet):
            def do_GET(handler) -> None:
                said = handler.headers.get("Authorization", "")
                self.seen_headers.append(said)
                token = said.removeprefix("Bearer ")
                if token in self.revoked or self.ends_at.get(token, 0) <= time.monotonic():
                    self.refused += 1
                    handler.reply(401, {"message": said})
                    return
                record = {"id": "oclc-1", "title": READ.title, "artist": READ.artist}
                handler.reply(200, {"results": [record]})

        return Catalogue

    def _make_tokens(self) -> Any:
        class Tokens(Quiet):
            def do_POST(handler) -> None:
                form = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
                self.forms.append(parse_qs(form))
                basic = base64.b64encode(f"client-id:{SECRET}".encode()).decode()
                if handler.headers["Authorization"] != f"Basic {basic}" or urlsplit(handler.path).query:
                    handler.reply(401, {"error": "invalid_client", "error_description": basic})
                elif self.token_answers:
                    handler.reply(*self.token_answers.pop(0))
                else:
                    token = f"tk_{len(self.granted)}_opaque-and-long"
                    self.granted.append(token)
                    self.ends_at[token] = time.monotonic() + float(self.lives_s or 1_000)
                    lives = {} if self.lives_s is None else {"expires_in": self.lives_s}
                    handler.reply(200, {"access_token": token, "token_type": "bearer", **lives})

        return Tokens


class Quiet(http.server.BaseHTTPRequestHandler):
    def reply(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def library() -> Iterator[TokenLibrary]:
    found = TokenLibrary()
    threads = [threading.Thread(target=each.serve_forever, args=(0.05,)) for each in found.servers]
    for each in threads:
        each.start()
    yield found
    for server, thread in zip(found.servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def connect(define_connection: Callable[..., str], library: TokenLibrary) -> Callable[..., str]:
    def define(*, password: str = SECRET, host: str = "127.0.0.1", schema: str = "http", **extra: Any) -> str:
        url = f"http://127.0.0.1:{library.token_port}/token"
        found = {"token_url": url, "scope": SCOPE, "requests_per_second": 1000, **extra}
        return define_connection(
            "oclc",
            conn_type="http",
            host=host,
            schema=schema,
            port=library.port,
            login="client-id",
            password=password,
            extra=found,
        )

    return define


def search(conn_id: str, times: int = 1, between_s: float = 0) -> list[str]:
    with open_catalogue(conn_id, "") as catalogue:
        found = []
        for number in range(times):
            time.sleep(between_s if number else 0)
            found += [each.id for each in find_candidates(catalogue, READ)]
        return found


def test_one_token_serves_many_searches(library: TokenLibrary, connect: Callable[..., str]) -> None:
    assert search(connect(), times=3) == ["oclc-1"] * 3
    assert library.forms == [{"grant_type": ["client_credentials"], "scope": [SCOPE]}]
    assert library.seen_headers == [f"Bearer {library.granted[0]}"] * 3


@pytest.mark.parametrize("lives_s", [1, "1"])
def test_a_token_is_renewed_before_it_ends(
    library: TokenLibrary, connect: Callable[..., str], lives_s: Any
) -> None:
    library.lives_s = lives_s
    assert search(connect(), times=3, between_s=0.5) == ["oclc-1"] * 3
    assert (len(library.granted), library.refused) == (2, 0)


def test_a_token_that_is_refused_is_renewed_once(library: TokenLibrary, connect: Callable[..., str]) -> None:
    library.lives_s = None
    with open_catalogue(connect(), "") as catalogue:
        assert find_candidates(catalogue, READ)
        library.revoked.update(library.granted)
        assert find_candidates(catalogue, READ)
        assert (len(library.granted), library.refused) == (2, 1)
        library.lives_s = -1  # whatever it gives is refused
        library.revoked.update(library.granted)
        with pytest.raises(ConfigError, match="answered 401"):
            find_candidates(catalogue, READ)
    assert len(library.granted) == 3


def test_a_busy_giver_of_tokens_is_asked_again(library: TokenLibrary, connect: Callable[..., str]) -> None:
    library.token_answers = [(503, b"<html>")]
    assert search(connect()) == ["oclc-1"]
    assert len(library.forms) == 2


@pytest.mark.long
def test_a_giver_that_stays_busy_is_named(library: TokenLibrary, connect: Callable[..., str]) -> None:
    library.token_answers = [(503, b"")] * 9
    with pytest.raises(CatalogueError, match=r"/token answered 503"):
        search(connect())


@pytest.mark.parametrize("answer", [(400, {"error": "invalid_scope"}), (302, b""), (403, {"error": SECRET})])
def test_a_refusal_names_the_connection_and_no_secret(
    library: TokenLibrary,
    connect: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    answer: tuple[int, Any],
) -> None:
    caplog.set_level(logging.DEBUG)
    library.token_answers = [answer]
    with pytest.raises(ConfigError) as caught:
        search(connect())
    assert f"gives no token (answered {answer[0]}" in str(caught.value)
    assert "'oclc'" in str(caught.value)
    assert ("invalid_scope" in str(caught.value)) == (answer[0] == 400)
    assert len(library.forms) == 1, "nothing is sent after a redirect, or twice"
    with pytest.raises(ConfigError, match="invalid_client"):
        search(connect(password="another-secret"))
    for hidden in (SECRET, "another-secret", base64.b64encode(f"client-id:{SECRET}".encode()).decode()):
        assert hidden not in str(caught.value) + caplog.text


def test_tokens_are_in_no_log_and_no_representation(
    library: TokenLibrary, connect: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with open_catalogue(connect(), "") as catalogue:
        find_candidates(catalogue, READ)
        shown = caplog.text + repr(catalogue)
    assert library.granted[0] not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"token_url": "ftp://x/token"}, "token_url in its extra must be an address with https"),
        ({"token_url": "https://me:hush@x/token"}, "without a password"),
        ({"schema": "https", "token_url": "http://127.0.0.1/token"}, "must be an address with https://"),
        ({"password": ""}, "secret as password"),
        ({"path": "@127.0.0.2/search"}, "must begin with a slash"),
    ],
)
def test_what_would_send_the_secret_astray_is_refused(
    library: TokenLibrary, connect: Callable[..., str], wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        search(connect(**wrong))
    assert "hush" not in str(caught.value)
    assert library.forms == []
