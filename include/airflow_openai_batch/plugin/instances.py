"""The task instances that work on a job's shards, and what they wait for: one query."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstance import TaskInstance
from sqlalchemy import select

from airflow_openai_batch.plugin.job_rows import JobId, link_task

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_LABEL = re.compile(r"shard (\d+) · [^·]* · [^·]*(?: · (.+))?", re.DOTALL)
"""What `ShardStepOperator.label` writes."""
_URGENCY = (
    "failed",
    "upstream_failed",
    "running",
    "queued",
    "deferred",
    "up_for_retry",
    "scheduled",
    "success",
)
"""Which of the tasks of a shard is shown: the first of these that one of them is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The task instance of a shard that says most about it."""

    job: JobId
    task_id: str
    map_index: int
    state: str | None
    waits_for: str | None = None

    def describe(self) -> dict[str, Any]:
        link = link_task(self.job, self.task_id, self.map_index)
        return {"task_id": self.task_id, "map_index": self.map_index, "state": self.state, "link": link}


def find_instances(session: Session, job: JobId) -> dict[int, Instance]:
    """By shard. Mapped tasks name their shard once they have run; what has not begun is not found."""
    query = select(
        TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.rendered_map_index
    ).where(
        TaskInstance.dag_id == job.dag_id,
        TaskInstance.run_id == job.run_id,
        TaskInstance.rendered_map_index.like("shard %"),
    )
    found: dict[int, Instance] = {}
    for task_id, map_index, state, label in session.execute(query):
        if (match := _LABEL.fullmatch(label)) is None:
            continue
        state = None if state is None else str(getattr(state, "value", state))
        waits = match[2] if state in ("deferred", "running", "up_for_retry") else None
        instance = Instance(job=job, task_id=task_id, map_index=map_index, state=state, waits_for=waits)
        shard = int(match[1])
        if shard not in found or _rank(instance) < _rank(found[shard]):
            found[shard] = instance
    return found


def _rank(instance: Instance) -> int:
    return _URGENCY.index(instance.state) if instance.state in _URGENCY else len(_URGENCY)
