"""Batches that are under way while a cluster is upgraded, or goes back: what another release wrote is carried on,
or refused in words that say what to do.

The files in ``fixtures/upgrade`` were written by this release; in ``older`` fields are missing that have a default
by now, in ``newer`` there are fields that nobody knows yet. ``{batch_0}`` and the like stand for what is only known
when the test runs.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from airflow.sdk import DAG, TriggerRule

from airflow_openai_batch.job.plan import job_key
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

FOLDER = Path(__file__).parents[1] / "fixtures" / "upgrade"
RELEASES = ["older", "newer"]
UPGRADE = "Upgrade airflow-provider-openai-batch"


class Interrupted:
    """A job of three shards that another release left: the first waits for its batch, the second, which was refused,
    for room in the queue, and the third was killed while it created its batch."""

    def __init__(self, folder: Path, release: str, server: OpenAIServer) -> None:
        self.job = Job(folder).write(())
        self.release = release
        self.job.input.write_bytes((FOLDER / "requests.jsonl").read_bytes())
        os.utime(self.job.input, (1_790_000_000, 1_790_000_000))
        self.uri = f"file://{self.job.output}"
        self.names = {"input": f"file://{self.job.input}", "job": self.uri}
        self.fingerprint = json.loads((FOLDER / f"plan.{release}.json").read_text())["fingerprint"]
        self.names["job_key_1"] = self._key(1, send=2)
        self._send(server)
        plan = json.dumps(self.read("plan"))
        self.job.output.mkdir()
        (self.job.output / "plan.json").write_text(plan)
        for name, event in self.read("state").items():
            place = self.job.output / "state" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(event))

    def read(self, what: str) -> Any:
        text = (FOLDER / f"{what}.{self.release}.json").read_text()
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return json.loads(text)

    def make_trigger(self, name: str) -> BaseTrigger:
        """As the triggerer does from its table."""
        path, arguments = self.read("deferred")[name]
        module, _, kind = path.rpartition(".")
        trigger: BaseTrigger = getattr(importlib.import_module(module), kind)(**arguments)
        return trigger

    def _key(self, shard: int, *, send: int = 1) -> str:
        return job_key(self.uri, self.fingerprint, 1, shard, send)

    def _send(self, server: OpenAIServer) -> None:
        """What is at OpenAI by then."""
        lines = (FOLDER / "requests.jsonl").read_bytes().splitlines(keepends=True)
        with openai.OpenAI(base_url=server.base_url, api_key="any") as client:
            for shard in range(3):
                key = self._key(shard)
                content = b"".join(lines[shard * 2 : shard * 2 + 2])
                file = client.files.create(file=(f"{key}.jsonl", content), purpose="batch")
                self.names[f"file_{shard}"] = file.id
                if shard == 1:
                    continue
                numbers = {"shard": str(shard), "send": "1", "requests": "2", "input_tokens": "26"}
                batch = client.batches.create(
                    input_file_id=file.id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={"job_key": key, "model": "gpt-4o-mini", **numbers},
                )
                self.names[f"batch_{shard}"] = batch.id


@pytest.fixture(params=RELEASES)
def interrupted(request: pytest.FixtureRequest, tmp_path: Path, openai_server: OpenAIServer) -> Interrupted:
    return Interrupted(tmp_path, request.param, openai_server)


def wake_shard(interrupted: Interrupted) -> DAG:
    """One task for each shard, which another release has deferred; the third begins anew."""

    class Shard(OpenAIBatchShardOperator):
        def execute(self, context: Any) -> Any:
            waits = {0: "end", 1: "room"}.get(self.shard["shard"])  # type: ignore[index]
            if waits is None:
                return super().execute(context)
            trigger = interrupted.make_trigger(waits)
            return self.defer(trigger=trigger, method_name="resume", kwargs={"later": 1})

    with DAG(f"wake_shards_{interrupted.release}", schedule=None) as dag:
        refs = [{"job": interrupted.uri, "shard": number} for number in range(3)]
        shards = Shard.partial(task_id="shard", send_mode="batch", poll_interval=0.1).expand(shard=refs)
        publish = OpenAIBatchReportOperator(
            task_id="publish", job=interrupted.uri, trigger_rule=TriggerRule.ALL_DONE
        )
        shards >> publish
    return dag


def wake_job(interrupted: Interrupted) -> DAG:
    """One task for the whole job."""

    class WholeJob(OpenAIBatchJobOperator):
        def execute(self, context: Any) -> Any:
            kwargs = {"given_up": {}, "hiccups": 0, "later": 1}
            return self.defer(trigger=interrupted.make_trigger("first"), method_name="resume", kwargs=kwargs)

    with DAG(f"wake_job_{interrupted.release}", schedule=None) as dag:
        WholeJob(
            task_id="job",
            input_uri=str(interrupted.job.input),
            output_uri=interrupted.uri,
            max_requests_per_shard=2,
            send_mode="batch",
            poll_interval=0.1,
        )
    return dag


@pytest.mark.parametrize("make_dag", [wake_shard, wake_job])
def test_what_another_release_deferred_is_carried_on_and_nothing_is_paid_twice(
    run_dag: RunDag, openai_server: OpenAIServer, interrupted: Interrupted, make_dag: Any
) -> None:
    run = run_dag(make_dag(interrupted))
    assert run.state == "success", (run.states, run.failures)
    rows = interrupted.job.rows()
    assert [(row["custom_id"], row["status"]) for row in rows] == [(f"review/{n}", "ok") for n in range(6)]
    assert [row["batch_id"] for row in rows[0:1] + rows[4:5]] == [
        interrupted.names["batch_0"],
        interrupted.names["batch_2"],
    ]
    assert openai_server.books.billed["batch"] == 6
    assert set(openai_server.books.good_by_custom_id.values()) == {1}
    assert len(openai_server.batches()) == 3


def test_the_split_goes_on_with_the_plan_of_another_release(
    run_dag: RunDag, openai_server: OpenAIServer, interrupted: Interrupted
) -> None:
    run = run_dag("openai_batch_one_task", interrupted.job.conf(max_requests_per_shard=2))
    assert run.state == "success", (run.states, run.failures)
    assert openai_server.books.billed["batch"] == 6
    assert len(interrupted.job.rows()) == 6


@pytest.mark.parametrize("name", ["end", "room", "first"])
def test_what_a_trigger_does_not_know_is_kept_when_it_is_stored_again(
    interrupted: Interrupted, name: str
) -> None:
    path, arguments = interrupted.read("deferred")[name]
    stored_path, stored = interrupted.make_trigger(name).serialize()
    assert stored_path == path
    assert {key: stored[key] for key in arguments} == arguments


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """One shard of three requests."""
    return Job(tmp_path).write(chat_line(str(n)) for n in range(3))


def test_a_plan_of_a_newer_schema_is_refused_before_anything_is_sent(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    job.output.mkdir()
    (job.output / "plan.json").write_text(json.dumps({"schema_version": 2, "shards": {"count": 3}}))
    run = run_dag("openai_batch_one_task", job.conf())
    assert run.state == "failed"
    assert UPGRADE in run.errors("split")
    assert "remove" not in run.errors("split")
    assert openai_server.batches() == openai_server.files() == []


NEWER_EVENTS = {
    "0002-paused.json": {"kind": "paused"},
    "0002-re-opened2.json": {"kind": "re-opened2"},
    "0002-intent.json": {"kind": "intent", "schema_version": 2},
    "0002-refused.json": {"kind": "refused", "limit": 5, "unit": "images"},
}


@pytest.fixture(params=NEWER_EVENTS)
def newer_event(request: pytest.FixtureRequest, run_dag: RunDag, job: Job) -> Iterator[str]:
    """In the ledger of a shard that has a plan and was uploaded."""
    assert run_dag("openai_batch_one_task", job.conf(dry_run=True)).state == "success"
    plan = json.loads((job.output / "plan.json").read_text())
    common = {"send": 1, "at": time.time(), "plan": f"{plan['fingerprint'][:16]}.1"}
    folder = job.output / "state" / "00000"
    folder.mkdir(parents=True)
    (folder / request.param).write_text(json.dumps({**common, **NEWER_EVENTS[request.param]}))
    return request.param  # type: ignore[no-any-return]


def test_an_event_of_a_newer_release_stops_shard_and_report_and_says_upgrade(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, newer_event: str
) -> None:
    run = run_dag("openai_batch_one_task", job.conf())
    assert run.states["shard", 0] == run.states["publish", -1] == "failed"
    for error in (run.errors("shard", map_index=0), run.errors("publish")):
        assert UPGRADE in error
        assert newer_event in error
    assert openai_server.batches() == openai_server.files() == []


def test_the_breaker_of_another_release_is_read(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    assert run_dag("openai_batch_one_task", job.conf(dry_run=True)).state == "success"
    opened = {"at": time.time() + 60, "by": "d/r/t", "message": "no money left", "later": 1}
    (job.output / "breaker.json").write_text(json.dumps(opened))
    run = run_dag("openai_batch_one_task", job.conf())
    assert "no money left" in run.errors("shard", map_index=0)
    assert openai_server.batches() == []


def test_a_finished_job_of_another_release_is_reported_again(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    counts, cost = (job.report()[name] for name in ("counts", "cost"))
    (done,) = (job.output / "state" / "00000").glob("*-done.json")
    event = json.loads(done.read_text())
    del event["summary"]["phases_s"], event["summary"]["landed"]["part_sha256"]
    event["summary"]["later"] = event["summary"]["landed"]["later"] = {"a": 1}
    done.write_text(json.dumps(event))
    for paid in (job.output / "spent").iterdir():
        paid.write_text(json.dumps({**json.loads(paid.read_text()), "later": 1}))
    assert run_dag("openai_batch_one_task", job.conf()).state == "success"
    assert (job.report()["counts"], job.report()["cost"]) == (counts, cost)
    assert openai_server.books.billed["batch"] == 3
