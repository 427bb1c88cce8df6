"""A server, or whoever answers in its place, fills no memory: neither a worker's nor that of a triggerer, where the
tasks of all DAGs wait."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest

from airflow_openai_batch.errors import TransientError
from airflow_openai_batch.hooks import openai_batch
from airflow_openai_batch.openai_api import retrying
from airflow_openai_batch.openai_api.async_client import AsyncBatchClient

MB = 2**20


def pack(megabytes: int) -> bytes:
    """A list of no batches, a thousandth of its size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b'{"object":"list","data":[],"x":"')]
    parts += [packer.compress(b"a" * MB) for _ in range(megabytes)]
    return b"".join((*parts, packer.compress(b'"}'), packer.flush()))


@pytest.fixture
def bomber() -> Iterator[tuple[str, dict[str, object]]]:
    """A server's address, and what it answers to everything."""
    says: dict[str, object] = {"status": 200, "encoding": "gzip", "body": b""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = says["body"]
            assert isinstance(body, bytes)
            self.send_response(int(str(says["status"])))
            self.send_header("content-type", "application/json")
            self.send_header("content-encoding", str(says["encoding"]))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", says
    server.shutdown()
    server.server_close()


@pytest.fixture
def conn(
    airflow_db: None, bomber: tuple[str, dict[str, object]], define_connection: Callable[..., str]
) -> dict[str, object]:
    define_connection("openai_default", conn_type="openai", password="sk-test", host=bomber[0])
    return bomber[1]


@pytest.mark.parametrize("status", [200, 500])
def test_a_small_answer_that_bursts_fills_no_triggerer(conn: dict[str, object], status: int) -> None:
    conn.update(status=status, body=pack(300))

    async def look() -> None:
        sdk = await openai_batch.OpenAIBatchHook("openai_default").aget_conn()
        await AsyncBatchClient(sdk).list_page(None)

    tracemalloc.start()
    with pytest.raises(TransientError, match=r"more than 67,108,864 bytes, the limit"):
        asyncio.run(look())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200 * MB


def test_nor_a_worker(conn: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_batch, "MOST_BYTES", 8 * MB)
    monkeypatch.setattr(retrying.RETRY, "sleep", lambda _: None)
    conn.update(body=pack(30))
    client = openai_batch.OpenAIBatchHook("openai_default").get_batch_client()
    with client, pytest.raises(TransientError, match=r"more than 8,388,608 bytes, the limit"):
        client.fetch("batch_1")


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd"])
def test_what_is_packed_otherwise_is_not_unpacked(
    conn: dict[str, object], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(retrying.RETRY, "sleep", lambda _: None)
    conn.update(encoding=encoding, body=gzip.compress(pack(30)))
    client = openai_batch.OpenAIBatchHook("openai_default").get_batch_client()
    with client, pytest.raises(TransientError, match=f"packed as {encoding}, which was not asked for"):
        client.fetch("batch_1")


def test_an_honest_answer_is_unpacked(conn: dict[str, object]) -> None:
    conn.update(body=pack(1))
    client = openai_batch.OpenAIBatchHook("openai_default").get_batch_client()
    with client:
        assert list(client.iter_batches(0.0)) == []
