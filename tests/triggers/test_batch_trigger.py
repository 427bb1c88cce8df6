"""What the trigger fires, what it keeps over a restart, and what it does when a user acts on its task."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DagRunStateResult, GetTaskStates, TaskStatesResult
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView
from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger
from airflow_openai_batch.triggers.watcher import Sighting
from fixtures.airflow_versions import needs_airflow_3_2
from triggers.account import count_calls, create_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_openai_batch.testing import OpenAIServer

pytestmark = pytest.mark.usefixtures("openai_conn")

TASK = SimpleNamespace(id="1", dag_id="d", run_id="r", task_id="t", map_index=3, try_number=1)


def make_trigger(batch_id: str, **options: Any) -> OpenAIBatchEndTrigger:
    return OpenAIBatchEndTrigger(conn_id="openai_default", batch_id=batch_id, poll_interval=0.1, **options)


async def fire(trigger: OpenAIBatchEndTrigger) -> TriggerEvent:
    events = trigger.run()
    try:
        return await asyncio.wait_for(anext(events), 20)
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def status_of(event: TriggerEvent) -> str:
    return str(event.payload["status"])


def view(status: str = "in_progress", batch_id: str = "batch_1", **times: float) -> BatchView:
    return BatchView(id=batch_id, status=BatchStatus(status), input_file_id="f", times=times)


async def test_it_fires_once_the_batch_is_final(openai_server: OpenAIServer) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    event = await fire(make_trigger(batch_id))
    assert event.payload == {"batch_id": batch_id, "status": "completed", "schema_version": 3}


async def test_a_deadline_is_kept_over_a_restart_and_says_what_it_means(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=3600)
    (batch_id,) = create_batches(openai_server, 1)
    trigger = make_trigger(batch_id, deadline=time.time() + 6.0, deadline_status="late")
    await asyncio.sleep(4.0)
    _, stored = trigger.serialize()
    began = time.monotonic()
    assert status_of(await fire(OpenAIBatchEndTrigger(**stored))) == "late"
    assert time.monotonic() - began < 5.0  # what was left of it, not six seconds anew
    assert status_of(await fire(make_trigger(batch_id, deadline=time.time() - 5))) == "timeout"


async def test_two_batches_of_a_send_wake_the_worker_unless_it_knows(openai_server: OpenAIServer) -> None:
    openai_server.configure(in_progress_s=3600)
    kept, other = create_batches(openai_server, 2, job_keys=["k", "k"])
    assert status_of(await fire(make_trigger(kept, finish_task=True))) == "duplicate"
    openai_server.configure(in_progress_s=0)
    known = make_trigger(kept, settled=[other], deadline=time.time() + 0.5)
    assert status_of(await fire(known)) == "timeout"


@pytest.mark.parametrize(
    ("twin", "fired"),
    [
        (None, TaskSuccessEvent),
        ("in_progress", "duplicate"),
        ("validating", "duplicate"),
        ("cancelling", "completed"),
        ("completed", "completed"),
        ("expired", "completed"),
    ],
)
def test_the_task_ends_in_the_triggerer_only_where_its_batch_was_alone(twin: str | None, fired: Any) -> None:
    trigger = make_trigger("batch_1", finish_task=True)
    trigger.task_instance = TASK  # type: ignore[assignment]
    twins = () if twin is None else (view(twin, "batch_2"),)
    event = trigger._judge(Sighting(view("completed"), twins), now=0.0)
    assert event is not None
    if twin is None:
        assert isinstance(event, fired)
    else:
        assert not isinstance(event, TaskSuccessEvent)
        assert status_of(event) == fired


@pytest.mark.parametrize(
    ("seen", "now", "fired"),
    [
        (view(expires_at=1000.0), 4500.0, None),
        (view(expires_at=1000.0), 4700.0, "overdue"),
        (view("finalizing", expires_at=1000.0), 4700.0, "overdue"),
        # cancelled because it was overdue: that would wake a worker at every look
        (view("cancelling", expires_at=1000.0, cancelling_at=4700.0), 5000.0, None),
        (view("cancelling", expires_at=1000.0, cancelling_at=4700.0), 9000.0, "overdue"),
        (view("completed", expires_at=1000.0), 9000.0, "completed"),
    ],
)
def test_overdue_an_hour_after_its_expiry(seen: BatchView, now: float, fired: str | None) -> None:
    event = make_trigger("batch_1")._judge(Sighting(seen), now)
    assert (event and status_of(event)) == fired


async def test_arguments_of_other_versions_neither_crash_nor_get_lost(openai_server: OpenAIServer) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    oldest = {"conn_id": "openai_default", "batch_id": batch_id}
    newer = {**oldest, "poll_interval": 0.1, "schema_version": 9, "colour": "green"}
    assert OpenAIBatchEndTrigger(**oldest).cancel_on_kill is True
    trigger = OpenAIBatchEndTrigger(**newer)  # type: ignore[arg-type]
    _, stored = trigger.serialize()
    assert stored["colour"] == "green"
    assert stored["schema_version"] == 9
    assert status_of(await fire(trigger)) == "completed"


async def test_without_its_most_needed_arguments_it_asks_the_worker() -> None:
    assert status_of(await fire(OpenAIBatchEndTrigger())) == "unknown"


class Airflow:
    """What the supervisor answers to a trigger."""

    def __init__(self, state: str | None, run_state: str = "running") -> None:
        self.state, self.run_state = state, run_state

    def send(self, msg: Any) -> Any:
        if isinstance(msg, GetTaskStates):
            assert (msg.dag_id, msg.task_ids, msg.run_ids) == ("d", ["t"], ["r"])
            assert msg.map_index == 3
            return TaskStatesResult(task_states={"r": {"t_3": self.state}})
        return DagRunStateResult(state=self.run_state)  # type: ignore[arg-type]


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def supervise(*states: Any) -> None:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Airflow(*states), raising=False)

    return supervise


async def kill(batch_id: str, **options: Any) -> None:
    trigger = make_trigger(batch_id, **options)
    trigger.task_instance = TASK  # type: ignore[assignment]
    await trigger.on_kill()


@pytest.mark.parametrize(
    ("states", "cancelled"),
    [
        (("failed",), True),
        (("skipped", "failed"), True),  # dagrun_timeout
        (("skipped", "running"), False),
        (("success",), False),
        (("scheduled",), False),
        ((None,), False),  # just cleared
        (("deferred",), False),  # another triggerer has taken it over
    ],
)
async def test_only_a_failed_task_takes_its_batch_with_it(
    openai_server: OpenAIServer, supervised: Callable[..., None], states: Any, cancelled: bool
) -> None:
    openai_server.configure(in_progress_s=3600)
    (batch_id,) = create_batches(openai_server, 1)
    supervised(*states)
    await kill(batch_id)
    assert openai_server.batches()[0]["status"] == ("cancelled" if cancelled else "in_progress")


async def test_cancel_on_kill_can_be_left_out(
    openai_server: OpenAIServer, supervised: Callable[..., None]
) -> None:
    openai_server.configure(in_progress_s=3600)
    (batch_id,) = create_batches(openai_server, 1)
    supervised("failed")
    await kill(batch_id, cancel_on_kill=False)
    assert openai_server.batches()[0]["status"] == "in_progress"
    assert openai_server.books.calls_of("POST /v1/batches/*/cancel") == 0


async def test_a_cancel_is_tried_again(openai_server: OpenAIServer, supervised: Callable[..., None]) -> None:
    openai_server.configure(in_progress_s=3600)
    (batch_id,) = create_batches(openai_server, 1)
    openai_server.script(http="POST /batches/*/cancel", status=503, times=1)
    supervised("failed")
    await kill(batch_id)
    assert openai_server.batches()[0]["status"] == "cancelled"


async def test_a_cancel_is_seen_through_although_airflow_cancels_it_every_second(
    openai_server: OpenAIServer, supervised: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """As Airflow 3.3.2 does to triggers that wind up."""
    caplog.set_level(logging.INFO, logger="airflow_openai_batch")
    openai_server.configure(in_progress_s=3600)
    openai_server.script(http="POST /batches/*/cancel", delay_s=1.0)
    (batch_id,) = create_batches(openai_server, 1)
    supervised("failed")
    killing = asyncio.create_task(kill(batch_id))
    for _ in range(5):
        await asyncio.sleep(0.1)
        killing.cancel("__airflow_user_action__")
    await asyncio.wait([killing], timeout=20)
    assert openai_server.batches()[0]["status"] == "cancelled"
    assert "is being cancelled" in caplog.text


@pytest.mark.parametrize("status", [401, 500])
async def test_a_cancel_that_fails_is_a_line_in_the_log(
    openai_server: OpenAIServer,
    supervised: Callable[..., None],
    status: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("airflow_openai_batch.triggers.kill.TRY_AGAIN_S", 0.01)
    openai_server.configure(in_progress_s=3600)
    (batch_id,) = create_batches(openai_server, 1)
    openai_server.script(http="POST /batches/*/cancel", status=status, times=None)
    supervised("failed")
    await kill(batch_id)
    (line,) = (record for record in caplog.records if "could not be cancelled" in record.message)
    assert line.levelno == logging.WARNING
    assert str(status) in line.message


async def test_a_final_batch_is_left_as_it_is(
    openai_server: OpenAIServer, supervised: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    supervised("failed")
    await kill(batch_id)
    assert openai_server.batches()[0]["status"] == "completed"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@needs_airflow_3_2  # the oldest that a trigger may ask
@pytest.mark.parametrize(("airflow_kills", "cancelled"), [(False, True), (True, False)])
async def test_before_airflow_3_3_a_cancelled_run_looks_for_the_reason_itself(
    openai_server: OpenAIServer,
    supervised: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    airflow_kills: bool,
    cancelled: bool,
) -> None:
    monkeypatch.setattr("airflow_openai_batch.triggers.batch._AIRFLOW_KILLS", airflow_kills)
    openai_server.configure(in_progress_s=3600)
    (batch_id,) = create_batches(openai_server, 1)
    supervised("failed")
    trigger = make_trigger(batch_id)
    trigger.task_instance = TASK  # type: ignore[assignment]

    async def run_as_airflow_does() -> None:
        try:
            async for _ in trigger.run():
                raise AssertionError
        finally:
            await trigger.cleanup()

    task = asyncio.create_task(run_as_airflow_does())
    while not count_calls(openai_server):  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert openai_server.batches()[0]["status"] == ("cancelled" if cancelled else "in_progress")
