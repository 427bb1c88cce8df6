"""What servers, gateways and proxies answer in the API's place is refused in words that say what to change."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from airflow_openai_batch.errors import (
    AnswerError,
    ConfigError,
    FatalAccountError,
    NotFoundError,
    RemoteError,
    RequestRefusedError,
    TransientError,
)
from airflow_openai_batch.openai_api.async_client import AsyncBatchClient
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.openai_api.redirects import guard_redirects
from fixtures.gate import Gate, make_certificate, open_gate

KEY = "sk-very-secret"
BATCH = {"id": "batch_1", "status": "in_progress", "created_at": 1_790_000_000, "input_file_id": "file-1"}
PAGE = "<!doctype html><html><body>Please log in</body></html>"

UPLOAD, CREATE = "POST /v1/files", "POST /v1/batches"
FETCH, LIST, CANCEL = "GET /v1/batches/batch_1", "GET /v1/batches", "POST /v1/batches/batch_1/cancel"
ASK: dict[str, Callable[[BatchClient], Any]] = {
    UPLOAD: lambda client: client.upload("a.jsonl", io.BytesIO(b"{}\n")),
    CREATE: lambda client: client.create(input_file_id="file-1", endpoint="/v1/responses", metadata={}),
    FETCH: lambda client: client.fetch("batch_1"),
    LIST: lambda client: list(client.iter_batches(0.0)),
    CANCEL: lambda client: client.cancel("batch_1"),
}
ASK_ASYNC: dict[str, Callable[[AsyncBatchClient], Any]] = {
    FETCH: lambda client: client.fetch("batch_1"),
    LIST: lambda client: client.list_page(None),
    CANCEL: lambda client: client.cancel("batch_1"),
}


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A server of its own."""
    with open_gate() as gate:
        yield gate


def open_client(base_url: str, *, verify: bool = False) -> BatchClient:
    """Without certificates, which take 50 ms to load, unless they matter."""
    sdk = openai.OpenAI(base_url=base_url, api_key=KEY, http_client=openai.DefaultHttpxClient(verify=verify))
    guard_redirects(sdk)
    return BatchClient(sdk)


@pytest.fixture
def client(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchClient]:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)  # only the clock
    with open_client(gate.base_url) as client:
        yield client


def ask_async(gate: Gate, call: str) -> Any:
    async def ask() -> Any:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        sdk = openai.AsyncOpenAI(base_url=gate.base_url, api_key=KEY, http_client=http)
        guard_redirects(sdk)
        client = AsyncBatchClient(sdk)
        try:
            return await ASK_ASYNC[call](client)
        finally:
            await client.close()

    return asyncio.run(ask())


ODD_ANSWERS: list[tuple[Any, str, str]] = [
    ({}, "", "has no id"),
    ({**BATCH, "id": 7}, "", "has a number as its id"),
    ({**BATCH, "id": "batch 1"}, "", "cannot be one"),
    ({**BATCH, "id": f"x{KEY}x"}, "", "the connection's key in its id"),
    ([BATCH], "", "no JSON object"),
    ("", "application/json", "no JSON object"),
    ('{"id": "batch_1', "application/json", "no JSON object"),
    (PAGE, "text/html", "a web page came"),
    (PAGE, "application/json", "a web page came"),
    ({"error": {"message": "upstream is away"}}, "", "holds an error: upstream is away"),
]
ODD_BATCHES: list[tuple[Any, str, str]] = [
    ({"id": "batch_1", "created_at": 1}, "", "has no status"),
    ({"id": "batch_1", "status": "completed"}, "", "has no created_at"),
    ({**BATCH, "created_at": "2026-11-29T01:00:00Z"}, "", r"date in another form \(created_at is a text"),
    ({**BATCH, "created_at": 1_790_000_000_000}, "", "date in another form"),
    ({**BATCH, "output_file_id": {"id": "file-1"}}, "", "an object as its output_file_id"),
]


@pytest.mark.parametrize(("body", "kind", "words"), ODD_ANSWERS)
@pytest.mark.parametrize("call", [UPLOAD, CREATE, FETCH])
def test_an_odd_object_is_refused_in_words(
    gate: Gate, client: BatchClient, call: str, body: Any, kind: str, words: str
) -> None:
    from airflow_openai_batch.server_words import remember_secret

    remember_secret(KEY)
    gate.answer(call, 200, body, **({"content_type": kind} if kind else {}))
    with pytest.raises((AnswerError, TransientError), match=words) as caught:
        ASK[call](client)
    assert KEY not in str(caught.value)
    if call != FETCH:
        assert gate.calls[call] == 1, "what may have had its effect is not repeated by itself"


