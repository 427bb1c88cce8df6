"""What a server says of a batch is believed when it holds together; nothing is paid again for what may be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.sending import result_looks
from fixtures.gate import open_gate
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

DAG = "openai_batch_one_task"
REQUESTS = 4
CONTENT = "GET /v1/files/*/content"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """One shard."""
    return Job(tmp_path).write(chat_line(str(n)) for n in range(REQUESTS))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.result_looks.LOOK_WAITS_S", (0.05,))
    for doubt in result_looks.MOST_LOOKS:
        monkeypatch.setitem(result_looks.MOST_LOOKS, doubt, 2)  # six to fifteen, in up to an hour
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)


def events(job: Job) -> list[str]:
    names = sorted(path.name for path in (job.output / "state/00000").iterdir())
    return [name.split("-")[1].removesuffix(".json") for name in names]


def assert_all_there_once(run: FinishedRun, job: Job, server: OpenAIServer) -> None:
    assert run.state == "success", run.failures
    assert [row["status"] for row in job.rows()] == ["ok"] * REQUESTS
    assert server.books.billed["batch"] == REQUESTS
    assert len(server.batches()) == 1


def test_files_that_are_named_late_are_waited_for_and_nothing_is_paid_twice(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(batch="completed", file_ids_late=2)
    run = run_dag(DAG, job.conf())
    assert_all_there_once(run, job, openai_server)
    assert "doubted" in events(job)


def test_a_file_that_is_never_named_stops_the_shard_in_words_and_a_repair_asks_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(batch="completed", hide_output_file=True)
    for _ in range(2):  # whoever clears it has as many looks again
        run = run_dag(DAG, job.conf())
        assert run.state == "failed"
        message = run.errors("shard", map_index=0)
        assert "4 of 4 requests have answers by its counts, and it names no output file" in message
        assert "Nothing is sent again" in message
        assert "repair=true" in message
        assert len(openai_server.batches()) == 1
    assert events(job).count("doubted") == 4
    run = run_dag(DAG, job.conf(repair=True))
    assert run.state == "success", run.failures
    assert [row["status"] for row in job.rows()] == ["ok"] * REQUESTS
    assert len(openai_server.batches()) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"keep_lines": 2, "times": 2},
        {"page": "<!DOCTYPE html><html><body>Please log in.</body></html>", "times": 2},
        {"status": 200, "code": "upstream", "message": "The upstream server did not answer.", "times": 2},
    ],
    ids=["cut after a whole line", "login page", "error with status 200"],
)
def test_a_download_that_is_not_what_the_batch_promises_is_done_anew(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, fault: dict[str, Any]
) -> None:
    openai_server.script(http=CONTENT, **fault)
    assert_all_there_once(run_dag(DAG, job.conf()), job, openai_server)


@pytest.mark.openai_server(file_objects=False)
def test_counts_alone_tell_a_cut_file_where_a_server_has_no_file_objects(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(http=CONTENT, keep_lines=2, times=6)
    assert_all_there_once(run_dag(DAG, job.conf()), job, openai_server)


@pytest.mark.long
def test_bytes_alone_tell_a_cut_file_where_a_batch_has_no_counts(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(batch="completed", omit=["request_counts"])
    openai_server.script(http=CONTENT, keep_lines=2, times=2)
    assert_all_there_once(run_dag(DAG, job.conf()), job, openai_server)


def test_a_file_that_stays_cut_stops_the_shard_and_sends_nothing_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(http=CONTENT, keep_lines=2, times=None)
    run = run_dag(DAG, job.conf())
    assert run.state == "failed"
    assert "bytes arrived, and the server says that the file has" in run.errors("shard", map_index=0)
    assert len(openai_server.batches()) == 1
    assert not (job.output / "raw/00000.1.output.jsonl").exists()


@pytest.mark.long
@pytest.mark.parametrize("content", [b"<html>Please log in.</html>", b'{"error": {"message": "no"}}\n', b""])
def test_what_is_in_raw_and_turns_out_wrong_is_fetched_anew(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, content: bytes
) -> None:
    openai_server.script(http=CONTENT, status=500, times=None)
    assert run_dag(DAG, job.conf()).state == "failed"
    openai_server.unscript()
    raw = job.output / "raw/00000.1.output.jsonl"
    raw.parent.mkdir(exist_ok=True)
    raw.write_bytes(content)
    assert_all_there_once(run_dag(DAG, job.conf()), job, openai_server)
    assert len(raw.read_bytes().splitlines()) == REQUESTS


def test_lines_that_the_server_itself_lost_are_asked_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line="missing", custom_id="1")
    run = run_dag(DAG, job.conf())
    assert run.state == "success", run.failures
    assert [(row["status"], row["attempts"]) for row in job.rows()] == [
        ("ok", 2 if n == 1 else 1) for n in range(REQUESTS)
    ]
    assert openai_server.books.billed["batch"] == REQUESTS + 1


@pytest.mark.long
def test_of_a_deleted_file_the_rest_lands_and_max_attempts_says_whether_it_is_asked_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line=400, custom_id="2", times=None)
    openai_server.script(batch="completed", deleted=["output"])
    run = run_dag(DAG, job.conf(max_attempts=1, max_failed_fraction=1.0))
    assert run.state == "success", run.failures
    rows = job.rows()
    assert [row["error_code"] for row in rows] == [
        "result_file_gone",
        "result_file_gone",
        "invalid_request_error",
        "result_file_gone",
    ]
    assert "output file of send 1" in rows[0]["error_message"]
    assert rows[0]["status"] == "missing"
    assert len(openai_server.batches()) == 1
    assert run_dag(DAG, job.conf(repair=True, max_failed_fraction=1.0)).state == "success"
    assert [row["status"] for row in job.rows()] == ["ok", "ok", "failed", "ok"]


@pytest.mark.long
def test_a_deleted_file_is_asked_again_within_max_attempts_by_itself(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(batch="completed", deleted=["output"])
    assert run_dag(DAG, job.conf()).state == "success"
    assert [(row["status"], row["attempts"]) for row in job.rows()] == [("ok", 2)] * REQUESTS


@pytest.mark.long
def test_a_deleted_error_file_costs_the_good_answers_nothing(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line=500, custom_id="2")
    openai_server.script(batch="completed", deleted=["error"])
    assert run_dag(DAG, job.conf()).state == "success"
    assert [row["status"] for row in job.rows()] == ["ok"] * REQUESTS
    assert openai_server.books.billed["batch"] == REQUESTS


def test_one_line_that_is_no_json_is_one_row(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    openai_server.script(line="unparsable", custom_id="1", times=None)
    run = run_dag(DAG, job.conf(max_failed_fraction=1.0))
    assert run.state == "success", run.failures
    assert [row["status"] for row in job.rows()] == ["ok", "invalid_output", "ok", "ok"]
    assert job.rows()[1]["error_code"] == "unreadable_answer"
    assert openai_server.books.billed["batch"] == REQUESTS + 2  # as often as max_attempts allows
    assert json.loads((job.output / "failed.jsonl").read_text())["custom_id"] == "1"


def test_a_file_that_the_server_says_was_deleted_is_one_that_is_gone(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    """Some answer 410 where OpenAI answers 404: neither ends a shard for ever."""
    openai_server.script(http=CONTENT, status=410, code="file_deleted", message="It was deleted.", times=2)
    run = run_dag(DAG, job.conf())
    assert run.state == "success", run.failures
    assert [row["status"] for row in job.rows()] == ["ok"] * REQUESTS


def test_answers_under_ids_that_were_never_sent_are_not_paid_for_again(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, define_connection: Callable[..., str]
) -> None:
    """A gateway that cuts blanks off the ids: nothing says whose the answers are, and another batch ends the same."""
    job = Job(tmp_path).write(chat_line(f" {n}") for n in range(REQUESTS))
    with open_gate(openai_server.base_url) as gate:
        define_connection("openai_default", conn_type="openai", password="sk-test", host=gate.base_url)
        gate.change_contents(lambda content: content.replace(b'"custom_id":" ', b'"custom_id":"'))
        run = run_dag(DAG, job.conf())
        message = run.errors("shard", map_index=0)
        assert "4 requests have no answer, and 4 lines have a custom_id that was not sent" in message
        assert "Nothing is sent again" in message
        assert openai_server.books.billed["batch"] == REQUESTS
        gate.change_contents(bytes)
        run = run_dag(DAG, job.conf(repair=True))
    assert run.state == "success", run.failures
    assert [row["status"] for row in job.rows()] == ["ok"] * REQUESTS
    assert openai_server.books.billed["batch"] == 2 * REQUESTS
