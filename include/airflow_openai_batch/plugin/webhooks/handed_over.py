"""Which tasks that began in the triggerer wait for a batch: their stored trigger does not name it, what the task before
them handed over does (`airflow_openai_batch.triggers.handover`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.plugin.xcoms import read_value
from airflow_openai_batch.triggers.handover_note import KEY

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


def read_handed_over(session: Session, batch_id: str, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The arguments of the trigger that waits for the batch within the task; ``None``: nobody was handed this batch.

    The batch's metadata name the task that created it, and so the one that handed it over. A batch that another run
    created and this one took over is found by polling.
    """
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    query = select(XComModel.value, XComModel.timestamp).where(
        XComModel.key == KEY, *name_creator(XComModel, metadata)
    )
    row = session.execute(query).first()
    note = None if row is None else read_value(row)
    wait = note.get("wait") if isinstance(note, Mapping) else None
    if not isinstance(wait, Mapping) or wait.get("batch_id") != batch_id:
        return None
    return {**wait, "finish_task": True}  # what it returns was stored when it began to wait
