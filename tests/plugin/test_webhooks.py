"""Webhooks that are refused or lead to nothing: the route alone, with a connection, and no Airflow around it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from airflow_openai_batch.plugin.webhooks import routes, wakeups
from airflow_openai_batch.plugin.webhooks.secrets import KEPT_S, WebhookSecrets
from airflow_openai_batch.testing.webhooks import sign_webhook

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="
MISMATCH = {"detail": "The given webhook signature does not match the expected signature."}

Post = Callable[..., Any]


def make_event(batch_id: str = "batch_1", kind: str = "batch.completed") -> str:
    event = {"id": "evt_1", "object": "event", "created_at": 1, "type": kind, "data": {"id": batch_id}}
    return json.dumps(event)


@pytest.fixture
def post(
    airflow_db: None,
    define_connection: Callable[..., str],
    openai_server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Post]:
    """Post an event to a connection; signed well unless told otherwise."""
    monkeypatch.setattr(routes, "_secrets", WebhookSecrets(routes._read_secret))  # knows nothing yet
    monkeypatch.setenv(
        "AIRFLOW__OPENAI_BATCH__WEBHOOK_CONN_IDS", "signed, unsigned,broken,nobody,empty,as_in_docs"
    )
    host = openai_server.base_url
    define_connection("signed", conn_type="openai", password="k", host=host, extra={"webhook_secret": SECRET})
    define_connection("unsigned", conn_type="openai", password="k", host=host)
    define_connection(
        "broken", conn_type="openai", password="k", extra={"webhook_secret": "whsec_not base64"}
    )
    for conn_id, empty in (("empty", "whsec_"), ("as_in_docs", "whsec_...")):
        define_connection(
            conn_id, conn_type="openai", password="k", host=host, extra={"webhook_secret": empty}
        )
    app = FastAPI()
    app.include_router(routes.router)
    with TestClient(app) as client:

        def send(
            body: str | bytes | None = None,
            *,
            conn_id: str = "signed",
            secret: str = SECRET,
            age_s: float = 0.0,
            delivery: str = "wh_1",
            **headers: str | bytes,
        ) -> Any:
            content = make_event() if body is None else body
            text = content if isinstance(content, str) else content.decode("latin-1")
            signed = sign_webhook(text, secret, webhook_id=delivery, timestamp=time.time() - age_s)
            return client.post(f"/webhooks/{conn_id}", content=content, headers={**signed, **headers})

        yield send


def test_an_event_is_taken_once_however_often_it_comes(post: Post) -> None:
    answers = [post() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.json()["status"] for answer in answers} == {"taken"}


@pytest.mark.parametrize("conn_id", ["signed", "unsigned", "broken", "nobody", "no%20body'%0a"])
def test_a_forged_event_learns_nothing_of_the_connections(post: Post, conn_id: str) -> None:
    answer = post(conn_id=conn_id, secret="whsec_Zm9yZ2Vk")
    assert (answer.status_code, answer.json()) == (401, MISMATCH)


@pytest.mark.parametrize("conn_id", ["unsigned", "nobody"])
def test_without_a_secret_no_signature_is_good(post: Post, conn_id: str) -> None:
    for secret in (SECRET, "", "None"):
        assert post(conn_id=conn_id, secret=secret).json() == MISMATCH


@pytest.mark.parametrize("conn_id", ["empty", "as_in_docs"])
def test_a_secret_of_nothing_but_its_prefix_is_none(
    post: Post, conn_id: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its base64 is no byte long, and whoever knows that can sign with it."""
    monkeypatch.setitem(routes._told_at, True, -routes.TELL_EVERY_S)
    answer = post(conn_id=conn_id, secret="whsec_")
    assert (answer.status_code, answer.json()) == (401, MISMATCH)
    assert "no webhook_secret in its extra, or none but a placeholder" in caplog.text


def test_another_content_under_a_good_signature_is_refused(post: Post) -> None:
    signature = sign_webhook(make_event(), SECRET, webhook_id="wh_1", timestamp=time.time())
    answer = post(make_event("batch_2"), **signature)
    assert (answer.status_code, answer.json()) == (401, MISMATCH)


@pytest.mark.parametrize("conn_id", ["signed", "nobody"])
@pytest.mark.parametrize(("age_s", "why"), [(600, "too old"), (-600, "too new")])
def test_a_replay_after_ten_minutes_is_refused(post: Post, conn_id: str, age_s: float, why: str) -> None:
    answer = post(conn_id=conn_id, age_s=age_s)
    assert (answer.status_code, answer.json()) == (401, {"detail": f"Webhook timestamp is {why}."})


def test_what_is_no_webhook_is_refused(post: Post) -> None:
    assert post(**{"webhook-timestamp": "soon"}).status_code == 401
    assert post(**{"webhook-signature": b"v1,\xfc"}).status_code == 401
    assert post(b"\xff\xfe").status_code == 401
    assert (post("no JSON").status_code, post("no JSON").json()) == (400, {"detail": "The event is no JSON."})
    for wrong in ("batch_" + "x" * 300, "file-1", "../batch_1", ""):
        assert post(make_event(wrong)).json() == {"detail": "The event names no batch."}
    for wrong in ("[]", "null", '{"type": "batch.completed"}', '{"type": ["batch.completed"]}'):
        assert post(wrong).status_code in (200, 400)


def test_a_header_that_is_missing_is_named(post: Post) -> None:
    app = FastAPI()
    app.include_router(routes.router)
    answer = TestClient(app).post("/webhooks/signed", content=make_event())
    assert answer.status_code == 400
    assert "webhook-id is missing" in answer.json()["detail"]


def test_a_body_that_is_too_large_is_not_read_to_its_end(post: Post) -> None:
    answer = post("x" * (routes.MOST_BYTES + 1))
    assert (answer.status_code, answer.json()) == (413, {"detail": "An event has at most 262,144 bytes."})


def test_events_of_other_kinds_are_none_of_ours(post: Post) -> None:
    assert post(make_event("resp_1", "response.completed")).json() == {"status": "ignored"}
    assert post(make_event("x_1", "something.new")).json() == {"status": "ignored"}


def test_too_many_at_once_are_asked_to_come_again(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "MOST_PENDING", 2)
    answers = [post(make_event(f"batch_{n}"), delivery=f"wh_{n}") for n in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2].headers["retry-after"] == "60"


def test_a_refusal_is_in_the_log_without_the_secret(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    routes._told_at.update({True: -routes.TELL_EVERY_S, False: -routes.TELL_EVERY_S})
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            post(conn_id="unsigned")
        post(secret="whsec_Zm9yZ2Vk")
        post()
    told = [record.message for record in caplog.records if "was refused" in record.message]
    why = "there is no such connection of type OpenAI, or no webhook_secret in its extra, or none but a placeholder"
    assert told == [f"A webhook for connection 'unsigned' was refused: {why}."]
    assert SECRET not in caplog.text
    assert SECRET[6:] not in caplog.text


def test_a_secret_is_looked_up_once_in_a_while_whether_there_is_one_or_not() -> None:
    asked, now = list[str](), [1_000.0]

    def read(conn_id: str) -> str | None:
        asked.append(conn_id)
        return SECRET if conn_id == "signed" else None

    secrets = WebhookSecrets(read, clock=lambda: now[0])
    for _ in range(1_000):
        assert secrets.find("signed") == SECRET
        assert secrets.find("unsigned") is None
    assert asked == ["signed", "unsigned"]
    now[0] += KEPT_S + 1
    assert secrets.find("signed") == SECRET
    assert asked == ["signed", "unsigned", "signed"]
