"""The one place that reaches into Airflow: which deferred tasks wait for a batch, and how one of them is resumed.

Airflow has no public call for "this deferred task may go on". What follows was read in and tried on 3.3.2, with SQLite
and PostgreSQL:

* An event handed to ``airflow.models.trigger.handle_event_submit`` in a process with the database (the API server)
  resumes a deferred task, or ends it, just as in the triggerer's process. The trigger is not told: its row loses its
  task, ``clean_unused`` deletes it within a second, and the triggerer cancels what runs, with ``on_kill``, which finds
  that nobody gave the task up.
* ``Trigger.submit_event`` first selects the deferred tasks and writes them later. Two that come at the same moment
  both find the task deferred, and the second one schedules again what may be queued by then: the scheduler then fails
  it ("state attribute is ..."). So the task is claimed first, by one ``UPDATE`` that names its state and its trigger:
  it holds the row (PostgreSQL) or the database (SQLite) until the end of the transaction, and who comes second changes
  no row. The triggerer does not claim: there remain the milliseconds between its own select and its own update, as
  between any two triggerers; a task that meets this tries again by itself.
* A task that is resumed while the worker process which deferred it still lingers is failed by the scheduler, too: see
  `airflow_openai_batch.triggers.held`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.plugin.webhooks.handed_over import find_handed_over, name_creator
from airflow_openai_batch.plugin.webhooks.trigger_probe import BATCH_END, TRIGGERS, find_batch_ids
from airflow_openai_batch.triggers.handover_note import TRIGGER as HANDOVER_TRIGGER

if TYPE_CHECKING:
    from uuid import UUID

    from airflow.triggers.base import TriggerEvent
    from sqlalchemy.orm import Session

MOST_TRIGGERS = 5_000
"""Deferred tasks that are looked through, those of the batch's own run first."""
READ_AT_ONCE = 100
"""Arguments of triggers in memory at a time."""
TriggerKey = tuple[int, datetime]
"""Id and creation: SQLite gives an id to another one later."""

_known_batches: dict[TriggerKey, frozenset[str]] = {}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A deferred task, with the trigger that it waits on."""

    ti_id: UUID
    trigger_id: int
    since: float
    """Unix seconds."""
    name: str
    classpath: str
    arguments: Mapping[str, Any]
    """Of the trigger that waits for the batch."""


def find_waiting(batch_id: str, metadata: Mapping[str, str]) -> list[Waiting]:
    """Deferred tasks with a trigger of ours that names this batch.

    The batch's metadata say which task created it. Another one may wait for it (``wait`` of the same shard, or a later
    run that took the job over), so they only decide what is looked through first.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import and_, case, select

    own_run = and_(
        TaskInstance.dag_id == metadata.get("dag_id", ""), TaskInstance.run_id == metadata.get("run_id", "")
    )
    query = (
        select(
            TaskInstance.id,
            Trigger.id,
            Trigger.created_date,
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            Trigger.classpath,
        )
        .join(Trigger, TaskInstance.trigger_id == Trigger.id)
        .where(
            TaskInstance.state == TaskInstanceState.DEFERRED,
            Trigger.classpath.in_((*TRIGGERS, HANDOVER_TRIGGER)),
        )
        .order_by(case((own_run, 0), else_=1), Trigger.id.desc())
        .limit(MOST_TRIGGERS)
    )
    with create_session() as session:
        rows = session.execute(query).all()
        keys = [(row[1], row[2]) for row in rows if row[-1] != HANDOVER_TRIGGER]
        named = _read_batches(session, keys)
        stored = _read_arguments(session, [key[0] for key in keys if batch_id in named[key]])
        arguments = {trigger_id: (path, _decrypt(text)) for trigger_id, (path, text) in stored.items()}
        own = {row[1]: row[5] for row in rows if row[-1] == HANDOVER_TRIGGER and _is_of_shard(row, metadata)}
        if own:
            began = _read_arguments(session, list(own))
            waits = {task_id: _decrypt(began[each][1]) for each, task_id in own.items() if each in began}
            handed = find_handed_over(session, batch_id, metadata, waits)
            arguments |= {
                each: (BATCH_END, handed[task_id]) for each, task_id in own.items() if task_id in handed
            }
    return [
        Waiting(
            ti_id, trigger_id, created.timestamp(), f"{dag} {run} {task} [{index}]", *arguments[trigger_id]
        )
        for ti_id, trigger_id, created, dag, run, task, index, _ in rows
        if trigger_id in arguments
    ]


