"""The routes that the page asks. Plain functions: FastAPI runs them in threads, off the event loop."""

from __future__ import annotations

import time
from typing import Annotated, Any

from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, HTTPException, Query

from airflow_openai_batch.plugin.access import GetUserDep, Rights
from airflow_openai_batch.plugin.accounts import Account
from airflow_openai_batch.plugin.board import Job, add_instances, gather
from airflow_openai_batch.plugin.history import describe_runs
from airflow_openai_batch.plugin.iso import to_iso
from airflow_openai_batch.plugin.job_rows import (
    JobId,
    JobRow,
    find_dags,
    find_job,
    find_jobs,
    find_newest_runs,
)
from airflow_openai_batch.plugin.job_view import describe_job
from airflow_openai_batch.plugin.odd_requests import MOST_NAME_CHARS, MOST_NUMBER
from airflow_openai_batch.report.shard_words import STATES

router = APIRouter(prefix="/api")

Limit = Annotated[int, Query(ge=1, le=200)]
MoreLimit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=MOST_NUMBER)]
MapIndex = Annotated[int, Query(ge=-1, le=MOST_NUMBER)]
Name = Annotated[str, Query(max_length=MOST_NAME_CHARS)]


def get_rights(user: GetUserDep) -> Rights:
    return Rights(user)


def get_job_id(dag_id: Name, run_id: Name, task_id: Name, map_index: MapIndex = -1) -> JobId:
    return JobId(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)


AllRights = Annotated[Rights, Depends(get_rights)]
OneJob = Annotated[JobId, Depends(get_job_id)]


@router.get("/jobs")
def get_jobs(
    rights: AllRights,
    dag_id: Name | None = None,
    run_id: Name | None = None,
    task_id: Name | None = None,
    map_index: MapIndex | None = None,
    state: Name | None = None,
    limit: Limit = 25,
    offset: Offset = 0,
) -> dict[str, Any]:
    """A page of jobs, newest run first, and the batch queues that they use."""
    now = time.time()
    if dag_id is not None:
        rights.check_read(dag_id)
    dag_ids = {dag_id} if dag_id is not None else _find_readable(rights)
    with create_session(scoped=False) as session:
        rows, total = find_jobs(
            session, dag_ids, run_id=run_id, task_id=task_id, map_index=map_index, state=state,
            limit=limit, offset=offset,
        )  # fmt: skip
        jobs = gather(session, rows, rights)
    described = [describe_job(job, now=now, may_edit=rights.may_edit(job.row.id.dag_id)) for job in jobs]
    return {"jobs": described, "total": total, "now": to_iso(now), "queues": describe_queues(jobs, now)}


def _find_readable(rights: Rights) -> set[str]:
    with create_session(scoped=False) as session:
        found = find_dags(session)
    return rights.readable(found)  # without a session in hand: rights may take one of their own for each DAG


def describe_queues(jobs: list[Job], now: float) -> list[dict[str, Any]]:
    """Of the connections and models of jobs that go on."""
    own_keys, models, accounts = set[str](), dict[str, set[str]](), dict[str, Account]()
    for job in jobs:
        if job.snapshot is None or job.snapshot.is_done or job.conn_id is None:
            continue
        own_keys |= job.snapshot.keys.keys()
        models.setdefault(job.conn_id, set()).update(shard.model for shard in job.snapshot.plan.shards)
        accounts[job.conn_id] = job.account
    return [
        queue
        for conn_id, account in accounts.items()
        for queue in account.describe(models[conn_id], own_keys, now)
    ]


@router.get("/shards")
def get_shards(
    rights: AllRights, job_id: OneJob, state: str | None = None, limit: MoreLimit = 100, offset: Offset = 0
) -> dict[str, Any]:
    """A page of the shards of one job, in their order."""
    if state is not None and state not in STATES:
        raise HTTPException(422, f"state must be one of {', '.join(STATES)}.")
    now = time.time()
    rights.check_read(job_id.dag_id)
    with create_session(scoped=False) as session:
        (job,) = gather(session, [read_row(session, job_id)], rights)
        shards = [view for view in job.shards if state in (None, view.state)]
        page = shards[offset : offset + limit]
        add_instances(session, job, page)
    if job.snapshot is None and job.error is not None:
        raise HTTPException(403 if job.is_forbidden else 502, job.error)
    may_edit = rights.may_edit(job_id.dag_id)
    return {
        "shards": [view.describe(job.row.uri, now, may_edit=may_edit) for view in page],
        "total": len(shards),
        "now": to_iso(now),
        "loaded": job.snapshot is not None,
    }


@router.get("/history")
def get_history(
    rights: AllRights, dag_id: Name, limit: Annotated[int, Query(ge=1, le=50)] = 20
) -> dict[str, Any]:
    """Cost and failures of the last runs of a DAG, oldest first."""
    rights.check_read(dag_id)
    with create_session(scoped=False) as session:
        rows = find_newest_runs(session, dag_id, runs=limit)
        jobs = gather(session, rows, rights)
    return {"runs": describe_runs(jobs), "loaded": all(job.directory.loaded for job in jobs)}


def read_row(session: Any, job_id: JobId) -> JobRow:
    """:raises HTTPException: 404 where the task instance made no job."""
    row = find_job(session, job_id)
    if row is None:
        raise HTTPException(404, "There is no such job, or Airflow has forgotten it.")
    return row
