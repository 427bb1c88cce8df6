"""A real Airflow, and the emulator that posts to it when a batch ends: who waits for it goes on within seconds.

`POLL_S` is an hour: a run that ends at all within these tests' time was woken.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_openai_batch.plugin.wake import MIN_AGE_S
from airflow_openai_batch.testing.server import OpenAIServer
from airflow_openai_batch.testing.webhooks import sign_webhook
from demo.standalone import ROOT, LocalAirflow
from fixtures.job import Job, chat_line
from fixtures.postgres import run_postgres

if TYPE_CHECKING:
    from demo.api import Run

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

POLL_S = 3600
WITHIN_S = 60.0
"""From a batch's end to that of the task which waits for it; two to five where the machine has nothing else to do."""
BATCH_S = 1_000.0
"""Of the emulator's clock, which is moved on when tasks wait: however slow the machine is, no batch ends before."""
SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0cw=="
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

BOTH_ENGINES = pytest.mark.parametrize(
    "engine", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs_program("initdb"))]
)
CROWD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from airflow.triggers.base import TriggerEvent
from airflow_openai_batch.plugin.wake import find_waiting, resume

(waiting,) = find_waiting(sys.argv[1], {})
event = TriggerEvent({"batch_id": sys.argv[1], "status": "completed"})
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(lambda _: resume(waiting, event), range(8))))
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Airflow and OpenAI."""

    airflow: LocalAirflow
    server: OpenAIServer

    @property
    def url(self) -> str:
        return f"{self.airflow.url}/openai-batch/webhooks/signed"

    def end_batches(self, run: Run, task_id: str, *, instances: int) -> float:
        """Let them end as soon as all wait for them, and long enough; the time (Unix seconds)."""
        self.wait_until(run, task_id, "deferred", instances=instances)
        time.sleep(MIN_AGE_S)
        self.server.clock.advance(BATCH_S)
        return time.time()

    def wait_for_end(self, run: Run) -> None:
        assert self.airflow.wait(run, timeout_s=240) == "success", self.airflow.explain(run)
        assert {instance["try_number"] for instance in self.airflow.task_instances(run)} == {1}

    def ends(self, run: Run, task_id: str) -> list[float]:
        """When its instances ended (Unix seconds)."""
        return [
            datetime.fromisoformat(instance["end_date"]).timestamp()
            for instance in self.airflow.task_instances(run)
            if instance["task_id"] == task_id
        ]

    def wait_until(self, run: Run, task_id: str, state: str, *, instances: int = 1) -> None:
        deadline = time.monotonic() + 180
        while list(self.states_of(run, task_id)).count(state) < instances:
            assert time.monotonic() < deadline, self.airflow.states(run)
            time.sleep(0.3)

    def states_of(self, run: Run, task_id: str) -> list[str]:
        return [state for (task, _), state in self.airflow.states(run).items() if task == task_id]

    def answers(self, batch_id: str) -> list[int | None]:
        """What Airflow answered to the emulator's events of a batch."""
        return [answer.status for answer in self.server.webhooks.answers if answer.batch_id == batch_id]

    def batch_ids(self, run: Run) -> list[str]:
        return [b["id"] for b in self.server.batches() if (b["metadata"] or {}).get("run_id") == run.run_id]


@contextlib.contextmanager
def set_stage(folder: Path, **env: str) -> Iterator[Stage]:
    dags = folder / "dags"
    dags.mkdir()
    for name in ("openai_batch.py", "openai_batch_one_task.py"):
        shutil.copy(ROOT / "dags" / name, dags)
    (dags / "woken.py").write_text(DAGS)
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
        yield Stage(airflow, server)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with set_stage(tmp_path_factory.mktemp("woken")) as stage:
        yield stage


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with run_postgres() as database:
        url = f"postgresql+psycopg2://airflow@{database}/airflow"
        folder = tmp_path_factory.mktemp("woken-postgres")
        with set_stage(folder, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=url) as stage:
            yield stage


