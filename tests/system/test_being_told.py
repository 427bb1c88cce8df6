"""What whoever is on call gets from a real Airflow: metrics over UDP, one message per run, and logs to read."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_openai_batch.testing.server import OpenAIServer
from demo.openai_side import OpenAISide
from demo.standalone import LocalAirflow, allow_forms
from fixtures.job import Job, chat_line
from fixtures.wait import wait_until

if TYPE_CHECKING:
    from demo.api import Run

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
DAGS = """
from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_openai_batch.alerts import AlertOnFailure, alert_when_overdue
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.task_group import openai_batch_task_group
from fixtures.file_notifier import AsyncFileNotifier, FileNotifier

PARAMS = {{name: Param(type="string") for name in ("input_uri", "output_uri")}}


def ask():
    openai_batch_task_group(
        "ask",
        input_uri="{{{{ params.input_uri }}}}",
        output_uri="{{{{ params.output_uri }}}}",
        max_requests_per_shard=2,
        poll_interval=1,
        send_mode="batch",
    )


with DAG("told", schedule=None, params=PARAMS, on_failure_callback=AlertOnFailure(FileNotifier("{folder}/told.jsonl"))):
    ask()

with DAG(
    "told_each",
    schedule=None,
    params={{"jobs": Param(type="array")}},
    on_failure_callback=AlertOnFailure(FileNotifier("{folder}/told_each.jsonl")),
):

    @task
    def find(params=None):
        return params["jobs"]

    OpenAIBatchJobOperator.partial(
        task_id="ask", max_requests_per_shard=2, poll_interval=1, send_mode="batch"
    ).expand_kwargs(find())


def ask_each():
    OpenAIBatchJobOperator.partial(
        task_id="ask", max_requests_per_shard=2, poll_interval=1, send_mode="batch"
    ).expand_kwargs([{{name: f"{{{{{{{{ params.{{name}} }}}}}}}}" for name in PARAMS}}])


for name, notifier, job_task, ask_all in (
    ("late", FileNotifier, "ask.split", ask),
    ("late_async", AsyncFileNotifier, "ask", ask_each),
):
    with DAG(
        name,
        schedule=None,
        params=PARAMS,
        deadline=alert_when_overdue(
            {late_h}, job_task=job_task, notifier=notifier, notifier_args={{"path": f"{folder}/{{name}}.jsonl"}}
        ),
    ):
        ask_all()
"""
LATE = ("late", "late_async")
LATE_S = 90
BATCH_S = 1_000.0
"""Of the emulator's clock, which is moved on when all was seen: however slow the machine is, no batch ends before."""
LATE_BATCH_S = 10 * BATCH_S
LATE_MODEL = "gpt-4o"


class StatsD:
    """Takes what is sent to a UDP port of 127.0.0.1."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.counters: Counter[str] = Counter()
        self.gauges: defaultdict[str, list[float]] = defaultdict(list)
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        while True:
            for line in self._socket.recv(65_536).decode().splitlines():
                name, value, kind = re.fullmatch(r"([^:]+):([^|]+)\|(\w+).*", line).groups()  # type: ignore[union-attr]
                if kind == "c":
                    self.counters[name] += int(value)
                elif kind == "g":
                    self.gauges[name].append(float(value))

    def ours(self, dag_id: str = "") -> dict[str, int]:
        """Counters of this package by what comes after the prefix, for one DAG."""
        begin = "airflow.openai_batch."
        return {
            name.removeprefix(begin): count
            for name, count in sorted(self.counters.items())
            if name.startswith(begin) and f".{dag_id}" in name
        }


@pytest.fixture(scope="module")
def statsd() -> StatsD:
    return StatsD()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where messages are written, and the DAGs lie."""
    place = tmp_path_factory.mktemp("told")
    (place / "dags").mkdir()
    text = DAGS.format(folder=place, late_h=LATE_S / 3600)
    (place / "dags" / "told.py").write_text(text)
    return place


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    """With a clock of its own."""
    with OpenAIServer(in_progress_s=BATCH_S) as server:
        yield server


@pytest.fixture(scope="module")
def airflow(
    server: OpenAIServer, folder: Path, statsd: StatsD, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    side = OpenAISide(server.base_url, "sk-test", emulated=True)
    env = {
        **side.connection(),
        **allow_forms(tmp_path_factory.getbasetemp()),
        "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'tests'}",
        # A busy machine takes long to load what answers a callback's questions.
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "400",
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
    }
    home = tmp_path_factory.mktemp("airflow-told")
    with LocalAirflow(home, dags=folder / "dags", env=env) as made:
        for dag_id in ("told", "told_each", *LATE):
            made.wait_for_dag(dag_id, timeout_s=240)
        yield made


@pytest.fixture(scope="module")
def late(airflow: LocalAirflow, server: OpenAIServer, folder: Path) -> list[Run]:
    """Runs that wait for their batches while the other test has its own."""
    jobs = [make_job(folder / name, requests=6, name=name, model=LATE_MODEL) for name in LATE]
    server.configure(in_progress_s=LATE_BATCH_S)
    runs = [airflow.trigger(name, places(job)) for name, job in zip(LATE, jobs, strict=True)]
    wait_until("batches of late runs", lambda: len(server.batches()), 6, timeout_s=400)
    server.configure(in_progress_s=BATCH_S)
    return runs


def make_job(folder: Path, *, requests: int, name: str, model: str = "gpt-4o-mini") -> Job:
    return Job(folder).write(
        chat_line(f"{name}/{n}", f"{name} {n}: lovely.", model=model, max_tokens=50) for n in range(requests)
    )


def places(job: Job) -> dict[str, Any]:
    return {"input_uri": str(job.input), "output_uri": f"file://{job.output}"}


def wait_for_end(airflow: LocalAirflow, run: Run) -> str:
    """However slowly the API answers on a busy machine."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TimeoutException):
            return airflow.wait(run, timeout_s=deadline - time.monotonic())
    raise AssertionError(f"{run} did not end")


def read_messages(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_message(path: Path) -> dict[str, str]:
    wait_until(f"message in {path.name}", lambda: len(read_messages(path)), 1, timeout_s=400)
    return read_messages(path)[0]


def gauge_of(statsd: StatsD, model: str) -> Callable[[str], list[float]]:
    """All values that a gauge of this machine's triggerer has had, by its name."""
    host = re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname())
    return lambda name: statsd.gauges[f"airflow.openai_batch.{name}.openai_default.{model}.{host}"]


