"""The routes that the page asks. Plain functions: FastAPI runs them in threads, off the event loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, HTTPException, Query, Request

from airflow_openai_batch.operators.parameters import DEFAULT_CONN_ID
from airflow_openai_batch.plugin.access import GetUserDep, Rights
from airflow_openai_batch.plugin.accounts import ACCOUNTS, Account
from airflow_openai_batch.plugin.directories import DIRECTORIES
from airflow_openai_batch.plugin.instances import find_instances
from airflow_openai_batch.plugin.job_rows import JobId, JobRow, find_conn_ids, find_job, find_jobs
from airflow_openai_batch.plugin.job_view import describe_job, to_iso
from airflow_openai_batch.plugin.shard_view import STATES, ShardView, view_shards

if TYPE_CHECKING:
    from airflow_openai_batch.core.job_snapshot import JobSnapshot

router = APIRouter(prefix="/api")

Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0)]


def get_rights(request: Request, user: GetUserDep) -> Rights:
    return Rights(request, user)


def get_job_id(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> JobId:
    return JobId(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)


AllRights = Annotated[Rights, Depends(get_rights)]
OneJob = Annotated[JobId, Depends(get_job_id)]


@router.get("/jobs")
def get_jobs(
    rights: AllRights,
    dag_id: str | None = None,
    run_id: str | None = None,
    task_id: str | None = None,
    map_index: int | None = None,
    state: str | None = None,
    limit: Limit = 25,
    offset: Offset = 0,
) -> dict[str, Any]:
    """A page of jobs, newest run first."""
    now = time.time()
    if dag_id is None:
        dag_ids = rights.readable_dags()
    else:
        rights.check_read(dag_id)
        dag_ids = {dag_id}
    with create_session(scoped=False) as session:
        rows, total = find_jobs(
            session, dag_ids, run_id=run_id, task_id=task_id, map_index=map_index, state=state,
            limit=limit, offset=offset,
        )  # fmt: skip
        instances = {row.id: find_instances(session, row.id) for row in rows if not row.is_over}
        conn_ids = find_conn_ids(session, (row.id for row in rows))
    found = DIRECTORIES.get({row.uri for row in rows if row.uri})
    jobs, own_keys, watched = [], set[str](), dict[str, Account]()
    for row in rows:
        directory = found.get(row.uri)
        snapshot = None if directory is None else directory.snapshot
        shards: list[ShardView] = []
        if snapshot is not None:
            account = find_account(conn_ids.get(row.id), snapshot)
            if not snapshot.is_done:
                watched[account.conn_id] = account
            shards = view_shards(snapshot, account.batches, instances.get(row.id, {}))
            own_keys |= snapshot.keys.keys()
        may_edit = rights.may_edit(row.id.dag_id)
        jobs.append(describe_job(row, directory, shards, now=now, may_edit=may_edit))
    queues = [queue for account in watched.values() for queue in account.describe(own_keys, now)]
    return {"jobs": jobs, "total": total, "now": to_iso(now), "queues": queues}


def find_account(conn_id: str | None, snapshot: JobSnapshot) -> Account:
    """Of a job; OpenAI is asked only where some of its shards are not done."""
    name = conn_id or DEFAULT_CONN_ID
    return ACCOUNTS.find(name) if snapshot.is_done else ACCOUNTS.look(name)


@router.get("/shards")
def get_shards(
    rights: AllRights, job: OneJob, state: str | None = None, limit: Limit = 100, offset: Offset = 0
) -> dict[str, Any]:
    """A page of the shards of one job, in their order."""
    now = time.time()
    row = read_job(rights, job)
    with create_session(scoped=False) as session:
        instances = find_instances(session, job)
        conn_id = find_conn_ids(session, [job]).get(job)
    directory = DIRECTORIES.get([row.uri])[row.uri]
    snapshot = directory.snapshot
    if snapshot is None:
        if directory.error is not None:
            raise HTTPException(502, directory.error)
        return {"shards": [], "total": 0, "now": to_iso(now), "loaded": False}
    if state is not None and state not in STATES:
        raise HTTPException(422, f"state must be one of {', '.join(STATES)}.")
    batches = find_account(conn_id, snapshot).batches
    shards = [view for view in view_shards(snapshot, batches, instances) if state in (None, view.state)]
    may_edit = rights.may_edit(job.dag_id)
    page = [view.describe(snapshot, now, may_edit=may_edit) for view in shards[offset : offset + limit]]
    return {"shards": page, "total": len(shards), "now": to_iso(now), "loaded": True}


def read_job(rights: Rights, job: JobId) -> JobRow:
    """:raises HTTPException: 403 without rights on the DAG, 404 where the task instance made no job."""
    rights.check_read(job.dag_id)
    with create_session(scoped=False) as session:
        row = find_job(session, job)
    if row is None or not row.uri:
        raise HTTPException(404, "There is no such job, or Airflow has forgotten it.")
    return row
