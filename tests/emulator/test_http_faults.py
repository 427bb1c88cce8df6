"""Faults on the wire, as the real client sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from emulator.lines import CHAT, request_line, request_lines, send_batch

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


@pytest.mark.openai_server(in_progress_s=0.2)
async def test_many_clients_under_many_faults_leave_the_books_in_order(openai_server: OpenAIServer) -> None:
    for fault in ({"status": 503}, {"drop": "before"}, {"drop": "after"}, {"truncate_bytes": 20}):
        openai_server.script(http="/v1/**", share=0.05, times=None, **fault)
    openai_server.script(line=500, share=0.1)

    async def work(number: int) -> str:
        async with openai.AsyncOpenAI(base_url=openai_server.base_url, api_key="k", max_retries=20) as client:
            lines = b"".join(request_line(f"{number}-{line}") for line in range(20))
            file = await client.files.create(file=("in.jsonl", lines), purpose="batch")
            batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            while batch.status != "completed":
                await asyncio.sleep(0.05)
                batch = await client.batches.retrieve(batch.id)
            return batch.id

    ids = await asyncio.gather(*(work(number) for number in range(20)))
    assert len(set(ids)) == 20
    await asyncio.sleep(0.3)
    batches = openai_server.batches()
    assert {batch["status"] for batch in batches} == {"completed"}
    counts = [batch["request_counts"] for batch in batches]
    books = openai_server.books
    assert (
        books.good["batch"]
        == sum(count["completed"] for count in counts)
        == sum(books.good_by_custom_id.values())
    )
    assert books.refused["batch"] == sum(count["failed"] for count in counts) > 0
    assert books.enqueued["gpt-4o-mini"] == 0
    assert len(batches) >= 20, "a lost reply makes the client create again"
