"""Answers of a job in one's own task: streamed, typed, beside the rows they belong to."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.tables.join.typed_answers import Answer, read_answers
from airflow_openai_batch.tables.preparation.manifest import MANIFEST

__all__ = ["Answer", "iter_answers"]

log = logging.getLogger(__name__)


def iter_answers(
    job: str | Mapping[str, Any],
    *,
    output_type: Any = None,
    prepared: str | None = None,
    only_good: bool = True,
    unfinished: bool = False,
) -> Iterator[Answer]:
    """The answers of a job in the order of its rows, one at a time; memory does not grow with them.

    ::

        @task
        def load(job):
            for answer in iter_answers(job, output_type=Verdict):
                store(answer.row["id"], answer.value.mood)

    :param job: what ``@task.openai_batch`` returned, or the URI of a job directory. There are no answers in what a
        mapped task returned that had nothing to send.
    :param output_type: the Pydantic model that the answers were asked for in; they come as its instances. Without it:
        the JSON of a structured answer, a text, or a vector.
    :param prepared: the prepared directory; by default that of the job, where it has one. Each of its rows comes
        once, also those that share an answer. Without one, each request comes once and ``row`` is None.
    :param only_good: leave out rows without a good answer; how many is logged. Otherwise they come with their
        ``status`` and ``error``, and None as ``value``.
    :param unfinished: do not mind shards that are not done, for instance after a sample.
    :raises ConfigError: if there is no job.
    :raises JobError: if shards are not done.
    """
    if isinstance(job, Mapping) and job.get("job") is None and job.get("requests") == 0:
        log.warning("There are no answers: the task of the job had nothing to send.")
        return
    where, prepared = _read_job(job, prepared)
    output = open_place(where, "output", find_giver_of(where))
    place = open_place(prepared, "output", find_giver_of(prepared)) if prepared else output.child("prepared")
    has_rows = bool(prepared) or place.child(MANIFEST).exists()
    left_out: Counter[str] = Counter()
    for answer in read_answers(
        output, place if has_rows else None, output_type=output_type, unfinished=unfinished
    ):
        if only_good and answer.status != "ok":
            left_out[answer.status] += 1
        else:
            yield answer
    if left_out:
        listed = ", ".join(f"{count:,} {status}" for status, count in sorted(left_out.items()))
        log.warning("%s: left out %s.", where, listed)


def _read_job(job: str | Mapping[str, Any], prepared: str | None) -> tuple[str, str | None]:
    if isinstance(job, Mapping):
        prepared = prepared or job.get("prepared")
        job = job.get("job") or ""
    if not job or not isinstance(job, str):
        what = f"a {type(job).__name__}" if job else "empty"
        raise ConfigError(
            f"job is {what}: give what the task of the job returned, or the URI of its directory (of a task group "
            "group.job; of several jobs one at a time). Look at its log."
        )
    return job.strip().rstrip("/"), prepared
