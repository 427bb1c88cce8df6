"""Requests for the emulator's tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from airflow_openai_batch.testing import Clock, Emulator

if TYPE_CHECKING:
    import openai

CHAT: Final = "/v1/chat/completions"


def chat_body(text: str = "Tell me about cats.", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def request_line(custom_id: str, body: dict[str, Any] | None = None, url: str = CHAT) -> bytes:
    body = chat_body(f"Tell me about {custom_id}.") if body is None else body
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"


def request_lines(count: int) -> bytes:
    return b"".join(request_line(f"r-{number}") for number in range(count))


def still_emulator(**settings: Any) -> Emulator:
    """An emulator without HTTP whose clock stands at 1,000,000 s."""
    from airflow_openai_batch.testing import Settings

    return Emulator(settings=Settings(**settings), clock=Clock(speed=0, start=1_000_000))


def start_batch(emulator: Emulator, lines: bytes, endpoint: str = CHAT, **metadata: str) -> str:
    file = emulator.upload(lines)
    params = {
        "input_file_id": file["id"],
        "endpoint": endpoint,
        "completion_window": "24h",
        "metadata": metadata,
    }
    return str(emulator.create_batch(params)["id"])


def send_batch(client: openai.OpenAI, lines: bytes, **metadata: str) -> openai.types.Batch:
    file = client.files.create(file=("in.jsonl", lines), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        metadata=metadata,
    )


def read_lines(content: bytes | Iterable[bytes]) -> list[dict[str, Any]]:
    whole = content if isinstance(content, bytes) else b"".join(content)
    return [json.loads(line) for line in whole.split(b"\n") if line]


def outputs(emulator: Emulator, batch_id: str) -> list[dict[str, Any]]:
    file_id = emulator.get_batch(batch_id)["output_file_id"]
    return read_lines(emulator.read_content(file_id)) if file_id else []


def errors(emulator: Emulator, batch_id: str) -> list[dict[str, Any]]:
    file_id = emulator.get_batch(batch_id)["error_file_id"]
    return read_lines(emulator.read_content(file_id)) if file_id else []
