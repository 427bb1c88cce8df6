"""What the tasks of ``drain_request_files`` do: find what is to be sent, deliver what has been answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, conf
from airflow.sdk import get_current_context

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.inbox.delivery import deliver_outputs
from airflow_openai_batch.recipes.inbox.inbox import open_inbox, seed_inbox
from airflow_openai_batch.recipes.inbox.pending_files import find_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ANSWERED = "answered"
"""The XCom with the jobs whose answers are there, for `deliver_known`."""
DELIVER_KNOWN = "deliver_known"
"""The task that does so."""


def find_files(params: Mapping[str, Any], samples: str | None = None) -> list[dict[str, str]]:
    """The files to drain, as ``input_uri`` and ``output_uri`` for the split.

    What was answered before goes to `deliver_known`: where that fails, the others are sent all the same. It reads the
    form: ``inbox``, ``min_age``, ``max_files``, ``repair``, ``on_existing``.

    :param samples: a folder of files that are put into an inbox that has none.
    """
    with task_failures():
        inbox = open_inbox(params["inbox"])
        is_seeded = samples is not None and seed_inbox(inbox, Path(samples)) > 0
        only_bad = bool(params["repair"])
        found = find_jobs(
            inbox,
            max_files=min(params["max_files"], _find_most_mapped()),
            min_age_s=0 if is_seeded else params["min_age"],
            only_bad=only_bad,
        )
        goes_on = params["on_existing"] == "resume" and not only_bad
        answered = [job for job in found if job.landed and goes_on]
        context = get_current_context()
        context["ti"].xcom_push(ANSWERED, [job.uri for job in answered])
        if not context["dag"].has_task(DELIVER_KNOWN):  # a copy of the DAG that is older than that task
            for job in answered:
                deliver_outputs(inbox, job.uri)
    return [{"input_uri": job.input_uri, "output_uri": job.uri} for job in found if job not in answered]


def collect_shards(files: Iterable[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Of all files, as many as Airflow maps over; what it says of more names neither number nor setting.

    :param files: what the splits returned.
    """
    shards = [shard for of_file in files for shard in of_file]
    with task_failures():
        if len(shards) > (most := _find_most_mapped()):
            raise InputError(
                f"The files of this run make {len(shards):,} shards, but [core] max_map_length of Airflow allows "
                f"{most:,} mapped tasks; nothing was sent. Trigger it with fewer files (max_files), make shards "
                f"larger, or raise AIRFLOW__CORE__MAX_MAP_LENGTH to {len(shards):,} or more for all components."
            )
    return shards


def _find_most_mapped() -> int:
    return int(conf.getint("core", "max_map_length", fallback=1024))


def deliver(inbox: str, job: str) -> list[dict[str, Any]] | None:
    """Write the answers beside the files of a job, once its last shard is done; see `deliver_outputs`."""
    with task_failures():
        return deliver_outputs(open_inbox(inbox), job)


def deliver_known(inbox: str, jobs: Sequence[str]) -> list[dict[str, Any]]:
    """Write the answers beside the files of all jobs that were answered before; one that fails holds up no other.

    :raises AirflowSkipException: if there is none.
    """
    if not jobs:
        raise AirflowSkipException("No file whose answers are known and lie not beside it.")
    delivered: list[dict[str, Any]] = []
    failures: list[Exception] = []
    with task_failures():
        place = open_inbox(inbox)
        for job in jobs:
            try:
                delivered += deliver_outputs(place, job) or []
            except Exception as error:
                failures.append(error)  # `deliver_outputs` has told which file
        if failures:
            raise failures[0]
    return delivered
