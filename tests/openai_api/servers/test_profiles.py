"""What each server is sent, and how what it shows is read."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from airflow_openai_batch.errors import AnswerError, FatalAccountError, RequestRefusedError, TransientError
from airflow_openai_batch.openai_api.async_client import AsyncBatchClient
from airflow_openai_batch.openai_api.batch import BatchStatus
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.openai_api.servers.choice import SERVERS
from fixtures.gate import Gate, open_gate

JOB = {
    "id": "019f",
    "user_id": "user_1",
    "input_file_id": "file-1",
    "file_size_bytes": 10,
    "status": "IN_PROGRESS",
    "job_deadline": "2026-01-16T14:30:00.123456789Z",
    "created_at": "2026-01-15T14:30:00Z",
    "endpoint": "/v1/chat/completions",
    "progress": 75,
    "model_id": "some/model",
    "output_file_id": "",
    "error": None,
    "completed_at": None,
}
BATCH = {
    "id": "batch_1",
    "status": "in_progress",
    "created_at": 1_790_000_000,
    "expires_at": 1_790_086_400,
    "input_file_id": "file-1",
}
CHAT = "/v1/chat/completions"
CREATE = "POST /v1/batches"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)  # only the clock
    with open_gate() as gate:
        yield gate


@pytest.mark.parametrize("server", ["generic", "openai", "together"])
@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("COMPLETED", BatchStatus.COMPLETED),
        ("canceled", BatchStatus.CANCELLED),
        ("CANCELING", BatchStatus.CANCELLING),
        ("invented", BatchStatus.IN_PROGRESS),
    ],
)
def test_a_status_is_known_in_any_spelling(gate: Gate, server: str, word: str, status: BatchStatus) -> None:
    gate.answer("GET /v1/batches/batch_1", 200, {**BATCH, "status": word})
    with open_client(gate, server) as client:
        assert client.fetch("batch_1").status is status


def open_client(gate: Gate, server: str) -> BatchClient:
    http = openai.DefaultHttpxClient(verify=False)
    return BatchClient(
        openai.OpenAI(base_url=gate.base_url, api_key="k", http_client=http), server=SERVERS[server]
    )


@pytest.mark.parametrize(
    ("server", "fields"),
    [
        ("openai", {"metadata", "output_expires_after"}),
        ("azure", {"metadata", "output_expires_after"}),
        ("groq", {"metadata"}),
        ("litellm", {"metadata"}),
        ("together", set()),
        ("generic", set()),
    ],
)
def test_a_server_is_sent_what_it_knows(gate: Gate, server: str, fields: set[str]) -> None:
    answer = {"job": JOB} if server == "together" else BATCH
    gate.answer(CREATE, 200, answer)
    gate.answer("POST /v1/files", 200, {"id": "file-1", "created_at": 1})
    with open_client(gate, server) as client:
        client.upload("key.jsonl", io.BytesIO(b"{}\n"))
        client.create(input_file_id="file-1", endpoint=CHAT, metadata={"job_key": "k"})
    upload, created = gate.bodies[0], gate.bodies[-1]
    assert (b"expires_after" in upload) == ("output_expires_after" in fields)
    assert (b"batch-api" in upload) == (server == "together")
    sent = set(json.loads(created))
    assert sent == {"input_file_id", "endpoint", "completion_window", *fields}


def test_a_job_of_together_is_read_as_a_batch(gate: Gate) -> None:
    gate.answer(CREATE, 200, {"job": JOB, "warning": ""})
    gate.answer("GET /v1/batches/019f", 200, {**JOB, "status": "CANCELING"})
    gate.answer(
        "GET /v1/batches", 200, [JOB, {**JOB, "id": "younger", "created_at": "2026-01-15T15:30:00+00:00"}]
    )
    with open_client(gate, "together") as client:
        made = client.create(input_file_id="file-1", endpoint=CHAT, metadata={})
        assert (made.id, made.status, made.model) == ("019f", BatchStatus.IN_PROGRESS, "some/model")
        assert (made.created_at, made.expires_at) == (1_768_487_400.0, 1_768_573_800.123456)
        assert client.fetch("019f").status is BatchStatus.CANCELLING
        assert [batch.id for batch in client.iter_batches(0.0)] == ["younger", "019f"]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({**JOB, "created_at": "yesterday"}, "has a date in another form"),
        ({**JOB, "id": None}, "has no id"),
        ({**JOB, "status": 7}, "has no status"),
        ("VALIDATING", "has no id"),
    ],
)
def test_what_is_no_job_is_refused_in_words(gate: Gate, job: Any, words: str) -> None:
    gate.answer(CREATE, 200, {"job": job})
    with open_client(gate, "together") as client, pytest.raises(AnswerError, match=words):
        client.create(input_file_id="file-1", endpoint=CHAT, metadata={})


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_answers_a_web_page_is_told_from_an_api(gate: Gate, server: str) -> None:
    for call in ("GET /v1/batches", "GET /v1/files"):
        gate.answer(call, 200, "<!doctype html><html>Please log in</html>", content_type="text/html")
    with open_client(gate, server) as client:
        with pytest.raises(TransientError, match="a web page came where the API answers JSON"):
            list(client.iter_batches(0.0))
        with pytest.raises(TransientError, match="a web page came where the API answers JSON"):
            list(client.iter_files("input"))


@pytest.mark.parametrize("server", ["groq", "together"])
def test_a_list_without_pages_is_read_whole_and_sorted(gate: Gate, server: str) -> None:
    """More than a page holds elsewhere, the oldest first."""
    batches = [{**BATCH, "id": f"b{n:03}", "created_at": 1_790_000_000 + n} for n in range(150)]
    gate.answer("GET /v1/batches", 200, {"object": "list", "data": batches})
    with open_client(gate, server) as client:
        found = [batch.id for batch in client.iter_batches(1_790_000_000.0)]
    assert found == [f"b{n:03}" for n in reversed(range(150))]
    assert gate.calls["GET /v1/batches"] == 1

    async def look() -> list[str]:
        http = openai.DefaultAsyncHttpxClient(verify=False)
        sdk = openai.AsyncOpenAI(base_url=gate.base_url, api_key="k", http_client=http)
        client = AsyncBatchClient(sdk, server=SERVERS[server])
        page = await client.list_page(None)
        await client.close()
        assert page.has_more is False
        return [batch.id for batch in page.batches]

    assert asyncio.run(look()) == found


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("pending", "the file is not processed yet"),
        ("uploaded", "the file is not processed yet"),
        ("error", "Azure OpenAI could not process it"),
    ],
)
def test_a_file_that_is_not_processed_is_not_asked_for(gate: Gate, status: str, words: str) -> None:
    gate.answer("GET /v1/files/file-1", 200, {"id": "file-1", "created_at": 1, "status": status})
    with open_client(gate, "azure") as client, pytest.raises(RequestRefusedError, match=words):
        client.create(input_file_id="file-1", endpoint=CHAT, metadata={})
    assert not gate.calls[CREATE]


@pytest.mark.parametrize("body", [{"id": "file-1", "status": "processed"}, {"id": "file-1"}, None])
def test_a_file_of_which_nothing_bad_is_said_is_asked_for(gate: Gate, body: Any) -> None:
    if body is not None:
        gate.answer("GET /v1/files/file-1", 200, body)
    gate.answer(CREATE, 200, BATCH)
    with open_client(gate, "azure") as client:
        batch = client.create(input_file_id="file-1", endpoint=CHAT, metadata={})
    assert (batch.expires, batch.expires_at) == (False, None)


@pytest.mark.parametrize(("server", "endpoint"), [("groq", "/v1/embeddings"), ("together", "/v1/responses")])
def test_an_endpoint_that_a_server_has_no_batches_for_is_named(
    gate: Gate, server: str, endpoint: str
) -> None:
    with open_client(gate, server) as client, pytest.raises(RequestRefusedError) as caught:
        client.create(input_file_id="file-1", endpoint=endpoint, metadata={})
    assert f"has no batches for {endpoint}, only for /v1/chat/completions" in str(caught.value)
    assert not gate.calls


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("api.openai.com", "OpenAI answered 403"),
        ("eu.api.openai.com", "OpenAI answered 403"),
        ("api.groq.com", "Groq answered 403"),
        ("mine.openai.azure.com", "Azure OpenAI answered 403"),
        ("models.example.org", "the server answered 403"),
    ],
)
def test_an_error_says_who_answered(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, host: str, named: str
) -> None:
    """By the address that was asked; the gate stands there as the proxy of the network."""
    monkeypatch.setenv("HTTP_PROXY", gate.address)
    gate.answer(f"GET http://{host}/v1/batches/batch_1", 403, {"error": {"message": "Your project may not."}})
    sdk = openai.OpenAI(base_url=f"http://{host}/v1", api_key="k", http_client=openai.DefaultHttpxClient())
    with BatchClient(sdk) as client, pytest.raises(FatalAccountError) as caught:
        client.fetch("batch_1")
    assert f"fetching batch_1: {named}" in str(caught.value)
    assert f"{named[0].upper()}{named[1:].partition(' answered')[0]} says: Your project may not." in str(
        caught.value
    )
