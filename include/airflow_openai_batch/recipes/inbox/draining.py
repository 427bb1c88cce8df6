"""What the tasks of ``drain_request_files`` do: find what is to be sent, deliver what has been answered."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import get_current_context

from airflow_openai_batch.access.settings import find_max_map_length
from airflow_openai_batch.errors import InputChangedError, InputError, JobError
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.inbox.delivery import deliver_outputs
from airflow_openai_batch.recipes.inbox.inbox import open_inbox, seed_inbox
from airflow_openai_batch.recipes.inbox.pending_files import (
    find_content,
    find_jobs,
    find_planned,
    is_there,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_openai_batch.recipes.inbox.inbox import Inbox
    from airflow_openai_batch.recipes.inbox.pending_files import PendingJob

log = logging.getLogger(__name__)
ANSWERED = "answered"
"""The XCom with the jobs for `deliver_known`: their answers are there, or it says why they cannot go on."""
DELIVER_KNOWN = "deliver_known"
"""The task that does so."""


def find_files(params: Mapping[str, Any], samples: str | None = None) -> list[dict[str, str]]:
    """The files to drain, as ``input_uri`` and ``output_uri`` for the split.

    What was answered before goes to `deliver_known`: where that fails, the others are sent all the same. So does a job
    whose file was renamed, or removed and a copy left. It reads the form: ``inbox``, ``min_age``, ``max_files``,
    ``repair``, ``on_existing``.

    :param samples: a folder of files that are put into an inbox that has none.
    """
    with task_failures():
        inbox = open_inbox(params["inbox"])
        is_seeded = samples is not None and seed_inbox(inbox, Path(samples)) > 0
        only_bad = bool(params["repair"])
        found = find_jobs(
            inbox,
            max_files=min(params["max_files"], find_max_map_length()),
            min_age_s=0 if is_seeded else params["min_age"],
            only_bad=only_bad,
        )
        context = get_current_context()
        # A copy of the DAG may be older than that task.
        has_task = context["dag"].has_task(DELIVER_KNOWN)
        goes_on = params["on_existing"] == "resume"
        known = [job for job in found if goes_on and _is_known(job, only_bad=only_bad, says_lost=has_task)]
        context["ti"].xcom_push(ANSWERED, [job.uri for job in known])
        for job in () if has_task else known:
            deliver_outputs(inbox, job.uri)
    return [{"input_uri": job.input_uri, "output_uri": job.uri} for job in found if job not in known]


def _is_known(job: PendingJob, *, only_bad: bool, says_lost: bool) -> bool:
    """Whether there is nothing to split: of what was answered before, and of what its split would refuse."""
    return (says_lost and job.lost_source is not None) or (job.landed and not only_bad)


def collect_shards(files: Iterable[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Of all files, as many as Airflow maps over; what it says of more names neither number nor setting.

    :param files: what the splits returned.
    """
    shards = [shard for of_file in files for shard in of_file]
    with task_failures():
        if len(shards) > (most := find_max_map_length()):
            raise InputError(
                f"The files of this run make {len(shards):,} shards, but [core] max_map_length of Airflow allows "
                f"{most:,} mapped tasks; nothing was sent. Trigger it with fewer files (max_files), make shards "
                f"larger, or raise AIRFLOW__CORE__MAX_MAP_LENGTH to {len(shards):,} or more for all components."
            )
    return shards


def deliver(inbox: str, job: str) -> list[dict[str, Any]] | None:
    """Write the answers beside the files of a job, once its last shard is done; see `deliver_outputs`."""
    with task_failures():
        return deliver_outputs(open_inbox(inbox), job)


def deliver_known(inbox: str, jobs: Sequence[str]) -> list[dict[str, Any]]:
    """Write the answers beside the files of all jobs that were answered before; one that fails holds up no other.

    :raises AirflowSkipException: if there is none.
    :raises InputChangedError: for a job that cannot go on, since its file is gone.
    """
    if not jobs:
        raise AirflowSkipException("No file whose answers are known and lie not beside it.")
    only_bad = bool(get_current_context()["params"].get("repair"))
    delivered: list[dict[str, Any]] = []
    failures: list[Exception] = []
    with task_failures():
        place = open_inbox(inbox)
        for job in jobs:
            try:
                # A repair hands over no job that could be repaired.
                found = None if only_bad else deliver_outputs(place, job)
                if found is None:
                    error = _explain_lost(place, job)
                    log.error("%s", error)
                    raise error
                delivered += found
            except Exception as error:
                failures.append(error)  # whoever raised it has told which file
        if failures:
            raise failures[0]
    return delivered


def _explain_lost(inbox: Inbox, uri: str) -> JobError | InputChangedError:
    job = inbox.open_job(uri)
    planned = find_planned(job)
    if planned is None or is_there(inbox, planned, job):
        return JobError(f"{uri}: is not done. Trigger the DAG again; what was answered is not sent again.")
    folder, _, name = planned.rpartition("/")
    if folder != inbox.place.uri:
        return InputChangedError(
            f"{uri}: is not done, and reads its requests from {planned}, but the inbox is {inbox.place.uri}. Trigger "
            f"the DAG again with the inbox {folder}, moved back there if it was moved, which sends nothing twice."
        )
    copies = ", ".join(each for each in inbox.read_names(job) if find_content(inbox, each, job))
    return InputChangedError(
        f"{planned}: {'has another content now' if inbox.place.child(name).exists() else 'is gone'}, and its job {uri} "
        f"is not done and reads its requests from there. {copies or 'No file'} has the same content: rename or copy it "
        f"to {name} and trigger the DAG again, which sends nothing twice."
    )
