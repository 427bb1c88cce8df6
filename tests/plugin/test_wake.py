"""A real Airflow, and the emulator that posts to it when a batch ends: who waits for it goes on within seconds.

`POLL_S` is an hour: a run that ends at all within these tests' time was woken.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_openai_batch.testing.server import OpenAIServer
from airflow_openai_batch.testing.webhooks import sign_webhook
from airflow_openai_batch.triggers.held import MIN_AGE_S
from demo.standalone import ROOT, LocalAirflow, allow_forms
from fixtures.job import Job, chat_line
from fixtures.postgres import run_postgres
from fixtures.wait import wait_until

if TYPE_CHECKING:
    from demo.api import Run

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(900)]

POLL_S = 3600
WITHIN_S = 60.0
"""From a batch's end to that of the task which waits for it; two to five where the machine has nothing else to do."""
PATIENCE_S = 240.0
"""For what a busy machine takes long to do."""
BATCH_S = 1_000.0
"""Of the emulator's clock, which is moved on when tasks wait: however slow the machine is, no batch ends before."""
SECRET, FORGED = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw==", "whsec_Zm9yZ2Vk"
DAGS = f"""
from airflow.sdk import DAG
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor

with DAG("whole_job", schedule=None, params={{"input_uri": "", "output_uri": ""}}):
    OpenAIBatchJobOperator(
        task_id="job", conn_id="signed", poll_interval={POLL_S}, send_mode="batch", max_requests_per_shard=2,
        input_uri="{{{{ params.input_uri }}}}", output_uri="{{{{ params.output_uri }}}}",
    )
with DAG("bare_batch", schedule=None, params={{"batch_id": ""}}):
    OpenAIBatchSensor(
        task_id="wait", conn_id="signed", poll_interval={POLL_S}, batch_id="{{{{ params.batch_id }}}}"
    )
"""
COPIES = 3
"""Of each event: OpenAI delivers at least once."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Airflow and OpenAI."""

    airflow: LocalAirflow
    server: OpenAIServer

    @property
    def url(self) -> str:
        return f"{self.airflow.url}/openai-batch/webhooks/signed"

    def wait_for_end(self, run: Run) -> None:
        assert self.airflow.wait(run, timeout_s=PATIENCE_S) == "success", self.airflow.explain(run)
        instances = self.airflow.task_instances(run)
        assert {each["try_number"] for each in instances if each["state"] != "skipped"} == {1}

    def wait_until_deferred(self, run: Run, task_id: str, instances: int = 1) -> None:
        def count() -> int:
            return self.states_of(run, task_id).count("deferred")

        wait_until(f"deferred {task_id} of {run.dag_id}", count, instances, timeout_s=PATIENCE_S)

    def states_of(self, run: Run, task_id: str) -> list[str]:
        return [state for (task, _), state in self.airflow.states(run).items() if task == task_id]

    def ends(self, run: Run, task_id: str) -> list[float]:
        """When its instances ended (Unix seconds)."""
        return [
            datetime.fromisoformat(instance["end_date"]).timestamp()
            for instance in self.airflow.task_instances(run)
            if instance["task_id"] == task_id
        ]

    def answers(self, batch_id: str) -> list[int | None]:
        """What Airflow answered to the emulator's events of a batch."""
        return [answer.status for answer in self.server.webhooks.answers if answer.batch_id == batch_id]

    def batch_ids(self, run: Run) -> list[str]:
        return [b["id"] for b in self.server.batches() if (b["metadata"] or {}).get("run_id") == run.run_id]

    def post_event(self, batch_id: str) -> int:
        """A good one that nobody sent; the answer's status."""
        event = {"id": "evt_x", "object": "event", "created_at": 1, "type": "batch.completed"}
        body = json.dumps({**event, "data": {"id": batch_id}})
        headers = sign_webhook(body, SECRET, webhook_id=f"wh_{batch_id}_again", timestamp=time.time())
        return httpx.post(self.url, content=body, headers=headers, trust_env=False).status_code


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("woken")
    dags = folder / "dags"
    dags.mkdir()
    for name in ("openai_batch.py", "openai_batch_one_task.py"):
        shutil.copy(ROOT / "dags" / name, dags)
    (dags / "woken.py").write_text(DAGS)
    env = allow_forms(tmp_path_factory.getbasetemp()) | {
        "AIRFLOW__OPENAI_BATCH__WEBHOOK_CONN_IDS": "signed",
        "AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS": "signed",
    }
    with OpenAIServer() as server, LocalAirflow(folder / "airflow", dags=dags, env=env) as airflow:
        # A worker's first call makes the API server build schemas, for seconds in which it answers nobody.
        httpx.get(f"{airflow.url}/execution/health", timeout=180, trust_env=False)
        airflow.request("POST", "/api/v2/connections", json={
            "connection_id": "signed",
            "conn_type": "openai",
            "password": "sk-test",
            "host": server.base_url,
            "extra": f'{{"webhook_secret": "{SECRET}"}}',
        })  # fmt: skip
        made = Stage(airflow, server)
        server.configure(webhook_url=made.url, webhook_secret=SECRET, in_progress_s=BATCH_S)
        yield made


