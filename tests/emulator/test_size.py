"""The largest batch that OpenAI takes, within bounded memory."""

from __future__ import annotations

import time
from pathlib import Path

import openai
import pytest

from airflow_openai_batch.testing import EmulatorProcess
from emulator.lines import CHAT, chat_body, request_line

LINES = 50_000


def write_requests(path: Path) -> None:
    words = "the parcel came late but the people on the telephone were kind and helped at once " * 22
    with path.open("wb") as file:
        for number in range(LINES):
            file.write(request_line(f"r-{number}", chat_body(f"{number} {words}")))


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.long
def test_fifty_thousand_lines_are_answered_in_bounded_memory_while_others_are_served(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write_requests(path)
    assert path.stat().st_size > 95_000_000
    with (
        EmulatorProcess("--no-detail") as emulator,
        openai.OpenAI(base_url=emulator.base_url, api_key="k") as client,
    ):
        before_mb = peak_mb(emulator.pid)
        with path.open("rb") as file:
            uploaded = client.files.create(file=file, purpose="batch")
        batch = client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h")
        started, slowest = time.monotonic(), 0.0
        while batch.status != "completed":
            asked = time.monotonic()
            batch = client.batches.retrieve(batch.id)
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.05)
        took_s = time.monotonic() - started
        with client.files.with_streaming_response.content(batch.output_file_id or "") as reply:
            lines = sum(piece.count(b"\n") for piece in reply.iter_bytes())
        grown_mb = peak_mb(emulator.pid) - before_mb
    assert lines == LINES
    assert grown_mb < 60, f"{grown_mb:.0f} MB"
    assert slowest < 2, f"a call waited {slowest:.1f} s"
    assert took_s < 40, f"{LINES / took_s:.0f} lines/s"
