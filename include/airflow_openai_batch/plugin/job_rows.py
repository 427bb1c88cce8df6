"""Which jobs there are: what Airflow's own database says, without a table of ours.

A split, or a task that holds a whole job, pushes the XCom ``job`` (URI of the directory) and ``estimate``. A report
pushes ``job`` as well, and ``conn_id``; it is shown only where nothing else of its run made the directory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from airflow_openai_batch.plugin.xcoms import has_own_backend, read_value

if TYPE_CHECKING:
    from sqlalchemy import Select  # SQLAlchemy 1.4, which Airflow 3.1 has, does not have it here
    from sqlalchemy.orm import Session

_REPORT_OPERATOR = "OpenAIBatchReportOperator"
_JOBS_PER_RUN = 5
"""Where runs have more than that, fewer runs are found."""
RUN_STATES = {
    "running": ("running", "queued"),
    "planned": ("running", "queued", "success"),
    "done": ("success",),
    "incomplete": ("failed",),
}
"""Runs among which jobs of a state are looked for: pages are cut by the database, which knows of runs alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobId:
    """The task instance that made the job."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def run_link(self) -> str:
        """Paths in Airflow's UI."""
        return f"/dags/{quote(self.dag_id, safe='')}/runs/{quote(self.run_id, safe='')}"

    @property
    def task_link(self) -> str:
        return link_task(self, self.task_id, self.map_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as the database knows it."""

    id: JobId
    uri: str
    run_state: str
    run_started_at: datetime | None
    run_ended_at: datetime | None

    @property
    def is_over(self) -> bool:
        return self.run_state in ("success", "failed")


def link_task(job: JobId, task_id: str, map_index: int) -> str:
    """The page of a task instance of the job's run, below Airflow's base URL."""
    path = f"{job.run_link}/tasks/{quote(task_id, safe='')}"
    return path if map_index < 0 else f"{path}/mapped/{map_index}"


def find_dags(session: Session) -> set[str]:
    """DAGs with runs that have made jobs."""
    return set(session.scalars(select(XComModel.dag_id).where(XComModel.key == "job").distinct()))


def find_jobs(
    session: Session,
    dag_ids: Collection[str],
    *,
    run_id: str | None = None,
    task_id: str | None = None,
    map_index: int | None = None,
    state: str | None = None,
    limit: int = 25,
    offset: int = 0,
) -> tuple[list[JobRow], int]:
    """A page of jobs, newest run first, and how many there are.

    :param dag_ids: those that the user may read.
    :param state: of the job, or of its run; see `RUN_STATES`.
    """
    made, other = aliased(XComModel), aliased(XComModel)
    query = (
        select(
            made.dag_id, made.run_id, made.task_id, made.map_index, made.value, made.timestamp,
            DagRun.state, DagRun.start_date, DagRun.end_date,
        )
        .join(DagRun, DagRun.id == made.dag_run_id)
        .where(made.key == "job", made.dag_id.in_(dag_ids))
        .where(or_(_has_estimate(made), and_(_is_report(made), ~_is_made_elsewhere(made, other))))
    )  # fmt: skip
    filters = {made.run_id: run_id, made.task_id: task_id, made.map_index: map_index}
    query = query.where(*(column == wanted for column, wanted in filters.items() if wanted is not None))
    if state:
        query = query.where(DagRun.state.in_(RUN_STATES.get(state, (state,))))
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    newest = query.order_by(made.dag_run_id.desc(), made.timestamp, made.task_id, made.map_index)
    return list(_read_rows(session, newest.limit(limit).offset(offset))), total


def find_job(session: Session, job: JobId) -> JobRow | None:
    """One job; None where the task instance made none (or it is forgotten)."""
    rows, _ = find_jobs(
        session, {job.dag_id}, run_id=job.run_id, task_id=job.task_id, map_index=job.map_index, limit=1
    )
    return rows[0] if rows else None


def find_newest_runs(session: Session, dag_id: str, *, runs: int) -> list[JobRow]:
    """The jobs of the newest runs that have any, newest run first."""
    rows, _ = find_jobs(session, {dag_id}, limit=runs * _JOBS_PER_RUN)
    newest = list(dict.fromkeys(row.id.run_id for row in rows))[:runs]
    return [row for row in rows if row.id.run_id in newest]


def _has_estimate(made: Any) -> Any:
    estimate = aliased(XComModel)
    return exists().where(
        estimate.dag_run_id == made.dag_run_id,
        estimate.task_id == made.task_id,
        estimate.map_index == made.map_index,
        estimate.key == "estimate",
    )


def _is_report(made: Any) -> Any:
    return exists().where(
        TaskInstance.dag_id == made.dag_id,
        TaskInstance.run_id == made.run_id,
        TaskInstance.task_id == made.task_id,
        TaskInstance.map_index == made.map_index,
        TaskInstance.operator == _REPORT_OPERATOR,
    )


def _is_made_elsewhere(made: Any, other: Any) -> Any:
    return exists().where(
        other.dag_run_id == made.dag_run_id,
        other.key == "job",
        other.value == made.value,
        _has_estimate(other),
    )


def _read_rows(session: Session, query: Select[Any]) -> Iterable[JobRow]:
    elsewhere, seen = has_own_backend(), set()
    for row in session.execute(query):
        told = read_value(row)
        uri = told if isinstance(told, str) else ""
        # `_is_made_elsewhere` compares what the database has: of values that lie elsewhere, a path each.
        if elsewhere and uri and (row.dag_id, row.run_id, uri) in seen:
            continue
        seen.add((row.dag_id, row.run_id, uri))
        yield JobRow(
            id=JobId(dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index),
            uri=uri,
            run_state=str(getattr(row.state, "value", row.state)),
            run_started_at=row.start_date,
            run_ended_at=row.end_date,
        )


def find_conn_ids(session: Session, jobs: Iterable[JobId]) -> dict[JobId, str]:
    """The connections of jobs; those that nothing tells of are left out.

    What a task was given is not enough: it may have been refused. So each says which one it may use.
    """
    wanted = {(job.dag_id, job.run_id, job.task_id, job.map_index): job for job in jobs}
    if not wanted:
        return {}
    xcom = XComModel
    keys = (xcom.dag_id, xcom.run_id, xcom.task_id, xcom.map_index)
    query = select(*keys, xcom.value, xcom.timestamp).where(
        xcom.key.in_(("estimate", "conn_id")), tuple_(*keys).in_(wanted)
    )
    found = {}
    for row in session.execute(query):
        said = read_value(row)
        conn_id = said.get("conn_id") if isinstance(said, dict) else said  # a report pushes no estimate
        if isinstance(conn_id, str):
            found[wanted[row[0], row[1], row[2], row[3]]] = conn_id
    return found
