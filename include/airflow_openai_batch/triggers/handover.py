"""Begins a shard's task in the triggerer, with what the task before it has handed over: where all is well, no worker is
started for a batch that is created, for a wait, nor for leftovers that are not there.

Whatever is not plain goes to a worker, which asks the state machine as ever: a task that is tried again, a task before
that has handed nothing over, parameters that are not those it was given.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger
from airflow_openai_batch.triggers.handover_note import GIVEN, KEY, PASSES_ON, WAITS, describe_given
from airflow_openai_batch.triggers.held import HeldTrigger

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Of the arguments stored in Airflow's database while a task is deferred."""


class OpenAIBatchHandoverTrigger(HeldTrigger):
    """Ends the task where its goal is reached, waits where there is a batch to wait for, and else sends for a worker
    with the event ``{"status": "look"}``; other events are those of `OpenAIBatchEndTrigger`.

    What was handed over is told in `handover_note`.

    :param before: the task that hands over.
    :param goal: of the task, by its name.
    :param timeout: seconds since the batch's creation for which a sensor waits; ``None``: no bound.
    :param pushes: whether the task returns something.
    :param cancel_on_kill: see `OpenAIBatchEndTrigger`.
    :param link_key: of the XCom in which Airflow keeps the link to the batch.
    """

    def __init__(
        self,
        *,
        before: str = "",
        goal: str = "",
        conn_id: Any = None,
        poll_interval: Any = 60.0,
        finish_within_h: Any = None,
        on_deadline: Any = None,
        timeout: float | None = None,
        cancel_on_kill: bool = True,
        pushes: bool = True,
        link_key: str = "",
        schema_version: int = SCHEMA_VERSION,
        **unknown: Any,
    ) -> None:
        # No check and no conversion here: an exception kills the whole triggerer.
        super().__init__()
        self.before = before
        self.goal = goal
        self.conn_id = conn_id
        self.poll_interval = poll_interval
        self.finish_within_h = finish_within_h
        self.on_deadline = on_deadline
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self.pushes = pushes
        self.link_key = link_key
        self.schema_version = schema_version
        self.unknown = unknown
        self._wait: OpenAIBatchEndTrigger | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = (
            *GIVEN,
            "before",
            "goal",
            "timeout",
            "cancel_on_kill",
            "pushes",
            "link_key",
            "schema_version",
        )
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**self.unknown, **{name: getattr(self, name) for name in names}},
        )

    async def find_event(self) -> TriggerEvent:
        self.holds = False  # no process lingers: the task began here
        try:
            event = await self._take_over()
        except Exception as error:  # whatever it is, a worker knows how to go on
            log.warning("A worker looks: what was handed over could not be read (%s).", describe_error(error))
            event = None
        if event is not None:
            return event
        if self._wait is None:
            return TriggerEvent({"status": "look"})  # type: ignore[no-untyped-call]
        log.info("Waiting for %s.", self._wait.batch_id)
        return await self._wait.find_event()

    async def _take_over(self) -> TriggerEvent | None:
        """The end, where the goal is reached; where it is not, there may be something to wait for here."""
        note = await self._read()
        if note is None or note.get("given") != describe_given(self):
            return None
        link = {self.link_key: note["link"]} if self.link_key and note.get("link") else {}
        if self.goal in note.get("reached", ()):
            await self._push(self._find_result(note))
            passed_on = {KEY: dict(note)} if self.goal == PASSES_ON else {}
            return TaskSuccessEvent(xcoms={**link, **passed_on})
        if self.goal == WAITS and isinstance(note.get("wait"), Mapping):
            await self._push({**self._find_result(note), **link})  # nobody comes back to do it
            self._wait = self._make_wait(note["wait"])  # last: what fails before sends for a worker
        return None

    async def on_kill(self) -> None:
        if self._wait is not None:
            await self._wait.on_kill()

    def _make_wait(self, arguments: Mapping[str, Any]) -> OpenAIBatchEndTrigger:
        # Over the connection that was compared, and with no order: whoever may write XComs says neither.
        wait = OpenAIBatchEndTrigger(**{**arguments, "conn_id": self.conn_id, "landing": None})
        wait.cancel_on_kill, wait.finish_task = self.cancel_on_kill, True
        if self.timeout is not None and wait.created_at:
            wait.timeout_at = wait.created_at + self.timeout
        wait.task_instance = self.task_instance
        return wait

    async def _read(self) -> Mapping[str, Any] | None:
        """What the task before has handed over; ``None``: nothing, or this one is tried again."""
        ti: Any = self.task_instance
        if not self.before or (ti.try_number or 0) > 1:
            return None
        note = await sync_to_async(ti.xcom_pull)(task_ids=self.before, key=KEY, map_indexes=ti.map_index)
        if isinstance(note, str):
            note = json.loads(note)
        return note if isinstance(note, Mapping) else None

    def _find_result(self, note: Mapping[str, Any]) -> dict[str, Any]:
        return {"return_value": note.get("result")} if self.pushes else {}

    async def _push(self, found: Mapping[str, Any]) -> None:
        """As the task itself would; its own way to do it is not open to what runs in a triggerer.

        An event can carry XComs along, which costs the triggerer nothing, but Airflow encodes these once more than
        others: a link is read either way, and a note by `_read`, but what a task returns may be read by anybody.
        """
        ti: Any = self.task_instance
        place = {
            "dag_id": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
            "map_index": -1 if ti.map_index is None else ti.map_index,
        }
        for key, value in found.items():
            await sync_to_async(XCom.set)(key=key, value=value, **place)