@pytest.mark.parametrize(("body", "kind", "words"), ODD_BATCHES)
def test_an_odd_batch_ends_its_creation_and_only_delays_a_look(
    gate: Gate, client: BatchClient, body: Any, kind: str, words: str
) -> None:
    gate.answer(CREATE, 200, body)
    with pytest.raises(AnswerError, match=words):
        ASK[CREATE](client)
    gate.answer(FETCH, 200, body)
    with pytest.raises(TransientError, match=words):
        ASK[FETCH](client)
    with pytest.raises(TransientError, match=words):
        ask_async(gate, FETCH)
    gate.answer(LIST, 200, {"object": "list", "data": [BATCH, body]})
    with pytest.raises(TransientError, match=words):
        ASK[LIST](client)
    with pytest.raises(TransientError, match=words):
        ask_async(gate, LIST)


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"0": BATCH}}, {"data": [7]}, [], PAGE])
def test_a_list_that_is_none_is_no_empty_list(gate: Gate, client: BatchClient, body: Any) -> None:
    gate.answer(LIST, 200, body)
    for ask in (ASK[LIST], lambda _: ask_async(gate, LIST), lambda _: client.check_key()):
        with pytest.raises(TransientError, match=r"listing batches|checking the key"):
            ask(client)


def test_what_may_be_absent_or_odd_is_read_all_the_same(gate: Gate, client: BatchClient) -> None:
    odd = {
        "metadata": {"job_key": "k", "n": 7, "m": ["x"]},
        "request_counts": {"total": "many", "completed": -1, "failed": 2.0},
        "errors": {"data": ["odd", None, {"code": ["c"], "message": {"a": 1}, "line": "x"}]},
        "output_file_id": "",
        "model": 7,
        "status": "reticulating",
    }
    gate.answer(FETCH, 200, {**BATCH, **odd})
    batch = client.fetch("batch_1")
    assert (batch.metadata, batch.failed, batch.total, batch.output_file_id) == ({"job_key": "k"}, 2, 0, None)
    assert [error.message for error in batch.errors] == ["odd", "", '{"a": 1}']
    assert batch.status == "in_progress"
    gate.answer(FETCH, 200, {**BATCH, "metadata": [1], "request_counts": None, "errors": None})
    assert client.fetch("batch_1").metadata == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([{"index": 0, "embedding": [1.0]}], "1 vectors for 2 inputs"),
        ([{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [2.0]}], "not one of its 2 inputs"),
        ([{"index": 1, "embedding": [1.0]}, {"index": 1, "embedding": [2.0]}], "stands twice"),
        ([{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": [2.0]}], "no list of numbers"),
        (None, "no list"),
    ],
)
def test_no_vector_stands_beside_the_wrong_text(
    gate: Gate, client: BatchClient, data: Any, words: str
) -> None:
    gate.answer("POST /v1/embeddings", 200, {"object": "list", "data": data})
    with pytest.raises(TransientError, match=words):
        client.embed(["a", "b"], model="text-embedding-3-small")
    good = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    gate.answer("POST /v1/embeddings", 200, {"object": "list", "data": good})
    assert client.embed(["a", "b"], model="text-embedding-3-small") == [[1.0], [2.0]]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", [UPLOAD, CREATE, CANCEL])
def test_a_redirected_post_arrives_nowhere_and_says_where_it_should_go(
    gate: Gate, client: BatchClient, call: str, status: int
) -> None:
    with open_gate() as other:
        path = call.partition("/v1")[2]
        other.answer(f"GET /v1{path}", 200, {"object": "list", "data": []})
        gate.answer(call, status, location=f"{other.base_url}{path}")
        with pytest.raises(RequestRefusedError) as caught:
            ASK[call](client)
        text = str(caught.value)
        assert f"{gate.base_url}{path} leads to {other.base_url}{path}" in text
        assert f"{gate.base_url} should be {other.base_url}" in text
        if call == CANCEL:
            with pytest.raises(RequestRefusedError, match="should be"):
                ask_async(gate, CANCEL)
        assert not other.calls
        assert gate.calls.total() == gate.calls[call]


def test_a_get_is_led_elsewhere_without_the_key_and_the_check_of_the_key_tells_of_it(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gate() as other:
        sdk = openai.OpenAI(
            base_url=gate.base_url, api_key=KEY, default_headers={"api-key": KEY}, organization="o"
        )
        guard_redirects(sdk)
        client = BatchClient(sdk)
        other.answer(LIST, 200, {"object": "list", "data": [BATCH]})
        gate.answer(LIST, 307, location=f"{other.base_url}/batches?limit=100")
        assert [batch.id for batch in client.iter_batches(0.0)] == ["batch_1"]
        assert KEY in str(gate.headers)
        assert KEY not in str(other.headers)
        with pytest.raises(RequestRefusedError, match=f"{gate.base_url} should be {other.base_url}"):
            client.check_key()
        client.close()


REFUSALS: list[tuple[str, int, Any, dict[str, str], type[RemoteError], tuple[str, ...]]] = [
    (
        FETCH, 401,
        {"error": {"message": "Requests of this project go to eu.api.openai.com.", "code": "incorrect_hostname"}}, {},
        FatalAccountError, ("incorrect_hostname", "go to eu.api.openai.com", "connection's host", "/v1"),
    ),
    (
        FETCH, 401, {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}}, {},
        FatalAccountError, ("401 invalid_api_key", "key of the connection is wrong"),
    ),
    (
        FETCH, 403, {"error": {"message": "no", "code": "unsupported_country_region_territory"}}, {},
        FatalAccountError, ("country or region", "worker"),
    ),
    (
        FETCH, 403, {"error": {"message": "You have no scope batches.read."}}, {},
        FatalAccountError, ("project and permissions", "no scope batches.read"),
    ),
    (FETCH, 403, PAGE, {"content_type": "text/html"}, TransientError, ("403", "127.0.0.1", "web page", "proxy")),
    (CREATE, 403, PAGE, {"content_type": "text/html"}, TransientError, ("403", "127.0.0.1", "web page", "proxy")),
    (FETCH, 404, PAGE, {"content_type": "text/html"}, TransientError, ("404", "web page")),
    (FETCH, 407, "login", {}, TransientError, ("407", "HTTPS_PROXY")),
    (FETCH, 404, {"detail": "Not Found"}, {}, TransientError, ("nothing at http://127.0.0.1",)),
    (FETCH, 404, "404 page not found\n", {}, TransientError, ("nothing at http://127.0.0.1",)),
    (FETCH, 404, {"error": {"message": "Invalid URL (GET /batches)"}}, {}, TransientError, ("nothing at",)),
    (FETCH, 404, {"error": {"message": "No batch found with id."}}, {}, NotFoundError, ("not there",)),
    (FETCH, 410, {"error": {"message": "Deleted.", "code": "gone"}}, {}, NotFoundError, ("410 gone", "not there")),
    (UPLOAD, 413, PAGE, {"content_type": "text/html"}, RequestRefusedError, ("200,000,000", "max_bytes_per_shard")),
    (
        UPLOAD, 413, {"error": {"message": "Request body too large. Maximum allowed: 10 MB"}}, {},
        RequestRefusedError, ("max_bytes_per_shard", "The server says: Request body too large. Maximum allowed: 10 MB"),
    ),
    (CREATE, 400, f"odd {KEY} text", {}, RequestRefusedError, ("400", "odd *** text")),
    (CREATE, 422, {"detail": [{"msg": "field required"}]}, {}, RequestRefusedError, ("field required",)),
]  # fmt: skip


@pytest.mark.parametrize(("call", "status", "body", "headers", "kind", "words"), REFUSALS)
def test_a_refusal_says_what_to_change(
    gate: Gate,
    client: BatchClient,
    call: str,
    status: int,
    body: Any,
    headers: dict[str, str],
    kind: type[RemoteError],
    words: tuple[str, ...],
) -> None:
    gate.answer(call, status, body, **headers)
    with pytest.raises(kind) as caught:
        ASK[call](client)
    for word in words:
        assert word in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(str(caught.value)) < 1_000
    if call == FETCH:
        with pytest.raises(kind, match=str(status)):
            ask_async(gate, call)


@pytest.mark.parametrize(
    "body", [{"detail": "Not Found"}, {"error": {"message": "Invalid URL (GET /batches)"}}]
)
def test_a_host_without_v1_is_told_before_anything_is_sent_and_not_tried_again(
    gate: Gate, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    gate.answer("GET /batches", 404, body)
    with open_client(gate.address) as client, pytest.raises(RequestRefusedError, match="It has no /v1"):
        client.check_key()


def test_a_retry_after_that_is_a_date_or_in_milliseconds_is_obeyed(gate: Gate, client: BatchClient) -> None:
    gate.answer(CREATE, 429, {"error": {"message": "slow down"}}, retry_after_ms="90000")
    with pytest.raises(TransientError) as caught:
        ASK[CREATE](client)
    assert caught.value.retry_after_s == 90.0


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("Mon, 01 Jan 999999999999999999999 00:00:00 GMT", None),
        ("Thu, 01 Jan 2026 00:00:00 +99999999999999999", None),
        ("inf", 86_400),
        ("nan", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
    ],
)
def test_a_retry_after_that_is_no_time_breaks_nothing(
    gate: Gate, client: BatchClient, said: str, taken: float | None
) -> None:
    gate.answer(CREATE, 429, {"error": {"message": "slow down"}}, retry_after=said)
    with pytest.raises(TransientError) as caught:
        ASK[CREATE](client)
    assert caught.value.retry_after_s == taken


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signed by nobody."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.needs_program("openssl")
def test_an_unknown_authority_is_named_with_the_setting(certificate: Path) -> None:
    with open_gate(certificate=certificate) as gate:
        _check_unreached(
            gate.base_url, "certificate is not trusted: self-signed certificate", "SSL_CERT_FILE"
        )


def test_tls_to_a_port_without_is_named(gate: Gate) -> None:
    _check_unreached(gate.base_url.replace("http:", "https:"), "no TLS with it", "http://")


def test_a_port_where_nobody_listens_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _check_unreached(f"http://127.0.0.1:{port}/v1", "connection refused", f"127.0.0.1:{port}")


def test_a_name_that_nobody_knows_is_named() -> None:
    _check_unreached("http://api.nowhere.invalid/v1", "DNS", "api.nowhere.invalid")


def _check_unreached(base_url: str, *words: str) -> None:
    with open_client(base_url, verify=True) as client, pytest.raises(TransientError) as caught:
        client.create(input_file_id="file-1", endpoint="/v1/responses", metadata={})

    async def ask() -> None:
        client = AsyncBatchClient(openai.AsyncOpenAI(base_url=base_url, api_key=KEY))
        try:
            await client.fetch("batch_1")
        finally:
            await client.close()

    with pytest.raises(TransientError) as caught_async:
        asyncio.run(ask())
    for text in (str(caught.value), str(caught_async.value)):
        for word in words:
            assert word in text
        assert KEY not in text


BAD_CONNECTIONS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"password": f"{KEY}\n"}, ("line end", "password")),
    ({"password": f" {KEY}"}, ("blank", "password")),
    ({"password": "sk-v\u00e9ry-secret"}, ("beyond ASCII", "5th of 14")),
    ({"host": "api.openai.com/v1"}, ("no scheme", "https://api.openai.com/v1")),
    ({"host": "localhost:8000/v1"}, ("no scheme", "https://localhost:8000/v1")),
    ({"host": "https://api.openai.com"}, ("no /v1", "https://api.openai.com/v1")),
    ({"host": "https://[::1/v1"}, ("no address",)),
    ({"extra": {"openai_client_kwargs": {"default_headers": {"api-key": "x\n"}}}}, ("'api-key'", "line end")),
    ({"extra": {"openai_client_kwargs": {"base_url": "somewhere/v1"}}}, ("no scheme",)),
    ({"extra": {"openai_client_kwargs": "x"}}, ("openai_client_kwargs",)),
    ({"extra": {"openai_client_kwargs": {"nonsense": KEY}}}, ("openai_client_kwargs",)),
    ({"extra": {"auth_type": "magic"}}, ("auth_type",)),
]


@pytest.mark.parametrize(("fields", "words"), BAD_CONNECTIONS)
def test_a_connection_that_cannot_work_says_so_before_it_is_used(
    define_connection: Callable[..., str], gate: Gate, fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook

    define_connection("odd", **{"conn_type": "openai", "password": KEY, "host": gate.base_url, **fields})
    hook = OpenAIBatchHook("odd")
    for open_it in (hook.get_conn, hook.get_realtime_client, lambda: asyncio.run(hook.aget_conn())):
        with pytest.raises(ConfigError) as caught:
            open_it()
        assert "connection 'odd'" in str(caught.value)
        for word in words:
            assert word in str(caught.value)
        assert "secret" not in str(caught.value)
    assert not gate.calls
