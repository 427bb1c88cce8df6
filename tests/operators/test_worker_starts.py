"""How often a worker is started for a task that only waits: whatever state it is stuck in, a handful of times, never
more often than ``poll_interval``, and with an end in words."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from msgspec.structs import replace

from airflow_openai_batch.core.plan import ShardLimits
from airflow_openai_batch.core.split import split_job
from airflow_openai_batch.locations import resolve_location
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from airflow_openai_batch.triggers.first_of import make_trigger
from airflow_openai_batch.triggers.held import MIN_AGE_S
from fixtures.job import Job, chat_line
from fixtures.virtual_time import VirtualTime, virtual_time

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = [
    pytest.mark.usefixtures("openai_conn"),
    pytest.mark.openai_server(speed=0, in_progress_s=1e9, cancelling_s=1e9),
]

POLL_S = 300.0
HOUR_S = 3600.0
STATES = ("validating", "in_progress", "finalizing", "cancelling")


@pytest.fixture
def clock(openai_server: OpenAIServer) -> Iterator[VirtualTime]:
    with virtual_time(openai_server) as clock:
        yield clock


@dataclass
class Task:
    """A task as worker and triggerer see it in turn."""

    clock: VirtualTime
    kind: type[Any]
    arguments: dict[str, Any]
    starts: list[float] = field(default_factory=list)
    end: Any = None
    """What it returned, or the words of its failure; ``None`` while it goes on."""

    def __post_init__(self) -> None:
        ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)
        ti.xcom_push = lambda *_, **__: None
        started = datetime.now(tz=UTC)
        self.context = {"ti": ti, "dag_run": SimpleNamespace(start_date=started, conf={}), "dag": None}
        self.resume: TaskDeferred | None = None

    def run(self, *, hours: float) -> Task:
        """From where it is: waiting, or cleared after a failure."""
        ends_at = time.time() + hours * HOUR_S
        event = None
        self.end = None
        while time.time() < ends_at:
            if self.resume is not None:
                trigger = make_trigger(*self.resume.trigger.serialize())
                trigger.task_instance = SimpleNamespace(task_id="t")  # type: ignore[assignment]
                event = self.clock.fire(trigger, within_s=ends_at - time.time())
                if event is None:
                    return self
            self._start(event)
            if self.end is not None:
                return self
        return self

    def _start(self, event: Any) -> None:
        self.starts.append(time.time())
        operator = self.kind(task_id="t", **self.arguments)
        deferred, self.resume = self.resume, None
        try:
            if deferred is None:
                self.end = inspect.unwrap(type(operator).execute)(operator, self.context)
            else:
                kwargs = {**(deferred.kwargs or {}), "event": event.payload}
                self.end = getattr(operator, deferred.method_name)(self.context, **kwargs)
        except TaskDeferred as wish:
            self.resume = wish
        except AirflowFailException as error:
            self.end = str(error)

    @property
    def gaps_s(self) -> list[float]:
        return [later - sooner for sooner, later in zip(self.starts, self.starts[1:], strict=False)]


@pytest.fixture
def make_task(clock: VirtualTime, tmp_path: Path) -> Any:
    job = Job(tmp_path).write(chat_line(str(n)) for n in range(2))

    def make(kind: type[Any], **options: Any) -> Task:
        common = {"send_mode": "batch", "poll_interval": POLL_S, "cancel_on_kill": False}
        if kind is OpenAIBatchJobOperator:
            places = {"input_uri": str(job.input), "output_uri": job.uri, "max_requests_per_shard": 1}
            return Task(clock, kind, {**places, **common, **options})
        split_job(
            str(job.input),
            resolve_location(job.uri),
            resolve=resolve_location,
            limits=ShardLimits(),
            now=time.time(),
        )
        return Task(clock, kind, {"shard": {"job": job.uri, "shard": 0}, **common, **options})

    return make


def hold(server: OpenAIServer, status: str, *, omit: tuple[str, ...] = ()) -> None:
    """From now on all batches stay as they are, but for a cancel, and say nothing of some times."""
    with server.lock:
        for batch in server.emulator.batches:
            if batch.status != status:
                batch.enter(status, server.emulator.clock.now())
            batch.stage += 1  # what was due is void
            batch.fault = replace(batch.fault, omit=omit)


@pytest.mark.parametrize("status", STATES)
@pytest.mark.parametrize("omit", [(), ("expires_at", "cancelling_at")])
@pytest.mark.parametrize("on_deadline", [None, "realtime", "publish", "fail"])
def test_a_stuck_batch_starts_a_worker_a_handful_of_times_and_has_an_end(
    openai_server: OpenAIServer, make_task: Any, status: str, omit: tuple[str, ...], on_deadline: str | None
) -> None:
    within = {} if on_deadline is None else {"on_deadline": on_deadline, "finish_within_h": 0.5}
    task = make_task(OpenAIBatchShardOperator, **within).run(hours=0.1)
    hold(openai_server, status, omit=omit)
    task.run(hours=40)
    assert len(task.starts) <= 4
    assert min(task.gaps_s) >= POLL_S
    (batch,) = openai_server.batches()
    assert batch["id"] in task.end
    if on_deadline == "fail":
        assert "not finished within finish_within_h" in task.end
        return
    assert "was to be cancelled more than 60 min ago and is still cancelling" in task.end
    before = len(task.starts)
    task.run(hours=0.9)  # cleared: it waits as long again
    assert task.end is None
    task.run(hours=0.5)
    assert "is still cancelling" in task.end
    assert len(task.starts) - before <= 3


@pytest.mark.parametrize("late", [False, True])
def test_a_whole_job_with_stuck_batches_does_the_same(
    openai_server: OpenAIServer, make_task: Any, late: bool
) -> None:
    within = {"on_deadline": "publish", "finish_within_h": 0.5} if late else {}
    task = make_task(OpenAIBatchJobOperator, **within).run(hours=0.1)
    hold(openai_server, "cancelling")
    task.run(hours=40)
    assert len(task.starts) <= 4
    assert min(task.gaps_s) >= POLL_S
    assert "is still cancelling" in task.end


@pytest.mark.parametrize("status", STATES)
@pytest.mark.parametrize("options", [{}, {"finish_within_h": 2.0}])
def test_a_sensor_of_any_batch_waits_until_its_time_is_over(
    openai_server: OpenAIServer, make_task: Any, status: str, options: dict[str, Any]
) -> None:
    make_task(OpenAIBatchShardOperator).run(hours=0.1)
    hold(openai_server, status)
    (batch,) = openai_server.batches()
    arguments = {"shard": None, "batch_id": batch["id"], "timeout": 50 * HOUR_S, **options}
    task = make_task(OpenAIBatchSensor, **arguments)
    with pytest.raises(Exception, match="was not final within timeout="):
        task.run(hours=60)
    assert len(task.starts) == 2


def test_a_queue_that_refuses_starts_two_workers_for_each_try(
    openai_server: OpenAIServer, make_task: Any
) -> None:
    """One to create the batch, and one that learns of its refusal."""
    openai_server.configure(queue_limits={"gpt-4o-mini": 1_000})
    openai_server.occupy_queue("gpt-4o-mini", tokens=1_000)  # of a stranger, in no list of ours
    task = make_task(OpenAIBatchShardOperator, enqueued_token_limit=1_000).run(hours=30)
    assert task.end is None
    assert len(openai_server.batches()) <= 8 + 30 * HOUR_S / 900
    assert len(task.starts) <= 2 + 2 * len(openai_server.batches())
    assert min(task.gaps_s) >= MIN_AGE_S
