"""The task instances that work on the shards of jobs, and what they wait for: a few queries for any number of jobs.

A mapped task is named after its shard, with what it waits for (``ShardStepOperator.label``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import and_, func, or_, select, tuple_

from airflow_openai_batch.plugin.job_rows import link_task

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from airflow_openai_batch.plugin.job_rows import JobId, JobRow

FAILED = ("failed", "upstream_failed")
_SPLIT_OPERATOR = "OpenAIBatchSplitOperator"
_LABEL = re.compile(r"shard (\d+) · [^·]* · [^·]*(?: · (.+))?", re.DOTALL)
_WAITS = "shard % · % · % · %"
_URGENCY = (*FAILED, "running", "queued", "up_for_retry", "scheduled", "deferred", "success")
"""Which of the tasks of a shard is shown: one in the first of these states, the last one begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The task instance of a shard that says most about it."""

    job: JobId
    task_id: str
    map_index: int
    state: str | None
    started_at: float = 0.0
    """Unix seconds."""
    waits_for: str | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """The lowest is shown."""
        place = _URGENCY.index(self.state) if self.state in _URGENCY else len(_URGENCY)
        return place, -self.started_at

    def describe(self) -> dict[str, Any]:
        link = link_task(self.job, self.task_id, self.map_index)
        return {"task_id": self.task_id, "map_index": self.map_index, "state": self.state, "link": link}


Instances = dict[int, Instance]
"""By shard."""


def find_instances(
    session: Session, rows: Collection[JobRow], *, among: Collection[int] | None = None
) -> dict[JobId, Instances]:
    """For each job, of shards that have failed or wait for something. What has not begun is not found.

    :param among: of these shards instead, whatever they do.
    """
    ti: Any = TaskInstance
    if among is None:
        return _collect(session, rows, or_(ti.state.in_(FAILED), ti.rendered_map_index.like(_WAITS)))
    # As a rule shard n is instance n, and the database need not hand out all; a sample or a repair maps others.
    found = _collect(session, rows, ti.map_index.in_(among))
    pairs = [(shard, each.map_index) for known in found.values() for shard, each in known.items()]
    if pairs and all(shard == map_index for shard, map_index in pairs):
        return found
    return _collect(session, rows, ti.map_index >= 0)


def _collect(session: Session, rows: Collection[JobRow], wanted: Any) -> dict[JobId, Instances]:
    found: dict[JobId, Instances] = {row.id: {} for row in rows}
    for row, instance, shard in _find_mapped(session, rows, wanted) if rows else ():
        known = found[row.id].get(shard)
        if known is None or instance.rank < known.rank:
            found[row.id][shard] = instance
    return found


def find_makers(session: Session, jobs: Collection[JobId]) -> dict[JobId, Instance]:
    """Tasks that hold a whole job, all of its shards; a split is none."""
    wanted = {(job.dag_id, job.run_id, job.task_id, job.map_index): job for job in jobs}
    ti = TaskInstance
    key = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    query = select(*key, ti.state, ti.start_date).where(
        tuple_(*key).in_(wanted), ti.operator != _SPLIT_OPERATOR
    )
    found = session.execute(query) if wanted else ()
    return {
        (job := wanted[item.dag_id, item.run_id, item.task_id, item.map_index]): _read_instance(
            job, item, None
        )
        for item in found
    }


def _find_mapped(
    session: Session, rows: Collection[JobRow], wanted: Any
) -> Iterator[tuple[JobRow, Instance, int]]:
    runs: dict[tuple[str, str], list[JobRow]] = {}
    for row in rows:
        runs.setdefault((row.id.dag_id, row.id.run_id), []).append(row)
    crowded = _find_crowded(session, runs)
    ti: Any = TaskInstance
    label = ti.rendered_map_index
    columns = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.state, ti.start_date, label)
    for several in (False, True):
        chosen = [run for run in runs if (run in crowded) is several]
        if not chosen:
            continue
        query = select(*columns).where(
            wanted, label.like("shard %"), tuple_(ti.dag_id, ti.run_id).in_(chosen)
        )
        if several:  # which of the run's jobs a task is of, only its parameters say
            query = _with_parameters(query)
        for item in session.execute(query):
            match = _LABEL.fullmatch(item.rendered_map_index)
            job_uri = _read_job(item.rendered_fields) if several else None
            for row in runs[item.dag_id, item.run_id]:
                if match is not None and (not several or row.uri == job_uri):
                    yield row, _read_instance(row.id, item, match[2]), int(match[1])


def _find_crowded(session: Session, runs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Runs with more than one job."""
    run = (XComModel.dag_id, XComModel.run_id)
    query = select(*run).where(XComModel.key == "estimate", tuple_(*run).in_(runs))
    return {
        (dag_id, run_id) for dag_id, run_id in session.execute(query.group_by(*run).having(func.count() > 1))
    }


def _with_parameters(query: Any) -> Any:
    ti, fields = TaskInstance, RenderedTaskInstanceFields
    same = (
        getattr(fields, name) == getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index")
    )
    return query.add_columns(fields.rendered_fields).join(fields, and_(*same))


def _read_job(fields: Any) -> str | None:
    shard = fields.get("shard") if isinstance(fields, dict) else None
    return shard.get("job") if isinstance(shard, dict) else None


def _read_instance(job: JobId, item: Any, waits_for: str | None) -> Instance:
    state = None if item.state is None else str(getattr(item.state, "value", item.state))
    return Instance(
        job=job,
        task_id=item.task_id,
        map_index=item.map_index,
        state=state,
        started_at=0.0 if item.start_date is None else item.start_date.timestamp(),
        waits_for=waits_for
        if state in ("deferred", "running", "up_for_retry", "scheduled", "queued")
        else None,
    )
