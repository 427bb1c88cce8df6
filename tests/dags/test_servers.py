"""The main DAG against each server that the emulator plays: splitting, a full queue, expiry, a lost reply."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.testing.servers.choice import RULES
from fixtures.gate import open_gate
from fixtures.reviews import REVIEWS, check_reviews, write_reviews

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag
    from fixtures.job import Job


def played(*names: str, **settings: Any) -> list[Any]:
    """Parameters for tests, of which the fixture `openai_server` plays each."""
    marks = {name: pytest.mark.openai_server(server=name, models=("*",), **settings) for name in names}
    return [pytest.param(name, marks=mark, id=name) for name, mark in marks.items()]


each_server = pytest.mark.parametrize("server", played(*RULES))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return write_reviews(tmp_path)


@each_server
def test_whatever_happens_every_request_ends_in_one_row(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    job: Job,
    say: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    server: str,
) -> None:
    """The queue is full, a batch expires, a reply is lost, all in one run; the tests below have each alone."""
    say(server=server)
    openai_server.script(batch="failed", code="token_limit_exceeded", limit=30_000, nth=1)
    openai_server.script(batch="expired", done=2, total=5, nth=2)
    openai_server.script(http="POST /batches", drop="after", skip=2)
    monkeypatch.setitem(Policy.__init__.__kwdefaults__, "queue_wait_s", 0.1)  # waits of a minute otherwise
    check_reviews(run_dag("openai_batch", job.conf(), retries=2), job, openai_server)
    assert openai_server.files() == []  # all that was uploaded, and all results, are deleted again


@pytest.mark.long
@each_server
def test_every_request_ends_in_one_row(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, say: Callable[..., str], server: str
) -> None:
    say(server=server)
    check_reviews(run_dag("openai_batch", job.conf()), job, openai_server)
    assert openai_server.files() == []  # all that was uploaded, and all results, are deleted again


@pytest.mark.long
@each_server
def test_a_full_queue_is_waited_out_whatever_its_words(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    job: Job,
    say: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    server: str,
) -> None:
    say(server=server)
    openai_server.script(batch="failed", code="token_limit_exceeded", limit=30_000, times=2)
    monkeypatch.setitem(Policy.__init__.__kwdefaults__, "queue_wait_s", 0.1)  # waits of a minute otherwise
    check_reviews(run_dag("openai_batch", job.conf()), job, openai_server)


@pytest.mark.long
@pytest.mark.parametrize("server", played(*(name for name in RULES if name != "azure")))
def test_what_an_expired_batch_left_over_is_sent_again_alone(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, say: Callable[..., str], server: str
) -> None:
    say(server=server)
    openai_server.script(batch="expired", done=2, total=5, nth=1)
    check_reviews(run_dag("openai_batch", job.conf()), job, openai_server)
    assert len(openai_server.batches()) == 3


@pytest.mark.long
@each_server
def test_a_lost_reply_is_found_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, say: Callable[..., str], server: str
) -> None:
    say(server=server)
    openai_server.script(http="POST /batches", drop="after", times=2)
    check_reviews(run_dag("openai_batch", job.conf(), retries=3), job, openai_server)
    assert len(openai_server.batches()) == 2


@pytest.mark.parametrize("server", played("azure", processing_s=0.5))
def test_a_file_is_waited_for_until_it_is_processed(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    job: Job,
    say: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    server: str,
) -> None:
    say(server=server)
    monkeypatch.setattr("airflow_openai_batch.sending.machine.FILE_WAITS_S", (0.3, 0.3, 0.3, 0.3))
    check_reviews(run_dag("openai_batch", job.conf()), job, openai_server)
    assert openai_server.books.calls_of("POST /v1/files") == 2
    assert openai_server.books.calls_of("POST /v1/batches") == 2  # none was refused


@pytest.mark.parametrize("server", played("litellm", in_progress_s=4.0))
def test_a_batch_that_a_gateway_has_created_twice_is_paid_once(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, define_connection: Callable[..., str], server: str
) -> None:
    """LiteLLM's proxy asks again by itself where a reply to it is lost, and hands on the second answer."""
    with open_gate(openai_server.url) as gate:

        def ask_again(_: bytes) -> bytes:
            url, headers = f"{openai_server.base_url}/batches", {"authorization": "Bearer sk-test"}
            again = urllib.request.Request(url, gate.bodies[-1], headers, method="POST")
            with urllib.request.urlopen(again) as answer:
                return answer.read()

        gate.change("POST /v1/batches", ask_again)
        extra = {"server": server}
        define_connection(
            "openai_default", conn_type="openai", password="sk-test", host=gate.base_url, extra=extra
        )
        run = run_dag("openai_batch_one_task", job.conf())
    assert run.state == "success", run.failures
    assert {row["status"] for row in job.rows()} == {"ok"}
    assert (
        sorted(batch["status"] for batch in openai_server.batches()) == ["cancelled"] * 2 + ["completed"] * 2
    )
    assert openai_server.books.billed["batch"] < 2 * REVIEWS
