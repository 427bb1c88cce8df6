"""Which tasks that began in the triggerer wait for a batch: their stored trigger does not name it, what the task before
them handed over does (`airflow_openai_batch.triggers.handover`)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.plugin.xcoms import read_value
from airflow_openai_batch.triggers.handover_note import KEY, WAITS

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def name_creator(model: Any, metadata: Mapping[str, str]) -> tuple[Any, ...]:
    """Conditions for the rows of the task that created a batch, as its metadata say.

    :param model: with the columns of a task instance's key.
    """
    map_index = metadata.get("map_index", "")
    return (
        model.dag_id == metadata.get("dag_id", ""),
        model.run_id == metadata.get("run_id", ""),
        model.task_id == metadata.get("task_id", ""),
        model.map_index == (int(map_index) if map_index.lstrip("-").isdecimal() else -1),
    )


def find_handed_over(
    session: Session, batch_id: str, metadata: Mapping[str, str], waits: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Of the tasks that wait for the batch the arguments of the trigger that waits within each.

    A batch that another run created and this one took over is found by polling.

    :param metadata: of the batch: they name the run and the map index of all these tasks.
    :param waits: arguments of the triggers that the tasks began with, by task id.
    """
    notes = _read_notes(session, metadata)
    found = {}
    for task_id, began in waits.items():
        note = notes.get(began.get("before", ""))
        if began.get("goal") != WAITS or not isinstance(note, Mapping):
            continue
        wait = note.get("wait")
        if not isinstance(wait, Mapping) or wait.get("batch_id") != batch_id:
            continue
        key = "return_value" if began.get("pushes") else began.get("link_key") if note.get("link") else None
        if key is None or _is_stored(session, metadata, task_id, key):
            found[task_id] = {**wait, "finish_task": True, "landing": None}
    return found


def _read_notes(session: Session, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What was handed over, by the task that did."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    dag, run, _, index = name_creator(XComModel, metadata)
    query = select(XComModel.task_id, XComModel.value, XComModel.timestamp)
    notes = {}
    for row in session.execute(query.where(XComModel.key == KEY, dag, run, index)):
        note = read_value(row)
        if isinstance(note, str):  # of a task that ended in the triggerer; see `triggers.handover`
            with contextlib.suppress(ValueError):  # a text of somebody's
                note = json.loads(note)
        notes[row.task_id] = note
    return notes


def _is_stored(session: Session, metadata: Mapping[str, str], task_id: str, key: str) -> bool:
    """Whether a triggerer has begun the task, which stores what it returns, or its link; else it is left to one."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    stored = name_creator(XComModel, {**metadata, "task_id": task_id})
    return session.execute(select(XComModel.key).where(XComModel.key == key, *stored)).first() is not None