def test_a_run_with_several_failed_shards_is_one_message_and_its_metrics_arrive(
    airflow: LocalAirflow,
    server: OpenAIServer,
    late: list[Run],
    folder: Path,
    statsd: StatsD,
    tmp_path: Path,
) -> None:
    job = make_job(tmp_path, requests=12, name="told")
    for shard in (1, 4):
        server.script(batch="failed", code="model_not_found", shard=shard, times=None)
    run = airflow.trigger("told", places(job))
    gauge = gauge_of(statsd, "gpt-4o-mini")
    wait_until("batches in flight", lambda: max(gauge("batches_in_flight"), default=0), 4, timeout_s=240)
    server.clock.advance(BATCH_S)
    message = wait_for_message(folder / "told.jsonl")
    assert wait_for_end(airflow, run) == "failed"
    assert message["subject"].startswith("told failed: 2 of 6 shards are not done (1, 4): ")
    text = message["text"]
    assert "model_not_found" in text
    assert "ask.shard [1]: " in text
    assert "8 of 12 requests answered, 8 of them ok; $0.00" in text
    assert re.search(r"Asking for the 4 requests left costs \$0\.0\d+ at most", text)
    assert "Clear the failed tasks" in text
    assert f"{airflow.url}/dags/told/runs/{run.run_id.replace(':', '%3A').replace('+', '%2B')}" in text
    assert "lovely" not in text
    assert "sk-test" not in text

    found = statsd.ours("told")
    told = "openai_default.gpt-4o-mini.told"
    cost = found.pop(f"cost_micro_usd.{told}")
    assert found == {
        f"rows.{told}.ok": 8,
        f"sends.{told}.batch": 6,
        f"refusals.{told}.permanent": 2,
    }
    paid_usd = job.report()["cost"]["actual_usd"]
    assert cost == pytest.approx(paid_usd * 1e6, abs=4)

    for name in ("batches_in_flight", "tokens_in_flight", "oldest_batch_age_s"):
        assert max(gauge(name)) > 0, name
        assert gauge(name)[-1] == 0, "a gauge keeps its value until it is set again"
    names = [*statsd.counters, *statsd.gauges]
    assert not [name for name in names if "sk-test" in name or re.search(r"batch_[0-9a-f]{6}", name)]

    server.unscript()
    server.configure(in_progress_s=0)
    assert airflow.clear_failed(run)
    assert wait_for_end(airflow, run) == "success", airflow.explain(run)
    assert statsd.ours("told")[f"rows.{told}.ok"] == 12, "what had landed before is not counted again"


def test_of_several_jobs_the_message_is_about_the_one_that_failed(
    airflow: LocalAirflow, server: OpenAIServer, late: list[Run], folder: Path, tmp_path: Path
) -> None:
    jobs = [make_job(tmp_path / name, requests=2, name=name) for name in ("good", "bad")]
    server.script(line=400, custom_id="bad/1", times=None)
    run = airflow.trigger("told_each", {"jobs": [places(job) for job in jobs]})
    message = wait_for_message(folder / "told_each.jsonl")
    assert wait_for_end(airflow, run) == "failed"
    assert message["subject"].startswith("told_each failed: 1 of 2 rows are not ok")
    assert str(jobs[1].output) in message["text"]
    assert str(jobs[0].output) not in message["text"]
    assert "Failed tasks: ask [1]." in message["text"]
    server.unscript()


def test_runs_that_take_too_long_are_one_message_each_and_go_on(
    airflow: LocalAirflow, server: OpenAIServer, late: list[Run], folder: Path, statsd: StatsD
) -> None:
    for name in LATE:
        message = wait_for_message(folder / f"{name}.jsonl")
        words = f"{name} not over {LATE_S / 3600:g} h after it was queued: 3 of 3 shards are not done"
        assert message["subject"].startswith(words)
        assert re.search(
            r"The oldest batch, batch_\w+ of shard \d, was sent \d+ (s|min) ago", message["text"]
        )
    in_flight = gauge_of(statsd, LATE_MODEL)("batches_in_flight")
    assert in_flight[-1] == 6
    server.clock.advance(LATE_BATCH_S)
    for run in late:
        assert wait_for_end(airflow, run) == "success", airflow.explain(run)
    assert in_flight[-1] == 0
    assert {path.name: len(read_messages(path)) for path in folder.glob("*.jsonl")} == {
        "late.jsonl": 1,
        "late_async.jsonl": 1,
        "told.jsonl": 1,  # a run that was mended is no second message
        "told_each.jsonl": 1,
    }
