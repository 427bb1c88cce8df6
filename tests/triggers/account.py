"""An account with batches, made quickly, and clients for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import openai

from airflow_openai_batch.openai_api.async_client import AsyncBatchClient

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from airflow_openai_batch.triggers.watcher import Connect

LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]},
}


def upload_input(server: OpenAIServer) -> str:
    with openai.OpenAI(base_url=server.base_url, api_key="any") as client:
        return client.files.create(file=("f.jsonl", json.dumps(LINE).encode()), purpose="batch").id


def create_batches(server: OpenAIServer, count: int, *, job_keys: Iterable[str] = ()) -> list[str]:
    """Oldest first; with a job_key each, as far as there are any."""
    file_id = upload_input(server)
    keys = iter(job_keys)
    made = []
    for _ in range(count):
        key = next(keys, None)
        with server.lock:  # past HTTP, where a thousand would take seconds
            batch = server.emulator.create_batch(
                {
                    "input_file_id": file_id,
                    "endpoint": "/v1/chat/completions",
                    "completion_window": "24h",
                    "metadata": {"job_key": key} if key else None,
                }
            )
        made.append(str(batch["id"]))
    return made


def make_connect(server: OpenAIServer, key: Callable[[], str] = lambda: "any") -> Connect:
    async def connect() -> AsyncBatchClient:
        return AsyncBatchClient(openai.AsyncOpenAI(base_url=server.base_url, api_key=key()))

    return connect


def count_calls(server: OpenAIServer) -> int:
    """All that asked about batches."""
    return server.books.calls_of("GET /v1/batches") + server.books.calls_of("GET /v1/batches/*")