@pytest.fixture
def tell() -> Iterator[Callable[..., None]]:
    """Let the emulator send its events to a stage, until the end of the test."""
    with contextlib.ExitStack() as stack:

        def configure(stage: Stage, **settings: Any) -> None:
            usual = {"webhook_url": stage.url, "webhook_secret": SECRET, "in_progress_s": BATCH_S}
            stage.server.configure(**{**usual, **settings})
            stack.callback(stage.server.unscript)
            stack.callback(stage.server.configure, webhook_url=None, webhook_copies=1, webhook_delay_s=0)

        yield configure


def make_job(folder: Path, name: str, *, shards: int) -> Job:
    """Shards of two requests."""
    lines = (chat_line(f"{name}/{n}", f"{name} {n}: lovely.") for n in range(2 * shards))
    params = {"max_requests_per_shard": 2, "poll_interval": POLL_S, "conn_id": "signed"}
    return Job(folder, params).write(lines)


def test_a_webhook_saves_what_the_poll_interval_would_have_cost(
    sqlite: Stage, tell: Callable[..., None], tmp_path: Path
) -> None:
    tell(sqlite, webhook_copies=3)
    job = make_job(tmp_path, "mapped", shards=3)
    run = sqlite.airflow.trigger("openai_batch", job.conf())
    ended_at = sqlite.end_batches(run, "shard.wait", instances=3)
    sqlite.wait_for_end(run)
    waits = [end - ended_at for end in sqlite.ends(run, "shard.wait")]
    assert len(waits) == 3
    assert max(waits) < WITHIN_S
    assert len(job.rows()) == 6
    assert [sqlite.answers(batch_id).count(200) for batch_id in sqlite.batch_ids(run)] == [3, 3, 3]


def test_one_task_for_the_whole_job_goes_on_with_each_shard(
    sqlite: Stage, tell: Callable[..., None], tmp_path: Path
) -> None:
    tell(sqlite)
    job = make_job(tmp_path, "whole", shards=2)
    sqlite.server.script(batch="completed", takes_s=1.5 * BATCH_S, shard=1)
    run = sqlite.airflow.trigger("whole_job", {key: job.conf()[key] for key in ("input_uri", "output_uri")})
    for landed in (1, 2):
        sqlite.end_batches(run, "job", instances=1)
        deadline = time.monotonic() + WITHIN_S
        while len(list((job.output / "results").glob("part-*.parquet"))) < landed:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert len(job.rows()) == 2 * landed
    sqlite.wait_for_end(run)


def test_a_batch_that_ends_at_once(sqlite: Stage, tell: Callable[..., None], tmp_path: Path) -> None:
    """Its event comes before its task is deferred, or just then; on a slow machine the task sees the end itself."""
    tell(sqlite, in_progress_s=0.5)
    job = make_job(tmp_path, "early", shards=2)
    run = sqlite.airflow.trigger("openai_batch_one_task", job.conf())
    sqlite.wait_for_end(run)


@BOTH_ENGINES
def test_trigger_and_webhook_at_the_same_moment_resume_a_task_once(
    request: pytest.FixtureRequest, engine: str, tell: Callable[..., None], tmp_path: Path
) -> None:
    stage: Stage = request.getfixturevalue(engine)
    tell(stage, webhook_copies=2, webhook_delay_s=0.1)
    job = make_job(tmp_path, "race", shards=8)
    for dag_id, task_id in (("openai_batch", "shard.wait"), ("openai_batch_one_task", "shard")):
        output = f"{job.conf()['output_uri']}-{dag_id}"
        run = stage.airflow.trigger(dag_id, job.conf(poll_interval=2, output_uri=output))
        stage.end_batches(run, task_id, instances=8)
        stage.wait_for_end(run)
    log = (stage.airflow.home / "components" / "api-server.log").read_text()
    assert "Nobody was woken" not in log


