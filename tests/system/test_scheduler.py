"""The DAGs under a real scheduler, triggerer and API server, with the emulator behind them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing.server import OpenAIServer
    from demo.api import Run
    from demo.standalone import LocalAirflow

# The first one also waits for Airflow to start.
pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(420)]

STEPS = ("upload", "create", "wait", "download", "resend_leftovers")


@pytest.fixture(autouse=True)
def batches_take_2_s(shared_openai_server: OpenAIServer) -> Iterator[None]:
    """Long enough for a task to defer."""
    shared_openai_server.configure(in_progress_s=2)
    yield
    shared_openai_server.unscript()
    shared_openai_server.configure(in_progress_s=0, queue_limits={})


def make_job(folder: Path, *, requests: int, name: str) -> Job:
    """Shards of two requests; ids and texts that no other test uses, so that the books tell them apart."""
    lines = (chat_line(f"{name}/{n}", f"{name} {n}: lovely.") for n in range(requests))
    return Job(folder, {"max_requests_per_shard": 2, "poll_interval": 1}).write(lines)


def count_good_answers(server: OpenAIServer, name: str) -> dict[str, int]:
    """How often each request of a job was answered well, and so paid for."""
    return {key: n for key, n in server.books.good_by_custom_id.items() if key.startswith(f"{name}/")}


def clear_failed(airflow: LocalAirflow, run: Run) -> set[tuple[str, int]]:
    """What "Clear" with "Only failed" does in the UI; returns the task instances it took."""
    body = {"dry_run": False, "only_failed": True, "include_downstream": True, "dag_run_id": run.run_id}
    answer = airflow.request("POST", f"/api/v2/dags/{run.dag_id}/clearTaskInstances", json=body).json()
    return {(instance["task_id"], instance["map_index"]) for instance in answer["task_instances"]}


def wait_until_deferred(airflow: LocalAirflow, run: Run, task_id: str, *, instances: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        states = airflow.states(run)
        if [states.get((task_id, index)) for index in range(instances)] == ["deferred"] * instances:
            return
        time.sleep(0.5)
    raise AssertionError(airflow.states(run))


def test_one_of_twenty_shards_fails_and_clearing_it_sends_it_alone(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = make_job(tmp_path, requests=40, name="twenty")
    rule = shared_openai_server.script(batch="failed", code="model_not_found", shard=7, times=None)
    run = local_airflow.trigger("openai_batch", job.conf())
    assert local_airflow.wait(run, timeout_s=300) == "failed"

    states = local_airflow.states(run)
    assert len(states) == 2 + 20 * len(STEPS)
    lost = {("shard.wait", 7): "failed", ("publish", -1): "failed"}
    lost |= {(f"shard.{step}", 7): "upstream_failed" for step in ("download", "resend_leftovers")}
    assert {key: state for key, state in states.items() if state not in ("success", "skipped")} == lost
    skipped = {key for key, state in states.items() if state == "skipped"}
    assert skipped == {("shard.resend_leftovers", shard) for shard in range(20) if shard != 7}
    assert len(job.rows()) == 38
    assert [line["shard"] for line in job.report()["shards"] if line["state"] != "done"] == [7]
    assert "1 of 20 shards are not done (7), 2 requests without a row" in local_airflow.logs(run, "publish")
    assert "model_not_found" in local_airflow.logs(run, "shard.wait", map_index=7)

    shared_openai_server.unscript(rule)
    sent = len(shared_openai_server.batches())
    assert clear_failed(local_airflow, run) == lost.keys()
    assert local_airflow.wait(run, timeout_s=120) == "success", local_airflow.explain(run)
    assert len(shared_openai_server.batches()) == sent + 1
    assert [row["custom_id"] for row in job.rows()] == [f"twenty/{n}" for n in range(40)]
    assert {row["status"] for row in job.rows()} == {"ok"}
    assert count_good_answers(shared_openai_server, "twenty") == {f"twenty/{n}": 1 for n in range(40)}
    assert list(shared_openai_server.books.paid_twice(job.input)) == []


def test_neither_create_nor_wait_nor_leftovers_that_are_not_there_start_a_worker(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    shared_openai_server.configure(in_progress_s=60)
    job = make_job(tmp_path, requests=4, name="waited")
    shared_openai_server.script(line=500, custom_id="waited/3", times=1)
    run = local_airflow.trigger("openai_batch", job.conf(mode="batch"))
    wait_until_deferred(local_airflow, run, "shard.wait", instances=2)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and local_airflow.state(run) == "running":
        shared_openai_server.clock.advance(60)
        time.sleep(1)
    assert local_airflow.state(run) == "success", local_airflow.explain(run)
    assert local_airflow.states(run)["shard.resend_leftovers", 0] == "skipped"
    starts = {}
    created, waited = [[(task, index) for index in (0, 1)] for task in ("shard.create", "shard.wait")]
    for task_id, index in (*created, *waited, ("shard.resend_leftovers", 1)):
        log = local_airflow.logs(run, task_id, map_index=index)
        starts[task_id, index] = log.count("Worker startup parse complete")
        assert "lovely" not in log
    assert {starts[each] for each in (*created, *waited)} == {0}
    assert starts["shard.resend_leftovers", 1] > 0, "that one had something to send"
    assert "completed 100% (2 of 2)" in local_airflow.logs(run, "shard.wait", map_index=0)
    assert [row["status"] for row in job.rows()] == ["ok"] * 4
    for task_id, index in (*created, *waited):
        links = local_airflow.get(f"{run.path}/taskInstances/{task_id}/links", map_index=index)["extra_links"]
        assert links["OpenAI batch"].startswith("https://platform.openai.com/batches/batch_")


def test_shards_wait_for_room_in_the_triggerer_and_say_so(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    shared_openai_server.configure(in_progress_s=60, queue_limits={"gpt-4.1-nano": 70})
    lines = (chat_line(f"room/{n}", f"{n} lovely. " * 4, model="gpt-4.1-nano") for n in range(6))
    job = Job(tmp_path, {"max_requests_per_shard": 2, "poll_interval": 1}).write(lines)
    refusals = shared_openai_server.books.refusals.copy()  # other tests of this server's have been refused
    run = local_airflow.trigger("openai_batch", job.conf(enqueued_token_limit=70, max_tokens_per_shard=1_000))
    try:
        wait_until_deferred(local_airflow, run, "shard.upload", instances=3)
    except AssertionError:
        states = local_airflow.states(run)
        assert sum(state == "deferred" for (task, _), state in states.items() if task == "shard.upload") >= 2
    label = local_airflow.get(f"{run.path}/taskInstances/shard.upload/2")["rendered_map_index"]
    assert "waits for room: needs" in label
    assert "of 70 free" in label
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and local_airflow.state(run) == "running":
        shared_openai_server.clock.advance(60)
        time.sleep(3)
    assert local_airflow.state(run) == "success", local_airflow.explain(run)
    assert shared_openai_server.books.refusals == refusals
    assert len(job.rows()) == 6


def test_one_task_per_shard(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = make_job(tmp_path, requests=8, name="one")
    run = local_airflow.trigger("openai_batch_one_task", job.conf())
    assert local_airflow.wait(run, timeout_s=120) == "success", local_airflow.explain(run)
    assert len(local_airflow.states(run)) == 2 + 4
    assert [row["custom_id"] for row in job.rows()] == [f"one/{n}" for n in range(8)]
    assert set(count_good_answers(shared_openai_server, "one").values()) == {1}


def test_an_input_is_all_that_has_to_be_given(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path: Path
) -> None:
    shared_openai_server.configure(in_progress_s=0)  # the form's poll interval is a minute
    job = make_job(tmp_path, requests=3, name="default")
    folder = local_airflow.home / "openai_batch" / "openai_batch"
    before = set(folder.glob("*"))
    run = local_airflow.trigger("openai_batch", {"input_uri": str(job.input)})
    assert local_airflow.wait(run, timeout_s=120) == "success", local_airflow.explain(run)
    (output,) = set(folder.iterdir()) - before
    assert run.run_id.startswith(output.name.partition("T")[0])
    assert (output / "report.md").exists()
    assert len(list((output / "results").glob("part-*.parquet"))) == 1


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
