"""What a person may do from the page: cancel a batch, and take the requests that have no good answer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from airflow.models.log import Log
from airflow.utils.session import create_session
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import NotFoundError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.open_plan import open_plan
from airflow_openai_batch.openai_api.batch import BatchStatus
from airflow_openai_batch.operators.task.ownership import find_other_owner
from airflow_openai_batch.plugin.access import GetUserDep, check_origin
from airflow_openai_batch.plugin.api import AllRights, OneJob, read_row
from airflow_openai_batch.plugin.job_rows import JobId, find_conn_ids
from airflow_openai_batch.plugin.odd_requests import MOST_NAME_CHARS, MOST_NUMBER, TEXT
from airflow_openai_batch.sending.batch_search import is_of_job

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import PlanHead
    from airflow_openai_batch.storage.location import Location

CHUNK_BYTES = 1 << 20
MOST_WISH_BYTES = 64 * 1024
NO_FILE = "The job has no failed.jsonl (yet)."

log = logging.getLogger(__name__)
router = APIRouter(prefix="/api")


Name = Annotated[str, Field(max_length=MOST_NAME_CHARS, pattern=TEXT)]


class CancelWish(BaseModel):
    """The body of ``/api/cancel``."""

    dag_id: Name
    run_id: Name
    task_id: Name
    map_index: int = Field(default=-1, ge=-1, le=MOST_NUMBER)
    batch_id: str = Field(pattern=r"^batch_[A-Za-z0-9_-]{1,100}$")


async def read_wish(request: Request) -> CancelWish:
    """FastAPI would read a body that is declared before it asks who sends it; here that was asked.

    :raises RequestValidationError: for anything else than a wish.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_WISH_BYTES:
            raise HTTPException(413, f"A wish has at most {MOST_WISH_BYTES:,} bytes.")
    try:
        return CancelWish.model_validate_json(bytes(body))
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        ) from None


@router.post("/cancel", dependencies=[Depends(check_origin)])
def cancel(
    rights: AllRights, user: GetUserDep, wish: Annotated[CancelWish, Depends(read_wish)]
) -> dict[str, str]:
    """Ask OpenAI to cancel one batch of a job. What is answered by then is paid, and is kept.

    It takes up to ten minutes. The shard then goes on with the rest; who does not want that marks its task first.
    """
    rights.check_edit(wish.dag_id)
    job_id = JobId(**wish.model_dump(exclude={"batch_id"}))
    with create_session(scoped=False) as session:
        row = read_row(session, job_id)
        conn_id = find_conn_ids(session, [job_id]).get(job_id)
    if conn_id is None:
        raise HTTPException(404, "Airflow does not know the job's connection any more.")
    # What a split pushed: it has looked at who gave it.
    check_conn_id(conn_id, Giver.CODE)
    plan = open_plan(open_place(row.uri, "output", Giver.CODE))
    if plan is not None and (owner := find_other_owner(plan.head.created_by, job_id.dag_id)):
        rights.check_edit(owner)
    status = _cancel(conn_id, wish.batch_id, row.uri, None if plan is None else plan.head)
    _note(job_id, user, wish.batch_id)
    return {"batch_id": wish.batch_id, "status": status}


def _cancel(conn_id: str, batch_id: str, uri: str, plan: PlanHead | None) -> str:
    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook  # the client's imports take a second

    with OpenAIBatchHook(conn_id).get_batch_client() as client:
        try:
            batch = client.fetch(batch_id)
        except NotFoundError:
            raise HTTPException(
                404, f"The server does not know {batch_id} with connection {conn_id!r}."
            ) from None
        if plan is None or not is_of_job(batch, uri, plan):
            raise HTTPException(404, f"{batch_id} does not belong to this job.")
        if batch.status.is_final or batch.status is BatchStatus.CANCELLING:
            raise HTTPException(409, f"{batch_id} is {batch.status} already.")
        client.cancel(batch_id)
    return str(BatchStatus.CANCELLING)


def _note(job_id: JobId, user: Any, batch_id: str) -> None:
    """In Airflow's audit log."""
    name = user.get_name()
    log.info("%s cancels %s of %s/%s.", name, batch_id, job_id.dag_id, job_id.run_id)
    entry = Log(
        event="openai_batch.cancel",
        owner=name,
        extra=batch_id,
        dag_id=job_id.dag_id,
        run_id=job_id.run_id,
        task_id=job_id.task_id,
    )
    with create_session(scoped=False) as session:
        session.add(entry)


@router.get("/failed.jsonl")
def get_failed(rights: AllRights, job_id: OneJob) -> StreamingResponse:
    """Every request without a good answer, ready to be an input again: with what was asked, so with more rights."""
    rights.check_contents(job_id.dag_id)
    with create_session(scoped=False) as session:
        row = read_row(session, job_id)
    output = open_place(row.uri, "output", Giver.CODE)
    plan = open_plan(output)
    if plan is None:
        raise HTTPException(404, NO_FILE)
    if owner := find_other_owner(plan.head.created_by, job_id.dag_id):
        rights.check_contents(owner)
    place = output.child(directory.FAILED)
    try:
        chunks = _read_chunks(place)
        first = next(chunks, b"")
    except FileNotFoundError:
        raise HTTPException(404, NO_FILE) from None
    except OSError as error:
        raise HTTPException(502, f"failed.jsonl cannot be read ({type(error).__name__}).") from None
    name = (
        f"{re.sub(r'[^A-Za-z0-9._-]', '_', job_id.dag_id)}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    )
    headers = {
        "Content-Disposition": f'attachment; filename="failed-{name}.jsonl"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_chain(first, chunks), media_type="application/x-ndjson", headers=headers)


def _read_chunks(place: Location) -> Iterator[bytes]:
    with place.open_read() as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
