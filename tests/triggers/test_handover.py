"""A shard's task that begins in the triggerer: what it does with what the task before it has handed over."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import SetXCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger
from airflow_openai_batch.triggers.handover import OpenAIBatchHandoverTrigger
from airflow_openai_batch.triggers.handover_note import KEY
from fixtures.airflow_versions import needs_airflow_3_3
from triggers.account import create_batches

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer

pytestmark = [pytest.mark.usefixtures("openai_conn"), needs_airflow_3_3]

SHARD = {"job": "s3://b/job", "shard": 3}
GIVEN = {
    "conn_id": "openai_default",
    "poll_interval": "0.1",
    "finish_within_h": "None",
    "on_deadline": "fail",
}


class Airflow:
    """The supervisor, as far as it is asked here."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] = {}
        self.is_away = False

    def send(self, msg: Any) -> None:
        if self.is_away:
            raise RuntimeError("the API server is away")
        if isinstance(msg, SetXCom):
            assert (msg.dag_id, msg.run_id, msg.task_id, msg.map_index) == ("d", "r", "shard.wait", 3)
            self.stored[msg.key] = msg.value


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    airflow = Airflow()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", airflow, raising=False)
    return airflow


def make_note(**changes: Any) -> dict[str, Any]:
    return {"given": GIVEN, "reached": [], "result": SHARD, "wait": None, "link": "", **changes}


def make_wait(batch_id: str, **options: Any) -> dict[str, Any]:
    wait = OpenAIBatchEndTrigger(
        conn_id="openai_default", batch_id=batch_id, poll_interval=0.1, created_at=1.0, **options
    )
    return wait.serialize()[1]


async def fire(note: Any, *, goal: str = "ENDED", try_number: int = 1, **options: Any) -> TriggerEvent:
    trigger = OpenAIBatchHandoverTrigger(
        before="shard.create", goal=goal, conn_id="openai_default", poll_interval="0.1", on_deadline="fail",
        link_key="l", **options,
    )  # fmt: skip

    def pull(*, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, key, map_indexes) == ("shard.create", KEY, 3)
        if isinstance(note, Exception):
            raise note
        return note

    task = SimpleNamespace(template_ext=(), template_fields=(), start_trigger_args=None)
    trigger.task_instance = SimpleNamespace(  # type: ignore[assignment]
        id="1", dag_id="d", run_id="r", task_id="shard.wait", map_index=3, try_number=try_number, task=task,
        xcom_pull=pull,
    )  # fmt: skip
    _, stored = trigger.serialize()
    assert OpenAIBatchHandoverTrigger(**stored, of_a_later_release=1).serialize()[1]["goal"] == goal
    events = trigger.run()
    try:
        return await asyncio.wait_for(anext(events), 5)
    finally:
        await events.aclose()  # type: ignore[attr-defined]


async def test_it_waits_for_the_batch_and_ends_the_task_with_what_it_returns(
    openai_server: OpenAIServer, airflow: Airflow
) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    event = await fire(make_note(wait=make_wait(batch_id), link="https://page"))
    assert isinstance(event, TaskSuccessEvent)
    assert airflow.stored == {"return_value": SHARD, "l": "https://page"}


@pytest.mark.parametrize("goal", ["ENDED", "DONE"])
async def test_what_is_reached_needs_no_worker(airflow: Airflow, goal: str) -> None:
    event = await fire(make_note(reached=["ENDED", "DONE"]), goal=goal)
    assert isinstance(event, TaskSuccessEvent)
    assert airflow.stored == {"return_value": SHARD}


async def test_a_batch_that_was_created_before_is_handed_on_to_who_waits_for_it(airflow: Airflow) -> None:
    note = make_note(reached=["CREATED"], wait=make_wait("batch_1"), link="https://page")
    event = await fire(note, goal="CREATED", pushes=False)
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms == {KEY: note, "l": "https://page"}
    assert airflow.stored == {}  # a round trip through the triggerer's own server costs more than all else


async def test_what_was_handed_on_is_read_as_airflow_stores_what_an_event_carries(airflow: Airflow) -> None:
    stored = json.dumps(make_note(reached=["ENDED"]))
    assert isinstance(await fire(stored, pushes=False), TaskSuccessEvent)


async def test_a_task_that_returns_nothing_stores_nothing(airflow: Airflow) -> None:
    assert isinstance(await fire(make_note(reached=["DONE"]), goal="DONE", pushes=False), TaskSuccessEvent)
    assert airflow.stored == {}


async def test_the_link_of_a_task_that_ends_at_once_goes_with_its_end(airflow: Airflow) -> None:
    event = await fire(make_note(reached=["DONE"], link="https://page"), goal="DONE")
    assert isinstance(event, TaskSuccessEvent)
    assert (event.xcoms, airflow.stored) == ({"l": "https://page"}, {"return_value": SHARD})


@pytest.mark.parametrize(
    ("note", "options"),
    [
        (None, {}),
        ("a text", {}),
        (make_note(), {}),  # no batch, for instance after real time
        (make_note(given={**GIVEN, "conn_id": "another"}, reached=["ENDED"]), {}),
        (make_note(given={}, reached=["ENDED"]), {}),
        (make_note(reached=["ENDED"]), {"try_number": 2}),
        (make_note(reached=["ENDED"]), {"goal": "DONE"}),  # there are leftovers
        (make_note(wait={"conn_id": "openai_default"}), {"goal": "DONE"}),
        (make_note(wait={"conn_id": "openai_default"}), {"goal": "CREATED"}),
        (RuntimeError("the API server is away"), {}),
    ],
)
async def test_all_else_is_looked_at_by_a_worker(
    airflow: Airflow, note: Any, options: dict[str, Any]
) -> None:
    event = await fire(note, **options)
    assert event.payload == {"status": "look"}
    assert airflow.stored == {}


async def test_no_task_ends_whose_result_could_not_be_stored(
    openai_server: OpenAIServer, airflow: Airflow
) -> None:
    (batch_id,) = create_batches(openai_server, 1)
    airflow.is_away = True
    assert (await fire(make_note(wait=make_wait(batch_id)))).payload == {"status": "look"}
    assert (await fire(make_note(reached=["ENDED"]))).payload == {"status": "look"}


async def test_a_sensor_keeps_its_timeout(openai_server: OpenAIServer, airflow: Airflow) -> None:
    openai_server.configure(in_progress_s=3600)
    (batch_id,) = create_batches(openai_server, 1)
    event = await fire(make_note(wait=make_wait(batch_id)), timeout=5.0)  # since the first second of 1970
    assert event.payload["status"] == "timed_out"


async def test_a_note_names_neither_a_connection_nor_a_place(
    openai_server: OpenAIServer, airflow: Airflow
) -> None:
    """Whoever may write XComs is not asked which key a batch is looked at, and cancelled, with."""
    (batch_id,) = create_batches(openai_server, 1)
    wait = {**make_wait(batch_id), "conn_id": "another", "landing": {"job": "file:///etc", "job_giver": 0}}
    assert isinstance(await fire(make_note(wait=wait)), TaskSuccessEvent)
