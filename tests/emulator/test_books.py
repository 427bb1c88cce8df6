"""The books, in the process and over the control API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import pytest

from airflow_openai_batch.testing import ControlClient, EmulatorProcess, OpenAIServer
from emulator.lines import (
    CHAT,
    chat_body,
    request_line,
    request_lines,
    send_batch,
    start_batch,
    still_emulator,
)


def test_what_was_paid_twice_is_found_across_batches_and_real_time() -> None:
    emulator = still_emulator()
    lines = (
        request_lines(3)
        + request_line("same-1", chat_body("Same."))
        + request_line("same-2", chat_body("Same."))
    )
    start_batch(emulator, lines)
    emulator.batches.settle()
    assert list(emulator.books.paid_twice(lines.splitlines())) == [], "two lines may have one body"
    body = {"messages": [{"content": "Tell me about r-1.", "role": "user"}], "model": "gpt-4o-mini"}
    emulator.call(CHAT, body)
    assert list(emulator.books.paid_twice(lines.splitlines())) == [("r-1", 2, 1)]


def test_kept_batches_leave_out_what_was_refused_or_cancelled() -> None:
    emulator = still_emulator(in_progress_s=60)
    emulator.script.add({"batch": "failed", "nth": 1})
    ids = [start_batch(emulator, request_lines(1), job_key="k") for _ in range(3)]
    emulator.get_batch(ids[0])
    emulator.cancel_batch(ids[1])
    assert emulator.kept_batches("k") == [ids[2]]
    assert emulator.kept_batches("unknown") == []


def test_another_process_scripts_reads_and_moves_the_clock(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    control = ControlClient(openai_server.base_url)
    assert control.configure(in_progress_s=60)["in_progress_s"] == 60
    control.run_clock(speed=0)
    rule = control.script(line=500, custom_id="r-0")
    with pytest.raises(ValueError, match="nonsense"):
        control.script(line=500, nonsense=1)
    with openai.OpenAI(base_url=control.base_url, api_key="k") as client:
        batch = send_batch(client, request_lines(3), job_key="a/b")
        before = control.now()
        assert control.advance(60) == pytest.approx(before + 60)
        assert client.batches.retrieve(batch.id).status == "completed"
        send_batch(client, request_lines(3))
    control.advance(60)
    books = control.books()
    assert books["billed"] == {"batch": 5}
    assert books["batches"][batch.id] == "completed"
    assert len(books["files"]) == 5
    assert control.hits(rule) == 1
    assert control.kept_batches("a/b") == [batch.id]
    assert control.good_by_custom_id(least=2) == {"r-1": 2, "r-2": 2}
    path = tmp_path / "in.jsonl"
    path.write_bytes(request_lines(3))
    assert sorted(control.paid_twice(path)) == [("r-1", 2, 1), ("r-2", 2, 1)]
    control.occupy_queue("gpt-4o", tokens=5)
    assert control.books()["enqueued"]["gpt-4o"] == 5
    control.reset()
    assert control.books()["billed"] == {}
    assert control.rules() == []


def test_the_emulator_runs_as_a_process_with_exact_tokens() -> None:
    options = "--queue-limit gpt-4o-mini=15 --count-tokens exact --speed 0 --duration 9 --script"
    arguments = (*options.split(), '{"line": 500, "custom_id": "nobody"}')
    with (
        EmulatorProcess(*arguments) as emulator,
        openai.OpenAI(base_url=emulator.base_url, api_key="k") as client,
    ):
        batch = send_batch(client, request_line("a", chat_body("Hello")))  # 3 + 1 + 1 + 3 tokens
        assert client.batches.retrieve(batch.id).status == "in_progress"
        assert emulator.books()["enqueued"] == {"gpt-4o-mini": 8}
        assert (
            client.batches.retrieve(send_batch(client, request_line("b", chat_body("Hello"))).id).status
            == "failed"
        )
        assert [rule["hits"] for rule in emulator.rules()] == [0]
        emulator.advance(9)
        assert client.batches.retrieve(batch.id).status == "completed"


def test_a_process_that_cannot_start_says_so() -> None:
    with pytest.raises(RuntimeError, match="ended with code"):
        EmulatorProcess("--port", "no")


def test_the_pytest_plugin_costs_nothing_until_it_is_used() -> None:
    code = (
        "import sys, airflow_openai_batch.testing.pytest_plugin\n"
        "heavy = {'starlette', 'uvicorn', 'numpy', 'msgspec', 'airflow', 'openai'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
