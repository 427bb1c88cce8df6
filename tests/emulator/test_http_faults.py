"""Faults on the wire, as the real client sees them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from emulator.lines import request_lines, send_batch

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer


def test_a_route_answers_with_a_status_so_many_times(
    client: openai.OpenAI, openai_server: OpenAIServer
) -> None:
    openai_server.script(http="GET /v1/batches", status=503, times=2, skip=1)
    rule = openai_server.script(http="/v1/files", status=429, code="insufficient_quota", times=None)
    client.batches.list()
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            client.batches.list()
    client.batches.list()
    with pytest.raises(openai.RateLimitError, match="exceeded your current quota") as caught:
        client.files.list()
    assert caught.value.code == "insufficient_quota"
    with pytest.raises(openai.RateLimitError):
        client.files.create(file=("in.jsonl", b"x" * 3_000_000), purpose="batch")
    assert openai_server.hits(rule) == 2
    openai_server.unscript(rule)
    assert list(client.files.list()) == []
    assert openai_server.books.calls_of("GET /v1/batches") == 4


def test_retry_after_is_sent(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    openai_server.script(http="GET /v1/batches/*", status=429, retry_after_s=7)
    with pytest.raises(openai.RateLimitError) as caught:
        client.batches.retrieve("batch_x")
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
def test_a_lost_reply_is_not_a_lost_call(
    client: openai.OpenAI, openai_server: OpenAIServer, when: str, created: int
) -> None:
    openai_server.script(http="POST /v1/batches", drop=when)
    with pytest.raises(openai.APIConnectionError):
        send_batch(client, request_lines(2), job_key="k")
    assert len(client.batches.list().data) == created
    assert len(openai_server.books.batches_by_job_key["k"]) == created
    assert openai_server.books.calls[f"POST /v1/batches dropped {when}"] == 1


def test_a_download_is_cut_after_so_many_bytes(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    file = client.files.create(file=("in.jsonl", b"x" * 900_000), purpose="batch")
    openai_server.script(http="GET /v1/files/*/content", truncate_bytes=500_000)
    with (
        client.files.with_streaming_response.content(file.id) as reply,
        pytest.raises(
            Exception, match="received 500000 bytes, expected 900000"
        ),  # httpx's own, whichever it is
    ):
        b"".join(reply.iter_bytes())
    assert len(client.files.content(file.id).content) == 900_000


def test_a_slow_answer_meets_a_time_out(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    openai_server.script(http="POST /v1/batches", delay_s=0.3)
    with pytest.raises(openai.APITimeoutError):
        send_batch(client.with_options(timeout=0.1), request_lines(1))
    time.sleep(0.5)
    assert len(client.batches.list().data) == 1, "the call was under way and took effect"


def test_a_download_can_be_slow(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    file = client.files.create(file=("in.jsonl", b"x" * 100_000), purpose="batch")
    openai_server.script(http="GET /v1/files/*/content", bytes_per_s=250_000)
    started = time.monotonic()
    assert len(client.files.content(file.id).content) == 100_000
    assert 0.3 < time.monotonic() - started < 5


@pytest.mark.openai_server(requests_per_minute=60, burst_s=2, speed=0)
def test_real_time_calls_over_the_limit_are_told_when_to_come_back(
    client: openai.OpenAI, openai_server: OpenAIServer
) -> None:
    def ask() -> Mapping[str, str]:
        call = client.chat.completions.with_raw_response
        return call.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}]).headers

    assert ask()["x-ratelimit-remaining-requests"] == "1"
    headers = ask()
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-reset-requests"]) == ("60", "2s")
    with pytest.raises(openai.RateLimitError, match="Please try again in 1s") as caught:
        ask()
    assert caught.value.response.headers["retry-after"] == "1"
    openai_server.clock.advance(1)
    ask()
    assert openai_server.books.billed["realtime"] == 3


@pytest.mark.openai_server(ranges=True)
def test_ranges_are_honoured_where_asked_for(client: openai.OpenAI, openai_server: OpenAIServer) -> None:
    file = client.files.create(file=("in.jsonl", b"0123456789"), purpose="batch")
    part = client.files.content(file.id, extra_headers={"Range": "bytes=4-"})
    assert (part.content, part.response.status_code) == (b"456789", 206)
    openai_server.configure(ranges=False)
    assert client.files.content(file.id, extra_headers={"Range": "bytes=4-"}).content == b"0123456789"


def test_wrong_routes_and_bodies_get_openais_errors(openai_server: OpenAIServer) -> None:
    with httpx.Client(base_url=openai_server.base_url, headers={"Authorization": "Bearer k"}) as http:
        assert http.get("/nonsense").json()["error"]["message"] == "Invalid URL (GET /v1/nonsense)"
        reply = http.post("/batches", content=b"{")
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
        reply = http.post("/files", content=b"{}", headers={"content-type": "application/json"})
        assert reply.status_code == 400
        assert http.get("/batches", params={"limit": 101}).status_code == 400
        assert http.get("/batches", headers={"Authorization": ""}).status_code == 401
