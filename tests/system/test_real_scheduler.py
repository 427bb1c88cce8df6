"""The DAGs under a real scheduler, triggerer and API server, with the emulator behind them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing.server import OpenAIServer
    from demo.standalone import LocalAirflow

# The first one also waits for Airflow to start.
pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Twenty shards of two requests."""
    lines = (chat_line(f"review/{n}", f"Review {n}: lovely.") for n in range(40))
    return Job(tmp_path, {"max_requests_per_shard": 2, "poll_interval": 1}).write(lines)


def test_twenty_shards_of_which_one_fails(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, job: Job
) -> None:
    """The failing shard holds up no other, the report names it, and another run sends what is missing alone."""
    rule = shared_openai_server.script(batch="failed", code="model_not_found", shard=7, times=None)
    run = local_airflow.trigger("openai_batch_one_task", job.conf())
    assert local_airflow.wait(run, timeout_s=300) == "failed"
    states = local_airflow.states(run)
    shards = {index: state for (task, index), state in states.items() if index >= 0}
    assert len(shards) == 20
    assert {index for index, state in shards.items() if state == "failed"} == {7}
    assert Counter(shards.values())["success"] == 19
    assert len(job.rows()) == 38
    assert job.report()["counts"]["unfinished"] == 2

    shared_openai_server.unscript(rule)
    sent = len(shared_openai_server.batches())
    again = local_airflow.trigger("openai_batch_one_task", job.conf())
    assert local_airflow.wait(again, timeout_s=300) == "success", local_airflow.explain(again)
    assert len(shared_openai_server.batches()) == sent + 1
    assert [row["custom_id"] for row in job.rows()] == [f"review/{n}" for n in range(40)]


def test_step_by_step_dag_through_object_storage(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = Job(tmp_path).write(chat_line(f"r{n}") for n in range(6))
    run = local_airflow.trigger("openai_batch", job.conf(max_requests_per_shard=2, poll_interval=1))
    assert local_airflow.wait(run, timeout_s=300) == "success", local_airflow.explain(run)
    assert {row["status"] for row in job.rows()} == {"ok"}
    log = local_airflow.logs(run, "shard.wait", map_index=0)
    assert "batch_" in log
    assert "Review" not in log


def test_airflow_has_read_everything_without_errors(local_airflow: LocalAirflow) -> None:
    assert local_airflow.get("/api/v2/importErrors")["total_entries"] == 0
    assert local_airflow.get("/api/v2/plugins/importErrors")["total_entries"] == 0
    plugins = [plugin["name"] for plugin in local_airflow.get("/api/v2/plugins")["plugins"]]
    assert plugins.count("openai_batch") == 1, "the shim must not register it a second time"


def test_nothing_answers_strangers(local_airflow: LocalAirflow) -> None:
    """No log server on all interfaces, no API without a login."""
    processes = [process for child in local_airflow.children for process in child.family()]
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    answer = httpx.get(f"{local_airflow.url}/api/v2/dags", trust_env=False)
    assert answer.status_code == httpx.codes.UNAUTHORIZED
