"""No event comes back to a worker while the process that deferred the task may linger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_openai_batch.plugin.webhooks.trigger_probe import ask_trigger
from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger
from airflow_openai_batch.triggers.first_of import FirstOfTrigger
from airflow_openai_batch.triggers.held import MIN_AGE_S, HeldTrigger, find_min_age_s
from airflow_openai_batch.triggers.pause import OpenAIBatchPauseTrigger
from airflow_openai_batch.triggers.room import OpenAIBatchRoomTrigger
from fixtures.virtual_time import VirtualTime, virtual_time
from triggers.account import create_batches

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = [pytest.mark.usefixtures("openai_conn"), pytest.mark.openai_server(speed=0)]

TASK = SimpleNamespace(id="1", dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)


@pytest.fixture
def clock(openai_server: OpenAIServer) -> Iterator[VirtualTime]:
    with virtual_time(openai_server) as clock:
        yield clock


def make(name: str, server: OpenAIServer) -> HeldTrigger:
    """One that has something to say at once."""
    (batch_id,) = create_batches(server, 1)
    end = OpenAIBatchEndTrigger(
        conn_id="openai_default", batch_id=batch_id, poll_interval=0.1, cancel_on_kill=False
    )
    room = OpenAIBatchRoomTrigger(
        conn_id="openai_default", model="m", tokens=1, requests=1, poll_interval=0.1
    )
    triggers: dict[str, HeldTrigger] = {
        "end": end,
        "room": room,
        "pause": OpenAIBatchPauseTrigger(until=time.time(), poll_interval=0.1),
        "first": FirstOfTrigger.of({"1": end, "2": room}),
    }
    return triggers[name]


def measure(clock: VirtualTime, trigger: HeldTrigger) -> float:
    began = time.time()
    assert clock.fire(trigger, within_s=600) is not None
    return time.time() - began


@pytest.mark.parametrize("name", ["end", "room", "pause", "first"])
def test_an_event_is_held_until_the_first_worker_is_gone(
    openai_server: OpenAIServer, clock: VirtualTime, name: str
) -> None:
    trigger = make(name, openai_server)
    trigger.task_instance = TASK  # type: ignore[assignment]
    assert measure(clock, trigger) >= MIN_AGE_S
    assert measure(clock, make(name, openai_server)) < 1.0  # dag.test(), where no worker lingers


def test_what_ends_the_task_is_not_held(openai_server: OpenAIServer, clock: VirtualTime) -> None:
    trigger = make("end", openai_server)
    trigger.task_instance = TASK  # type: ignore[assignment]
    trigger.finish_task = True  # type: ignore[attr-defined]
    began = time.time()
    assert isinstance(clock.fire(trigger, within_s=600), TaskSuccessEvent)
    assert time.time() - began < 1.0


def test_both_of_a_job_that_come_while_an_event_is_held_are_told(
    openai_server: OpenAIServer, clock: VirtualTime
) -> None:
    trigger = make("first", openai_server)
    trigger.task_instance = TASK  # type: ignore[assignment]
    event = clock.fire(trigger, within_s=600)
    assert event is not None
    assert {name: said["status"] for name, said in event.payload["events"].items()} == {
        "1": "completed",
        "2": "room",
    }


@pytest.mark.parametrize("name", ["end", "first"])
async def test_a_webhook_which_has_waited_itself_is_answered_at_once(
    openai_server: OpenAIServer, name: str
) -> None:
    trigger = make(name, openai_server)
    path, arguments = trigger.serialize()
    batch_id = openai_server.batches()[0]["id"]
    began = time.monotonic()
    assert await ask_trigger(path, arguments, batch_id) is not None
    assert time.monotonic() - began < MIN_AGE_S - 1


@pytest.mark.parametrize(
    ("heartbeat", "said", "expected"), [("5", "", 10.0), ("1", "", 10.0), ("30", "", 60.0), ("5", "3", 3.0)]
)
def test_how_long_airflows_settings_say(
    monkeypatch: pytest.MonkeyPatch, heartbeat: str, said: str, expected: float
) -> None:
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", heartbeat)
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__MIN_DEFERRAL", said)
    assert find_min_age_s() == expected
