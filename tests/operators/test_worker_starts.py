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
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import Asset
from airflow.triggers.base import BaseTaskEndEvent
from msgspec.structs import replace

from airflow_openai_batch.access.locations import resolve_location
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator, choose_waits
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger
from airflow_openai_batch.triggers.first_of import FirstOfTrigger, make_trigger, read_members
from airflow_openai_batch.triggers.held import MIN_AGE_S
from airflow_openai_batch.triggers.pause import OpenAIBatchPauseTrigger
from airflow_openai_batch.triggers.room import OpenAIBatchRoomTrigger
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
        ti.xcom_push = ti.xcom_pull = lambda *_, **__: None
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
                if isinstance(event, BaseTaskEndEvent):
                    self.end = "in the triggerer"
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


@pytest.mark.openai_server(speed=0, in_progress_s=1e9, cancelling_s=60)
@pytest.mark.parametrize("on_deadline", ["flex", "realtime"])
def test_a_batch_that_hangs_is_cancelled_while_there_is_time_for_the_rest(
    openai_server: OpenAIServer, make_task: Any, on_deadline: str
) -> None:
    """What it has not answered takes a minute at most, and the cancelling ten."""
    openai_server.configure(flex_models=("*",))
    task = make_task(OpenAIBatchShardOperator, on_deadline=on_deadline, finish_within_h=2.0).run(hours=1.7)
    assert task.end is None
    assert not openai_server.books.billed
    task.run(hours=0.29)
    assert task.end == {"job": task.end["job"], "shard": 0}, "before its two hours are over"
    assert openai_server.books.billed == {on_deadline: 2}
    assert len(openai_server.batches()) == 1
    assert len(task.starts) <= 4


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


@pytest.mark.long
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


@pytest.mark.parametrize(
    ("options", "ends_in_triggerer"),
    [
        ({}, True),
        ({"outlets": [Asset("s3://mine/x")]}, False),
        ({"on_success_callback": print}, False),
        ({"post_execute": print}, False),
    ],
)
def test_a_sensor_ends_in_the_triggerer_unless_a_worker_has_something_left_to_do(
    openai_server: OpenAIServer, make_task: Any, options: dict[str, Any], ends_in_triggerer: bool
) -> None:
    openai_server.configure(in_progress_s=60)
    shard = make_task(OpenAIBatchShardOperator).run(hours=0.01)
    sensor = make_task(OpenAIBatchSensor, **options).run(hours=1)
    assert (sensor.end == "in the triggerer") is ends_in_triggerer
    assert len(sensor.starts) == (1 if ends_in_triggerer else 2)
    if not ends_in_triggerer:
        assert sensor.end == shard.arguments["shard"]


def test_what_airflow_keeps_of_a_task_does_not_grow_with_its_shards() -> None:
    """A text of at most 64 KB on MySQL."""

    def measure(shards: int) -> int:
        batches = {
            str(number): OpenAIBatchEndTrigger(
                conn_id="c", batch_id=f"batch_{number:032x}", settled=["batch_2"]
            )
            for number in range(shards)
        }
        lines = {
            f"{number}": OpenAIBatchRoomTrigger(
                conn_id="c",
                model=f"m{number % 2}",
                tokens=number,
                job_key=f"{number:064x}",
                holder="s3://b/k" * 9,
            )
            for number in range(shards, 2 * shards)
        }
        pauses = {
            f"{number}": OpenAIBatchPauseTrigger(until=number) for number in range(2 * shards, 3 * shards)
        }
        waits = choose_waits({**batches, **lines, **pauses})
        _, arguments = FirstOfTrigger.of(waits, poll_interval=60.0).serialize()
        again = FirstOfTrigger(**arguments)
        assert read_members(again.serialize()[1]) == {name: wait.serialize() for name, wait in waits.items()}
        return len(Trigger.encrypt_kwargs(arguments))

    assert measure(100) < 32_000
    assert measure(300) < 50_000
    assert measure(3_000) - measure(300) < 500
