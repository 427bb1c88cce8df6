"""What strangers and clumsy clients send to the API server costs nothing and breaks nothing."""

from __future__ import annotations

import http.client
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from airflow_openai_batch.testing.webhooks import sign_webhook

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.timeout(300)

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="
MISMATCH = {"detail": "The given webhook signature does not match the expected signature."}
JOB = {"dag_id": "openai_batch", "run_id": "r", "task_id": "split", "map_index": "-1"}
ODD_TEXTS = ["%00", "a%00b", "%ff%fe", "%ed%a0%80", "%0d%0aX-Injected:%201", "%7f", "x" * 300, "x" * 100_000]
ODD_NUMBERS = [2**31, 2**63, 2**64, 10**400, -(2**63) - 1, "1e9", "NaN", "%00", "%EF%BC%91", ""]


def find_routes() -> list[tuple[str, str]]:
    """Method and path of every route of the app, webhooks left out."""
    from fastapi.routing import APIRoute

    from airflow_openai_batch.plugin.app import make_app

    routes = [route for route in make_app().routes if isinstance(route, APIRoute)]
    assert len(routes) == 8, "a new route is odd requests' business, too: it stands below by itself"
    return [(method, route.path) for route in routes for method in sorted(route.methods)]


def send(
    api_server: str, method: str, target: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, bytes]:
    """As it is, without a client that would correct it."""
    connection = http.client.HTTPConnection(urlsplit(api_server).netloc, timeout=30)
    try:
        connection.putrequest(method, target, skip_host="host" in headers)
        for name, text in headers.items():
            connection.putheader(name, text)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def token(login: Callable[[str], httpx.Client]) -> dict[str, str]:
    return {"authorization": login("user").headers["authorization"]}


def test_no_odd_text_in_any_address_is_the_servers_fault(api_server: str, token: dict[str, str]) -> None:
    for method, path in find_routes():
        places = [
            path.replace("{path:path}", odd).replace("{conn_id}", odd) for odd in ODD_TEXTS if "{" in path
        ]
        names = ["dag_id", "run_id", "task_id", "state"]
        places += [
            f"{path}?"
            + "&".join(
                f"{key}={odd if key == name else text}" for key, text in {**JOB, "state": "done"}.items()
            )
            for odd in ODD_TEXTS
            for name in names
            if "{" not in path
        ]
        for place in places:
            for headers in ({}, token):
                sent = {**headers, "content-type": "application/json"}
                status, said = send(api_server, method, f"/openai-batch{place}", sent)
                assert status < 500, (method, place[:200], status, said[:200])
                assert status >= 400 or "%" not in place, (method, place[:200])
                assert b"X-Injected" not in said


def test_no_odd_number_is_the_servers_fault(api_server: str, token: dict[str, str]) -> None:
    for method, path in find_routes():
        if "{" in path or method != "GET":
            continue
        for name in ("map_index", "limit", "offset"):
            for odd in ODD_NUMBERS:
                query = "&".join(f"{key}={text}" for key, text in {**JOB, name: odd}.items())
                status, said = send(
                    api_server, method, quote(f"/openai-batch{path}?{query}", safe="/?&=%"), token
                )
                assert status < 500, (path, name, odd, status, said[:200])