@dataclass(frozen=True, slots=True)
class Scene:
    """Runs whose tasks all waited for batches when these ended, and what happened until they were told of it."""

    mapped: Run
    whole: Run
    touched: Run
    """Of two shards, both waiting, one was then marked success and the other cleared."""
    bare: Run
    jobs: dict[str, Job]
    nobodys: str
    """A batch that no task waits for."""
    deferred: list[str]
    """The states of tasks after forged events."""
    refusals: dict[str, list[int | None]]
    """What was answered to these, by batch."""
    told_at: float
    """Unix seconds."""


@pytest.fixture(scope="module")
def scene(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    airflow, server = stage.airflow, stage.server
    server.configure(webhook_secret=FORGED, webhook_copies=COPIES)
    server.script(batch="completed", takes_s=2.5 * BATCH_S, shard=1, metadata={"dag_id": "whole_job"})
    jobs = {name: make_job(folder / name, name, shards=2) for name in ("mapped", "whole", "touched")}
    places = {key: jobs["whole"].conf()[key] for key in ("input_uri", "output_uri")}
    nobodys, watched = create_strange_batches(server, count=2)
    touched = airflow.trigger("openai_batch_one_task", jobs["touched"].conf())
    mapped = airflow.trigger("openai_batch", jobs["mapped"].conf())
    whole = airflow.trigger("whole_job", places)
    bare = airflow.trigger("bare_batch", {"batch_id": watched})
    waiting = {touched: "shard", mapped: "shard.wait", whole: "job", bare: "wait"}
    stage.wait_until_deferred(touched, "shard", 2)
    airflow.mark(touched, "shard", "success", map_index=1)
    airflow.clear(touched, "shard", 0)
    for run, instances in ((touched, 1), (mapped, 2), (whole, 1), (bare, 1)):
        stage.wait_until_deferred(run, waiting[run], instances)
    server.clock.advance(BATCH_S)

    batches = [*stage.batch_ids(touched), *stage.batch_ids(mapped), nobodys, watched]
    wait_until(
        "forged events",
        lambda: all(len(stage.answers(each)) >= COPIES for each in batches),
        timeout_s=WITHIN_S,
    )
    time.sleep(2)
    deferred = [state for run, task in waiting.items() for state in stage.states_of(run, task)]
    refusals = {each: stage.answers(each) for each in batches}
    server.configure(webhook_secret=SECRET)
    return Scene(mapped, whole, touched, bare, jobs, nobodys, deferred, refusals, time.time())


def create_strange_batches(server: OpenAIServer, *, count: int) -> list[str]:
    """Without anything of ours in their metadata."""
    headers = {"Authorization": "Bearer k"}
    with httpx.Client(base_url=server.base_url, headers=headers, trust_env=False) as client:
        line = chat_line("stranger/1", "Stranger: lovely.")
        sent = client.post("/files", files={"file": ("a.jsonl", line)}, data={"purpose": "batch"}).json()
        body = {"input_file_id": sent["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return [client.post("/batches", json=body).json()["id"] for _ in range(count)]


def make_job(folder: Path, name: str, *, shards: int) -> Job:
    """Shards of two requests."""
    lines = (chat_line(f"{name}/{n}", f"{name} {n}: lovely.") for n in range(2 * shards))
    params = {"max_requests_per_shard": 2, "poll_interval": POLL_S, "conn_id": "signed"}
    return Job(folder, params).write(lines)


def test_a_webhook_saves_what_the_poll_interval_would_have_cost(stage: Stage, scene: Scene) -> None:
    stage.wait_for_end(scene.mapped)
    waits = [end - scene.told_at for end in stage.ends(scene.mapped, "shard.wait")]
    assert len(waits) == 2
    assert max(waits) < WITHIN_S
    assert len(scene.jobs["mapped"].rows()) == 4
    batches = stage.batch_ids(scene.mapped)
    wait_until(
        "copies",
        lambda: [stage.answers(batch_id).count(200) for batch_id in batches],
        [COPIES, COPIES],
        timeout_s=WITHIN_S,
    )


def test_forged_events_wake_nobody(scene: Scene) -> None:
    """A good one that comes again does, as the other tests see."""
    assert {status for answers in scene.refusals.values() for status in answers} == {401}
    assert Counter(scene.deferred) == {"deferred": 5, "success": 1}


def test_one_task_for_the_whole_job_goes_on_with_each_shard(stage: Stage, scene: Scene) -> None:
    job = scene.jobs["whole"]

    def count_parts() -> int:
        return len(list((job.output / "results").glob("part-*.parquet")))

    wait_until("the first shard", count_parts, 1, timeout_s=WITHIN_S)
    assert len(job.rows()) == 2
    stage.wait_until_deferred(scene.whole, "job")
    stage.server.clock.advance(2 * BATCH_S)
    wait_until("the second shard", count_parts, 2, timeout_s=WITHIN_S)
    stage.wait_for_end(scene.whole)
    assert len(job.rows()) == 4


def test_batches_of_strangers_and_of_nobody(stage: Stage, scene: Scene) -> None:
    """Somebody else's batch wakes nobody, unless a sensor of ours waits for just that one."""
    stage.wait_for_end(scene.bare)
    wait_until("events", lambda: 200 in stage.answers(scene.nobodys), timeout_s=WITHIN_S)
    for batch_id in ("batch_unknown", *scene.refusals):  # it never was; nobody waits any more
        assert stage.post_event(batch_id) == 200


def test_clearing_and_marking_while_a_batch_runs(stage: Stage, scene: Scene) -> None:
    stage.airflow.wait(scene.touched, timeout_s=PATIENCE_S)
    assert stage.states_of(scene.touched, "shard") == ["success", "success"]
    assert len(scene.jobs["touched"].rows()) == 2, "what was marked was not landed: its event found nobody"


def test_trigger_and_webhook_at_the_same_moment_resume_a_task_once(stage: Stage, tmp_path: Path) -> None:
    """And the event of a batch that ends at once comes before its task is deferred, or just then."""
    airflow, server = stage.airflow, stage.server
    server.configure(webhook_secret=SECRET, webhook_copies=2, webhook_delay_s=0.1)
    server.script(batch="completed", takes_s=0.5, times=None, metadata={"run_id": "early"})
    early = make_job(tmp_path / "early", "early", shards=2)
    runs = [airflow.trigger("openai_batch_one_task", early.conf(), run_id="early")]
    waiting = (("openai_batch", "shard.wait"), ("openai_batch_one_task", "shard"))
    for dag_id, _ in waiting:
        job = make_job(tmp_path / dag_id, dag_id, shards=5)
        runs.append(airflow.trigger(dag_id, job.conf(poll_interval=2)))
    for run, (_, task_id) in zip(runs[1:], waiting, strict=True):
        stage.wait_until_deferred(run, task_id, 5)
    time.sleep(MIN_AGE_S)  # an event that comes sooner lets its task wait so long
    server.clock.advance(BATCH_S)
    for run in runs:
        stage.wait_for_end(run)
    assert len(early.rows()) == 4
    log = (airflow.home / "components" / "api-server.log").read_text()
    assert "Nobody was woken" not in log


def test_the_secret_is_shown_nowhere(stage: Stage) -> None:
    shown = stage.airflow.get("/api/v2/connections/signed")
    assert SECRET not in str(shown)
    assert "***" in shown["extra"]
    for path in stage.airflow.home.rglob("*.log"):
        text = path.read_text(errors="replace")
        assert SECRET not in text, path
        assert "sk-test" not in text, path


@pytest.mark.parametrize(
    "engine", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs_program("initdb"))]
)
def test_of_many_that_resume_one_task_at_once_one_does(engine: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/airflow.db"
        if engine == "postgres":
            url = f"postgresql+psycopg2://airflow@{stack.enter_context(run_postgres())}/airflow"
        env: dict[str, Any] = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'tests'}",
            "_AIRFLOW_PROCESS_CONTEXT": "server",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        }
        command = [sys.executable, "-m", "fixtures.wake_crowd"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "found": 12,
        "resumed": 12,
        "states": {"scheduled": 12},
    }
