"""The client against a real server: errors told apart, nothing created twice, files whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest

from airflow_openai_batch.errors import (
    DownloadError,
    FatalAccountError,
    NotFoundError,
    RemoteError,
    RequestRefusedError,
    TransientError,
)
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.storage.location import resolve_plain

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

KEY = "sk-very-secret"


def make_line(number: int) -> bytes:
    request = {
        "custom_id": str(number),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "secret words"}]},
    }
    return json.dumps(request).encode() + b"\n"


@pytest.fixture
def client(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchClient]:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)  # only the clock
    with BatchClient(openai.OpenAI(base_url=openai_server.base_url, api_key=KEY)) as client:
        yield client


def make_batch(client: BatchClient, lines: int = 3) -> str:
    file_id = client.upload("lines.jsonl", io.BytesIO(b"".join(make_line(n) for n in range(lines)))).id
    return client.create(input_file_id=file_id, endpoint="/v1/chat/completions", metadata={"job_key": "k"}).id


@pytest.mark.parametrize(
    ("status", "code", "expected", "words"),
    [
        (401, "invalid_api_key", FatalAccountError, "key of the connection is wrong"),
        (403, None, FatalAccountError, "permissions"),
        (403, "unsupported_country_region_territory", FatalAccountError, "country or region"),
        (429, "insufficient_quota", FatalAccountError, "credit"),
        (400, "billing_hard_limit_reached", FatalAccountError, "credit"),
        (429, "rate_limit_exceeded", TransientError, "429"),
        (503, None, TransientError, "503"),
        (404, None, NotFoundError, "404"),
        (400, "invalid_value", RequestRefusedError, "invalid_value"),
    ],
)
def test_refusals_are_told_apart_by_status_and_code(
    openai_server: OpenAIServer,
    client: BatchClient,
    status: int,
    code: str | None,
    expected: type[RemoteError],
    words: str,
) -> None:
    openai_server.script(http="POST /batches", status=status, code=code)
    with pytest.raises(expected, match=words) as caught:
        client.create(input_file_id="file-x", endpoint="/v1/chat/completions", metadata={})
    assert type(caught.value) is expected
    assert KEY not in str(caught.value)
    assert openai_server.books.calls_of("POST /v1/batches") == 1  # never repeated by itself


def test_a_lost_reply_creates_nothing_twice_and_the_batch_is_found_by_its_key(
    openai_server: OpenAIServer, client: BatchClient
) -> None:
    openai_server.script(http="POST /batches", drop="after")
    with pytest.raises(TransientError):
        make_batch(client)
    assert [batch.job_key for batch in client.find("k", since=0.0)] == ["k"]
    assert len(openai_server.batches()) == 1


def test_find_looks_through_all_pages_but_not_past_the_time(
    openai_server: OpenAIServer, client: BatchClient
) -> None:
    first = make_batch(client)
    file_id = client.upload("lines.jsonl", io.BytesIO(make_line(1))).id
    for n in range(120):
        client.create(input_file_id=file_id, endpoint="/v1/chat/completions", metadata={"job_key": str(n)})
    assert [batch.id for batch in client.find("k", since=0.0)] == [first]
    now = client.fetch(first).created_at
    assert client.find("k", since=now + 3_600) == ()


@pytest.mark.parametrize("times", [1, 3])
def test_a_cut_download_is_done_anew_and_arrives_whole(
    openai_server: OpenAIServer, client: BatchClient, tmp_path: Path, times: int
) -> None:
    batch = client.fetch(make_batch(client, lines=50))
    openai_server.script(http="GET /files/*/content", truncate_bytes=2_000, times=times)
    target = resolve_plain(str(tmp_path / "raw" / "out.jsonl"))
    received = client.download(batch.output_file_id or "", target)
    assert len(target.read_bytes().splitlines()) == 50
    assert received.bytes == target.size()


def test_a_download_that_never_arrives_leaves_nothing(
    openai_server: OpenAIServer, client: BatchClient, tmp_path: Path
) -> None:
    batch = client.fetch(make_batch(client, lines=50))
    openai_server.script(http="GET /files/*/content", truncate_bytes=2_000, times=None)
    with pytest.raises((DownloadError, TransientError)):
        client.download(batch.output_file_id or "", resolve_plain(str(tmp_path / "raw" / "out.jsonl")))
    assert list((tmp_path / "raw").iterdir()) == []


def test_cancelling_what_is_final_already_is_no_error(
    openai_server: OpenAIServer, client: BatchClient
) -> None:
    batch_id = make_batch(client)
    assert client.fetch(batch_id).status == "completed"
    client.cancel(batch_id)
    with pytest.raises(NotFoundError):
        client.cancel("batch_nowhere")
