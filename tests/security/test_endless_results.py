"""A server that streams without an end fills no disk: neither with a result file, nor with a video, nor a list."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_openai_batch.errors import ConfigError, ListError, TooLargeError
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from airflow_openai_batch.openai_api import paging
from airflow_openai_batch.storage.location import resolve_plain

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.client import BatchClient

MB = 2**20
SETTING = "AIRFLOW__OPENAI_BATCH__MAX_RESULT_BYTES"


class Endless(http.server.BaseHTTPRequestHandler):
    """Contents without an end, and lists with another batch after each."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.endswith("/content"):
            self._stream()
        else:
            after = parse_qs(url.query).get("after", ["batch_0"])[0]
            self._answer(_make_page(int(after.removeprefix("batch_"))))

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.end_headers()
        try:
            for _ in itertools.repeat(None, 64):  # far beyond any limit of these tests
                self.wfile.write(b'{"custom_id":"1"}\n' * (MB // 18))
        except OSError:
            self.close_connection = True

    def _answer(self, found: dict[str, Any]) -> None:
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _make_page(after: int) -> dict[str, Any]:
    batches = [
        {
            "id": f"batch_{number}",
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "status": "completed",
            "input_file_id": "file-1",
            "completion_window": "24h",
            "created_at": 2_000_000_000,
        }
        for number in range(after + 1, after + 101)
    ]
    return {"object": "list", "data": batches, "has_more": True, "last_id": batches[-1]["id"]}


@pytest.fixture
def client(airflow_db: None, define_connection: Callable[..., str]) -> Iterator[BatchClient]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}/v1"
    define_connection("openai_default", conn_type="openai", password="sk-test", host=host)
    with OpenAIBatchHook("openai_default").get_batch_client() as client:
        yield client
    server.shutdown()
    server.server_close()


@pytest.fixture
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, str(3 * MB))


WORDS = r"has more than 3,145,728 bytes, the limit .*\[openai_batch\] max_result_bytes"


@pytest.mark.usefixtures("_small_limit")
def test_a_result_file_without_an_end_fills_no_disk(client: BatchClient, tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match=WORDS):
        client.download("file-1", resolve_plain(str(tmp_path / "raw.jsonl")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_small_limit")
def test_nor_does_a_video(client: BatchClient, tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match=WORDS):
        client.videos.download("video_1", resolve_plain(str(tmp_path / "1.mp4")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", ["0", "-1", "lots"])
def test_a_limit_that_is_none_is_told(
    client: BatchClient, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv(SETTING, said)
    with pytest.raises(ConfigError, match="max_result_bytes"):
        OpenAIBatchHook("openai_default").get_batch_client()


def test_a_list_without_an_end_is_given_up(client: BatchClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MOST_ITEMS", 2_000)
    with pytest.raises(ListError, match=r"2,000 batches were seen.*Nothing was created"):
        client.find("key", since=0.0)
