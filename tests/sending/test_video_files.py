"""Videos that a batch has begun, against a server that lets calls go wrong: each is fetched once, and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from airflow_openai_batch.job.request_line import RequestLine
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.results.raw_index import SendFiles
from airflow_openai_batch.sending.video_files import VideoCollector, open_video_segments
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.shard_on_disk import answer

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

CONTENT = "GET /v1/videos/*/content"
LOOK = "GET /v1/videos/*"


@pytest.fixture
def client(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchClient]:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)  # only the clock
    with BatchClient(openai.OpenAI(base_url=openai_server.base_url, api_key="sk-test")) as client:
        yield client


class Begun:
    """A shard of two requests for videos whose batch has ended."""

    def __init__(self, folder: Path, client: BatchClient, server: OpenAIServer) -> None:
        self.output = resolve_plain(str(folder))
        self.folder = folder
        self.requests = []
        lines = []
        for position, custom_id in enumerate(("a", "b")):
            body = {"model": "sora-2", "prompt": f"A cat called {custom_id}", "size": "720x1280"}
            line = {"custom_id": custom_id, "method": "POST", "url": "/v1/videos", "body": body}
            self.requests.append(RequestLine(position, "in.jsonl", position + 1, json.dumps(line).encode()))
            job = server.emulator.call("/v1/videos", body)[0]
            lines.append(answer(custom_id, job))
        raw = folder / "raw" / "00000.1.output.jsonl"
        raw.parent.mkdir()
        raw.write_bytes(b"\n".join(lines))
        self.raw = resolve_plain(str(raw))
        self._collector = VideoCollector(output=self.output, shard=0, client=client.videos)

    def collect(self) -> int:
        segments = open_video_segments(self.output, 0, 1).places()
        send = SendFiles(send=1, sent_as="batch", batch_id="batch_1", files=(self.raw, *segments))
        return self._collector.collect(send, self.requests)

    @property
    def files(self) -> dict[str, int]:
        return self.output.child("media/shard-00000").sizes()


@pytest.fixture
def begun(tmp_path: Path, client: BatchClient, openai_server: OpenAIServer) -> Begun:
    return Begun(tmp_path, client, openai_server)


def test_what_is_fetched_is_looked_at_no_more(begun: Begun, openai_server: OpenAIServer) -> None:
    assert begun.collect() == 0
    assert list(begun.files) == ["000000000.1-1.mp4", "000000001.1-1.mp4"]
    assert begun.collect() == 0
    assert openai_server.books.calls_of(CONTENT) == 2
    assert openai_server.books.calls_of(LOOK) == 2


def test_a_file_that_is_gone_is_fetched_again(begun: Begun, openai_server: OpenAIServer) -> None:
    begun.collect()
    begun.output.child("media/shard-00000/000000001.1-1.mp4").remove()
    assert begun.collect() == 0
    assert len(begun.files) == 2
    assert openai_server.books.calls_of(CONTENT) == 3


@pytest.mark.parametrize(
    "fault",
    [
        {"truncate_bytes": 100},
        {"page": "<html>Please log in.</html>"},
        {"status": 500},
        {"drop": "before"},
    ],
    ids=["cut", "login page", "error", "connection lost"],
)
def test_what_arrives_in_pieces_is_fetched_anew(
    begun: Begun, openai_server: OpenAIServer, fault: dict[str, Any]
) -> None:
    openai_server.script(http=CONTENT, times=2, **fault)
    assert begun.collect() == 0
    assert all(size > 500 for size in begun.files.values())


def test_one_that_cannot_be_fetched_holds_up_no_other(begun: Begun, openai_server: OpenAIServer) -> None:
    openai_server.script(http=CONTENT, page="<html>Please log in.</html>", times=5)
    assert begun.collect() == 1
    assert len(begun.files) == 1
    assert begun.collect() == 0
    assert len(begun.files) == 2


def test_one_that_the_server_does_not_know_may_come_yet(begun: Begun, openai_server: OpenAIServer) -> None:
    openai_server.script(http=LOOK, status=404, times=1)
    assert begun.collect() == 1
    assert begun.collect() == 0


def test_an_id_that_leads_elsewhere_is_not_asked_for(begun: Begun, openai_server: OpenAIServer) -> None:
    lines = [answer("a", {"id": "../files", "status": "completed"}), answer("b", {"id": 7})]
    begun.raw.write_bytes(b"\n".join(lines))
    assert begun.collect() == 0
    assert openai_server.books.calls_of(LOOK) == 0


def test_a_video_that_is_too_large_keeps_no_other_away(tmp_path: Path, openai_server: OpenAIServer) -> None:
    sdk = openai.OpenAI(base_url=openai_server.base_url, api_key="sk-test")
    with BatchClient(sdk, max_result_bytes=10) as client:
        begun = Begun(tmp_path, client, openai_server)
        assert begun.collect() == 2
    assert begun.files == {}
    assert openai_server.books.calls_of(CONTENT) == 2  # each once: another try brings no less
