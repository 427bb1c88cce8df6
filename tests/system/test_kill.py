"""What a user does to a waiting task, and what then becomes of its batch, under a real scheduler and triggerer."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from demo.processes import Child
from fixtures.job import Job, chat_line
from fixtures.wait import wait_until

if TYPE_CHECKING:
    from airflow_openai_batch.testing.server import OpenAIServer
    from demo.api import Run
    from demo.standalone import LocalAirflow

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(420)]

DAG_ID = "openai_batch_one_task"
CANCELLED = {"cancelling", "cancelled"}


@pytest.fixture(autouse=True)
def batches_take_an_hour(shared_openai_server: OpenAIServer) -> Iterator[None]:
    shared_openai_server.configure(in_progress_s=3600)
    yield
    shared_openai_server.configure(in_progress_s=0)


def start(airflow: LocalAirflow, folder: Path, *, shards: int, name: str) -> Run:
    lines = (chat_line(f"{name}/{n}", f"{name} {n}: fine.") for n in range(shards))
    job = Job(folder / name, {"max_requests_per_shard": 1, "poll_interval": 1, "mode": "batch"}).write(lines)
    return airflow.trigger(DAG_ID, job.conf())


def shard_states(airflow: LocalAirflow, run: Run) -> dict[int, str]:
    return {index: state for (task, index), state in airflow.states(run).items() if task == "shard"}


def is_watched(airflow: LocalAirflow, run: Run, shard: int) -> bool:
    """Whether its trigger has seen the batch."""
    return "in_progress" in airflow.logs(run, "shard", map_index=shard)


def statuses(server: OpenAIServer, run: Run) -> dict[int, str]:
    """Of the run's batches, by shard."""
    return {
        int(batch["metadata"]["shard"]): batch["status"]
        for batch in server.batches()
        if batch["metadata"]["run_id"] == run.run_id
    }


def mark(airflow: LocalAirflow, run: Run, shard: int, state: str) -> None:
    airflow.request("PATCH", f"{run.path}/taskInstances/shard/{shard}", json={"new_state": state})


def clear(airflow: LocalAirflow, run: Run, shard: int) -> None:
    body: dict[str, Any] = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": [["shard", shard]]}
    body["only_failed"] = False
    airflow.request("POST", f"/api/v2/dags/{run.dag_id}/clearTaskInstances", json=body)


def start_triggerer(airflow: LocalAirflow) -> Child:
    """One that takes over from another after 8 s without a heartbeat instead of 30."""
    hasty = {
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    }
    log = airflow.home / "components" / "second-triggerer.log"
    command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
    return Child("triggerer", command, env=airflow.environment() | hasty, log=log)


def kill_triggerer(airflow: LocalAirflow, successor: Child) -> None:
    """SIGKILL; the process that runs its triggers notices and unwinds them, as it would on a real machine."""
    first = next(child for child in airflow.children if child.name == "triggerer")
    below = first.descendants()
    airflow.children[airflow.children.index(first)] = successor
    psutil.Process(first.pid).kill()
    psutil.wait_procs(below, timeout=10)
    first.stop()


def test_only_marking_failed_cancels_and_a_killed_triggerer_loses_nothing(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    airflow, server = local_airflow, shared_openai_server
    run, given_up = (
        start(airflow, tmp_path, shards=4, name="touched"),
        start(airflow, tmp_path, shards=1, name="given-up"),
    )
    for each, shards in ((run, 4), (given_up, 1)):
        look = functools.partial(shard_states, airflow, each)
        wait_until("all wait", look, dict.fromkeys(range(shards), "deferred"))
        # Airflow tells only triggers that run of what a user does, not those that no triggerer has taken up yet.
        for shard in range(shards):
            wait_until("its trigger runs", functools.partial(is_watched, airflow, each, shard))

    mark(airflow, run, 0, "failed")
    clear(airflow, run, 1)
    mark(airflow, run, 2, "success")
    airflow.request("PATCH", given_up.path, json={"state": "failed"})
    second = start_triggerer(airflow)
    took_s = wait_until(
        "cancelled",
        lambda: statuses(server, run)[0] in CANCELLED and statuses(server, given_up)[0] in CANCELLED,
    )
    assert took_s < 60  # 1 or 2 on a machine with nothing else to do
    assert "is being cancelled" in airflow.logs(run, "shard", map_index=0)
    wait_until("the cleared one waits again", lambda: shard_states(airflow, run)[1] == "deferred")
    wait_until(
        "said so",
        lambda: "goes on: its task was not marked failed" in airflow.logs(run, "shard", map_index=2),
    )
    assert {shard: statuses(server, run)[shard] for shard in (1, 2, 3)} == dict.fromkeys(
        (1, 2, 3), "in_progress"
    )

    wait_until("it runs", lambda: "Starting the triggerer" in second.log.read_text())
    kill_triggerer(airflow, second)
    looks = server.books.calls_of("GET /v1/batches")
    wait_until("taken over", lambda: server.books.calls_of("GET /v1/batches") > looks + 1)
    assert {shard: statuses(server, run)[shard] for shard in (1, 3)} == dict.fromkeys((1, 3), "in_progress")
    server.clock.advance(3600)
    assert airflow.wait(run, timeout_s=120) == "failed"  # for shard 0
    assert shard_states(airflow, run) == {0: "failed", 1: "success", 2: "success", 3: "success"}
    assert len(statuses(server, run)) == len(
        [b for b in server.batches() if b["metadata"]["run_id"] == run.run_id]
    )