def _is_of_shard(row: Any, metadata: Mapping[str, str]) -> bool:
    """Whether a task may be of the same shard as the one that created the batch: it is of its run and map index."""
    _, _, _, dag_id, run_id, _, map_index, _ = row
    told = (metadata.get("dag_id"), metadata.get("run_id"), metadata.get("map_index"))
    return told == (dag_id, run_id, str(map_index))


def _read_batches(session: Session, triggers: list[TriggerKey]) -> dict[TriggerKey, frozenset[str]]:
    """The batches that each trigger waits for. Remembered for as long as it waits, since every event looks through
    all, and a trigger's arguments never change; the arguments, tens of KB for a large job, are not kept."""
    global _known_batches
    known = _known_batches
    named = {key: known[key] for key in triggers if key in known}
    unknown = [key for key in triggers if key not in known]
    for start in range(0, len(unknown), READ_AT_ONCE):
        part = unknown[start : start + READ_AT_ONCE]
        arguments = _read_arguments(session, [trigger_id for trigger_id, _ in part])
        named |= {key: _find_batches(*arguments[key[0]]) for key in part if key[0] in arguments}
    _known_batches = named
    return defaultdict(frozenset, named)


def _read_arguments(session: Session, trigger_ids: list[int]) -> dict[int, tuple[str, str]]:
    """Class path and encrypted arguments."""
    from airflow.models.trigger import Trigger
    from sqlalchemy import select

    query = select(Trigger.id, Trigger.classpath, Trigger.encrypted_kwargs).where(Trigger.id.in_(trigger_ids))
    return {trigger_id: (path, text) for trigger_id, path, text in session.execute(query)}


def is_busy(metadata: Mapping[str, str]) -> bool:
    """Whether the task that created a batch runs, or is about to."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    query = select(TaskInstance.id).where(
        *name_creator(TaskInstance, metadata),
        TaskInstance.state.in_(
            (TaskInstanceState.RUNNING, TaskInstanceState.QUEUED, TaskInstanceState.SCHEDULED)
        ),
    )
    with create_session() as session:
        return session.execute(query).first() is not None


def resume(waiting: Waiting, event: TriggerEvent) -> bool:
    """Hand the event to a task that still waits on the same trigger; false if it does not any more.

    All or nothing: after an exception the task waits as before.
    """
    from airflow.utils.retries import run_with_db_retries
    from airflow.utils.session import create_session

    for attempt in run_with_db_retries():
        with attempt, create_session() as session:
            return _resume(waiting, event, session)
    raise AssertionError("the retries end with a return or an exception")


def _resume(waiting: Waiting, event: TriggerEvent, session: Session) -> bool:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import update

    claim = (
        update(TaskInstance)
        .where(
            TaskInstance.id == waiting.ti_id,
            TaskInstance.state == TaskInstanceState.DEFERRED,
            TaskInstance.trigger_id == waiting.trigger_id,
        )
        .values(trigger_id=None)
        .execution_options(synchronize_session=False)
    )
    if session.execute(claim).rowcount != 1:  # type: ignore[attr-defined]  # a cursor's result
        return False
    instance = session.get(TaskInstance, waiting.ti_id)
    assert instance is not None  # noqa: S101 - it was claimed a moment ago
    handle_event_submit(event, task_instance=instance, session=session)
    return True


def _find_batches(classpath: str, encrypted_kwargs: str) -> frozenset[str]:
    try:
        return frozenset(find_batch_ids(classpath, _decrypt(encrypted_kwargs)))
    except Exception:  # what cannot be read is left to its own trigger
        return frozenset()


def _decrypt(encrypted_kwargs: str) -> dict[str, Any]:
    from airflow.models.trigger import Trigger

    kwargs: dict[str, Any] = Trigger._decrypt_kwargs(encrypted_kwargs)
    return kwargs
