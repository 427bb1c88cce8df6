"""What the tasks of ``drain_request_files`` do: find what is to be sent, deliver what has been answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.inbox.delivery import deliver_outputs
from airflow_openai_batch.recipes.inbox.inbox import open_inbox, seed_inbox
from airflow_openai_batch.recipes.inbox.pending_files import find_jobs

if TYPE_CHECKING:
    from collections.abc import Mapping


def find_files(params: Mapping[str, Any], samples: str | None = None) -> list[dict[str, str]]:
    """The files to drain, as ``input_uri`` and ``output_uri`` for the split.

    What was answered before is delivered at once. It reads the form: ``inbox``, ``min_age``, ``max_files``, ``repair``,
    ``on_existing``.

    :param samples: a folder of files that are put into an inbox that has none.
    """
    with task_failures():
        inbox = open_inbox(params["inbox"])
        is_seeded = samples is not None and seed_inbox(inbox, Path(samples)) > 0
        only_bad = bool(params["repair"])
        found = find_jobs(
            inbox,
            max_files=params["max_files"],
            min_age_s=0 if is_seeded else params["min_age"],
            only_bad=only_bad,
        )
        goes_on = params["on_existing"] == "resume" and not only_bad
        for job in found:
            if job.landed and goes_on:
                deliver_outputs(inbox, job.uri)
    return [
        {"input_uri": job.input_uri, "output_uri": job.uri} for job in found if not (job.landed and goes_on)
    ]


def deliver(inbox: str, job: str) -> list[dict[str, Any]] | None:
    """Write the answers beside the files of a job, once its last shard is done; see `deliver_outputs`."""
    with task_failures():
        return deliver_outputs(open_inbox(inbox), job)
