"""Find before paying, on servers as they are: clocks that differ, no metadata, files and calls that have to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from airflow.sdk import DAG

from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.sending.policy import Policy
from fixtures.gate import open_gate
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

ONE_TASK = "openai_batch_one_task"
QUARTER_S = 900.0
CANNOT_FIND = "Cannot find file file-x, or organization org-x does not have access to it."
NOT_PROCESSED = "File 'file-x' is not processed yet. Try again later."


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """One shard of two requests."""
    return Job(tmp_path).write(chat_line(str(n)) for n in range(2))


def events(job: Job) -> list[str]:
    names = sorted(path.name for path in (job.output / "state/00000").iterdir())
    return [name.split("-")[1].removesuffix(".json") for name in names]


@pytest.mark.parametrize("skew_s", [-QUARTER_S, QUARTER_S])
def test_a_lost_reply_is_found_by_the_servers_own_clock(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, skew_s: float
) -> None:
    openai_server.configure(clock_skew_s=skew_s)
    openai_server.script(http="POST /batches", drop="after")
    assert run_dag(ONE_TASK, job.conf(), retries=1).state == "success"
    assert len(openai_server.batches()) == 1
    assert openai_server.books.billed["batch"] == 2


def test_a_lost_ledger_is_found_by_the_servers_own_clock(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.configure(clock_skew_s=-4 * QUARTER_S)
    assert run_dag(ONE_TASK, job.conf()).state == "success"
    for path in (job.output / "state/00000").iterdir():
        path.unlink()
    assert run_dag(ONE_TASK, job.conf()).state == "success"
    assert openai_server.books.billed["batch"] == 2


def test_a_bare_create_that_is_cleared_long_after_finds_its_batch(
    run_dag: RunDag, openai_server: OpenAIServer
) -> None:
    openai_server.configure(
        clock_skew_s=-QUARTER_S
    )  # as if the run had started anew a quarter of an hour later
    with openai.OpenAI(base_url=openai_server.base_url, api_key="any") as client:
        file = client.files.create(file=("f.jsonl", f"{chat_line('a')}\n".encode()), purpose="batch")
    openai_server.script(http="POST /batches", drop="after")
    with DAG("bare_again", schedule=None) as dag:
        OpenAIBatchCreateOperator(task_id="create", input_file_id=file.id)
    run = run_dag(dag, retries=1)
    (batch,) = openai_server.batches()
    assert run.xcom("create") == {"batch_id": batch["id"]}


@pytest.mark.openai_server(keeps_metadata=False)
def test_a_batch_is_found_by_its_file_where_the_server_keeps_no_metadata(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(http="POST /batches", drop="after")
    assert run_dag(ONE_TASK, job.conf(), retries=1).state == "success"
    assert len(openai_server.batches()) == 1


@pytest.mark.openai_server(keeps_metadata=False)
def test_a_refused_batch_is_not_taken_for_that_of_the_next_send(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.machine.FILE_WAITS_S", (0.1, 0.1, 0.1, 0.1))
    openai_server.script(batch="failed", code="invalid_request", nth=1)
    openai_server.script(http="POST /batches", drop="after", skip=1)
    assert run_dag(ONE_TASK, job.conf(), retries=1).state == "success"
    assert [batch["status"] for batch in openai_server.batches()].count("completed") == 1
    assert len(openai_server.batches()) == 2


@pytest.mark.openai_server(list_page_most=2)
def test_a_list_that_goes_round_creates_nothing(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    with openai.OpenAI(base_url=openai_server.base_url, api_key="any") as client:
        file = client.files.create(file=("f.jsonl", f"{chat_line('a')}\n".encode()), purpose="batch")
        for _ in range(3):
            client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
    openai_server.script(http="GET /batches", forget_after=True, times=None)
    run = run_dag(ONE_TASK, job.conf())
    assert run.state == "failed"
    assert "the list cannot be read to its end" in run.errors("shard", map_index=0)
    assert len(openai_server.batches()) == 3
    openai_server.unscript()
    assert run_dag(ONE_TASK, job.conf()).state == "success"


def test_an_empty_page_of_a_list_that_goes_on_creates_nothing(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, define_connection: Callable[..., str]
) -> None:
    """As of a gateway that leaves out what it cannot read: the batch of the lost reply may be on the next page."""
    with open_gate(openai_server.base_url) as gate:
        define_connection("openai_default", conn_type="openai", password="sk-test", host=gate.base_url)
        gate.lose("POST /v1/batches")
        assert run_dag(ONE_TASK, job.conf()).state == "failed"
        gate.answer("GET /v1/batches", 200, {"object": "list", "data": [], "has_more": True})
        run = run_dag(ONE_TASK, job.conf())
        assert "there is more and shows none of it" in run.errors("shard", map_index=0)
        gate.let_pass("GET /v1/batches")
        assert run_dag(ONE_TASK, job.conf()).state == "success"
    assert len(openai_server.batches()) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 400, "message": CANNOT_FIND},
        {"status": 400, "message": NOT_PROCESSED},
        {"status": 404, "message": "No such File object: file-x"},
    ],
    ids=["cannot find", "not processed", "404"],
)
def test_a_file_that_is_not_visible_yet_is_waited_for_whoever_says_so(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    refusal: dict[str, Any],
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.machine.FILE_WAITS_S", (0.1, 0.1, 0.1, 0.1))
    openai_server.script(http="POST /batches", times=2, **refusal)
    run = run_dag(ONE_TASK, job.conf())
    assert run.state == "success", run.failures
    assert events(job).count("declined") == 2
    assert openai_server.books.calls_of("POST /v1/files") == 1  # the file that is there serves
    assert openai_server.books.billed["batch"] == 2


def test_a_file_that_never_shows_is_uploaded_anew_and_stops_in_the_end(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.machine.FILE_WAITS_S", (0.0,))
    monkeypatch.setattr("airflow_openai_batch.job.folding.FILE_WAITS_S", (0.0,))
    openai_server.script(http="POST /batches", status=400, message=CANNOT_FIND, times=None)
    run = run_dag(ONE_TASK, job.conf())
    assert run.state == "failed"
    assert "the shard makes no progress" in run.errors("shard", map_index=0)
    assert openai_server.books.calls_of("POST /v1/files") == 5


@pytest.mark.long
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("route", ["POST /batches", "POST /files"])
def test_retry_after_is_obeyed_without_a_worker(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    route: str,
    status: int,
) -> None:
    monkeypatch.setattr("airflow_openai_batch.sending.declined_calls.PUT_OFF_LEAST_S", 0.1)
    openai_server.script(http=route, status=status, retry_after_s=2.0)
    began = time.monotonic()
    run = run_dag(ONE_TASK, job.conf())
    assert run.state == "success", run.failures
    assert time.monotonic() - began > 2.0
    assert openai_server.books.calls_of(route.replace(" ", " /v1")) == 2
    assert openai_server.books.billed["batch"] == 2


@pytest.mark.openai_server(in_progress_s=1.5, list_lag_s=1.0)
def test_a_second_batch_that_the_server_does_not_cancel_holds_up_nothing(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenAI says 409 of what is over already; others say 400, of what is nearly over, too."""
    monkeypatch.setitem(Policy.__init__.__kwdefaults__, "create_timeout_s", 0.1)  # two minutes otherwise
    openai_server.script(http="POST /batches", drop="after")
    openai_server.script(
        http="POST /batches/*/cancel", status=400, message="It cannot be cancelled.", times=None
    )
    run = run_dag(ONE_TASK, job.conf(), retries=2)
    assert run.state == "success", run.failures
    assert [batch["status"] for batch in openai_server.batches()] == ["completed"] * 2
    assert [row["status"] for row in job.rows()] == ["ok"] * 2