@pytest.mark.parametrize(
    "wish",
    [
        b"",
        b"null",
        b"[" * 50_000,
        b"\xff",
        json.dumps({**JOB, "map_index": 2**63, "batch_id": "batch_1"}).encode(),
        json.dumps({**JOB, "map_index": 10**400, "batch_id": "batch_1"}).encode(),
        json.dumps({**JOB, "run_id": "a\0b", "batch_id": "batch_1"}).encode(),
        json.dumps({**JOB, "run_id": "\ud800", "batch_id": "batch_1"}).encode(),
        json.dumps({**JOB, "dag_id": "x" * 60_000, "batch_id": "batch_1"}).encode(),
        json.dumps({**JOB, "batch_id": "batch_1", "more": "x" * 100_000}).encode(),
    ],
)
def test_no_odd_wish_is_the_servers_fault(api_server: str, token: dict[str, str], wish: bytes) -> None:
    headers = {**token, "content-type": "application/json"}
    status, said = send(api_server, "POST", "/openai-batch/api/cancel", headers, wish)
    assert 400 <= status < 500, said[:300]
    assert len(said) < 2_000


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://[x"},
        {"origin": "\xff"},
        {"host": "[x", "origin": "http://a"},
        {"range": "bytes=9-1,x"},
        {"if-modified-since": "never"},
        {"accept-encoding": "\xff"},
        {"cookie": "_token=\xff; a=b"},
        {"content-type": "application/json; charset=\xff"},
    ],
)
def test_no_odd_header_is_the_servers_fault(
    api_server: str, token: dict[str, str], headers: dict[str, str]
) -> None:
    wish = json.dumps({**JOB, "map_index": -1, "batch_id": "batch_1"}).encode()
    for method, place, body in (
        ("GET", "/static/page.js", b""),
        ("GET", "/api/jobs", b""),
        ("POST", "/api/cancel", wish),
    ):
        sent = {**token, "content-type": "application/json", **headers}
        status, said = send(api_server, method, f"/openai-batch{place}", sent, body)
        assert status < 500, (place, status, said[:200])


def test_a_strangers_content_is_not_read(api_server: str) -> None:
    """He announces a gigabyte, and is answered at its first bytes."""
    connection = http.client.HTTPConnection(urlsplit(api_server).netloc, timeout=20)
    for place in ("/api/cancel", "/webhooks/invented", "/webhooks/openai_default"):
        connection.putrequest("POST", f"/openai-batch{place}")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(10**9))
        connection.endheaders(b"{")
        assert connection.getresponse().status in (400, 401)
        connection.close()


@pytest.fixture
def hooks(
    airflow_db: None, define_connection: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Post a signed event to a connection; the configuration is the default one."""
    from airflow_openai_batch.plugin.webhooks import routes
    from airflow_openai_batch.plugin.webhooks.secrets import WebhookSecrets

    define_connection("openai_default", conn_type="openai", password="k", extra={"webhook_secret": SECRET})
    define_connection("openai_other", conn_type="openai", password="k", extra={"webhook_secret": SECRET})
    define_connection("aws_default", conn_type="aws", password="k", extra={"webhook_secret": SECRET})
    monkeypatch.setattr(routes, "_secrets", WebhookSecrets(routes._read_secret))  # knows nothing yet
    app = FastAPI()
    app.include_router(routes.router)
    body = json.dumps({"type": "batch.completed", "data": {"id": "batch_1"}})
    with TestClient(app) as client:

        def post(conn_id: str, *, secret: str = SECRET) -> Any:
            signed = sign_webhook(body, secret, webhook_id="wh_1", timestamp=time.time())
            return client.post(f"/webhooks/{conn_id}", content=body, headers=signed)

        yield post


def test_a_flood_to_invented_connections_costs_a_genuine_event_nothing(
    hooks: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(200):
        answer = hooks(f"invented-{n}")
        assert (answer.status_code, answer.json()) == (401, MISMATCH)
    assert hooks("openai_default").status_code == 200
    assert hooks("openai_default", secret="whsec_Zm9yZ2Vk").status_code == 401
    with caplog.at_level(logging.WARNING):
        assert sum("webhook_conn_ids does not list it" in record.message for record in caplog.records) <= 1


def test_which_connections_receive_is_configuration(
    hooks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hooks("openai_other").json() == MISMATCH, "unset: the default connection alone"
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__WEBHOOK_CONN_IDS", "openai_other, aws_default")
    assert hooks("openai_other").status_code == 200
    assert hooks("openai_default").json() == MISMATCH
    assert hooks("aws_default").json() == MISMATCH, "no connection of another type"