@BOTH_ENGINES
def test_of_many_that_resume_one_task_at_once_one_does(
    request: pytest.FixtureRequest, engine: str, tell: Callable[..., None], tmp_path: Path
) -> None:
    """And what is said too early is looked up by the task, which waits on."""
    stage: Stage = request.getfixturevalue(engine)
    tell(stage)
    job = make_job(tmp_path, f"crowd-{engine}", shards=1)
    run = stage.airflow.trigger("openai_batch_one_task", job.conf())
    stage.wait_until(run, "shard", "deferred")
    time.sleep(MIN_AGE_S)
    (batch_id,) = stage.batch_ids(run)
    done = subprocess.run(
        [sys.executable, "-c", CROWD, batch_id],
        env=stage.airflow.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["1"], done.stdout[-2000:] + done.stderr[-2000:]
    stage.end_batches(run, "shard", instances=1)
    stage.wait_for_end(run)
    assert len(job.rows()) == 2


def test_a_forged_event_wakes_nobody_and_a_good_one_that_comes_again_does(
    sqlite: Stage, tell: Callable[..., None], tmp_path: Path
) -> None:
    tell(sqlite, webhook_secret="whsec_Zm9yZ2Vk")
    job = make_job(tmp_path, "forged", shards=1)
    run = sqlite.airflow.trigger("openai_batch_one_task", job.conf())
    sqlite.end_batches(run, "shard", instances=1)
    (batch_id,) = sqlite.batch_ids(run)
    deadline = time.monotonic() + WITHIN_S
    while len(sqlite.answers(batch_id)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(5)
    assert set(sqlite.answers(batch_id)) == {401}
    assert sqlite.states_of(run, "shard") == ["deferred"]

    sqlite.server.configure(webhook_secret=SECRET)
    sqlite.wait_for_end(run)


def test_batches_of_strangers_and_of_nobody(sqlite: Stage, tell: Callable[..., None], tmp_path: Path) -> None:
    """Somebody else's batch wakes nobody, unless a sensor of ours waits for just that one."""
    tell(sqlite)
    server = httpx.Client(
        base_url=sqlite.server.base_url, headers={"Authorization": "Bearer k"}, trust_env=False
    )
    line = chat_line("stranger/1", "Stranger: lovely.")
    file = server.post("/files", files={"file": ("a.jsonl", line)}, data={"purpose": "batch"}).json()["id"]

    def create() -> str:
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(server.post("/batches", json=body).json()["id"])

    nobodys, watched = create(), create()
    run = sqlite.airflow.trigger("bare_batch", {"batch_id": watched})
    sqlite.end_batches(run, "wait", instances=1)
    sqlite.wait_for_end(run)
    assert sqlite.answers(nobodys) == [200]
    for batch_id in ("batch_unknown", watched):  # nobody waits any more; it never was
        assert post_event(sqlite, batch_id) == 200


def test_clearing_and_marking_while_a_batch_runs(
    sqlite: Stage, tell: Callable[..., None], tmp_path: Path
) -> None:
    tell(sqlite)
    job = make_job(tmp_path, "cleared", shards=2)
    run = sqlite.airflow.trigger("openai_batch_one_task", job.conf())
    sqlite.wait_until(run, "shard", "deferred", instances=2)
    sqlite.airflow.mark(run, "shard", "success", map_index=1)
    sqlite.airflow.clear(run, "shard", 0)
    sqlite.end_batches(run, "shard", instances=1)
    sqlite.airflow.wait(run, timeout_s=120)
    assert sqlite.states_of(run, "shard") == ["success", "success"]
    assert len(job.rows()) == 2, "what was marked was not landed: its event found nobody"


def test_the_secret_is_shown_nowhere(sqlite: Stage) -> None:
    shown = sqlite.airflow.get("/api/v2/connections/signed")
    assert SECRET not in str(shown)
    assert "***" in shown["extra"]
    for path in sqlite.airflow.home.rglob("*.log"):
        text = path.read_text(errors="replace")
        assert SECRET not in text, path
        assert "sk-test" not in text, path


def post_event(stage: Stage, batch_id: str) -> int:
    event = {"id": "evt_x", "object": "event", "created_at": 1, "type": "batch.completed"}
    body = json.dumps({**event, "data": {"id": batch_id}})
    headers = sign_webhook(body, SECRET, webhook_id=f"wh_{batch_id}_again", timestamp=time.time())
    return httpx.post(stage.url, content=body, headers=headers, trust_env=False).status_code
