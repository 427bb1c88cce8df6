"""One message per run for whoever is on call, not one per shard: when a run has failed, and when it takes too long.

    DAG(..., on_failure_callback=AlertOnFailure(SlackNotifier(text="{{ alert.text }}")),
        deadline=alert_when_overdue(30, job_task="ask.split"))

The log has the message in any case: that of the DAG processor, which calls a DAG's callbacks, and that of the
triggerer, where deadlines are met. Nothing of requests, answers and keys is in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseNotifier, conf

# Where Airflow 3.1 has all three of them, too.
from airflow.sdk.definitions.deadline import (  # type: ignore[attr-defined]
    AsyncCallback,
    DeadlineAlert,
    DeadlineReference,
)
from asgiref.sync import sync_to_async

from airflow_openai_batch.access.locations import resolve_location
from airflow_openai_batch.alerts.failed_run import (
    MOST_NAMED,
    find_failed,
    find_jobs,
    is_one_of,
    name_failed,
    read_errors,
)
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.report.job_status import JobStatus, describe_failure, describe_waiting

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

log = logging.getLogger(__name__)

_WITH_JOB = (OpenAIBatchSplitOperator, OpenAIBatchReportOperator, OpenAIBatchJobOperator)
LOOK_WITHIN_S = 60.0
"""For all jobs of a run that is late."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a notifier's templates find as ``{{ alert.subject }}`` and ``{{ alert.text }}``."""

    subject: str
    text: str


class AlertOnFailure:
    """For a DAG's ``on_failure_callback``: called once, when the run has failed.

    :param notifier: any of Airflow's, with ``{{ alert.text }}`` and ``{{ alert.subject }}`` in its templates.
    """

    def __init__(self, notifier: BaseNotifier | None = None) -> None:
        self._notifier = notifier

    def __call__(self, context: Mapping[str, Any]) -> None:
        alert = _within(_read_patience_s(), lambda: _describe_failed_run(context))
        if alert is None:
            why = "What failed could not be looked up in time."
            alert = _compose(context["dag"].dag_id, context["run_id"], "failed", why, [])
        log.error("%s", alert.text)
        if self._notifier is not None:
            # A notifier keeps what it has rendered, and the next run is another.
            copy.copy(self._notifier)({**context, "alert": alert})


def _describe_failed_run(context: Mapping[str, Any]) -> Alert:
    dag_id, run_id = context["dag"].dag_id, context["run_id"]
    began = getattr(context.get("dag_run"), "start_date", None)
    failed = find_failed(dag_id, run_id, {task.task_id: task for task in context["dag"].tasks})
    tasks = [task.task_id for task in context["dag"].tasks if is_one_of(task, _WITH_JOB)]
    since = began.timestamp() if began else 0.0
    jobs = find_jobs(dag_id, run_id, tasks)
    stands = _look_at_jobs(jobs, lambda place: describe_failure(place, since=since))
    names = name_failed(failed) or str(context.get("reason") or "")
    return _compose(dag_id, run_id, "failed", names, stands, list(read_errors(dag_id, run_id, failed)))


def _read_patience_s() -> float:
    """Half of what Airflow gives a DAG file with its callbacks, after which it kills them and nobody is told."""
    return float(conf.getfloat("dag_processor", "dag_file_processor_timeout", fallback=50.0)) / 2


def _within(patience_s: float, look: Callable[[], Alert]) -> Alert | None:
    """None where it takes too long or fails: an alert without details is better than none."""
    found: SimpleQueue[Alert | None] = SimpleQueue()

    def run() -> None:
        try:
            found.put(look())
        except Exception as error:
            log.warning("No details of the failed run: %s", type(error).__name__)
            found.put(None)

    threading.Thread(target=run, daemon=True, name="openai-batch-alert").start()
    try:
        return found.get(timeout=patience_s)
    except Empty:
        return None


def alert_when_overdue(
    hours: float,
    *,
    since: Literal["queued", "logical_date"] = "queued",
    job_task: str = "split",
    notifier: type[BaseNotifier] | str | None = None,
    notifier_args: Mapping[str, Any] | None = None,
) -> DeadlineAlert:
    """For a DAG's ``deadline``: one message where a run is not over so many hours after it was queued.

    The run goes on. Needs a triggerer, which is where it is called.

    Airflow 3.3.2 answers 500 where tasks of a run are cleared whose deadline counts from its queueing and has not
    passed (``_recalculate_dagrun_queued_at_deadlines`` takes the stored interval for a number). Where that matters more
    than runs without a logical date and late catch-up runs, count from the logical date. Its ``DAG.test`` (``airflow
    dags test``) cannot run a DAG with a deadline: it takes the definition for an id.

    :param since: from when the hours count. Runs without a logical date have no deadline by it.
    :param job_task: the task that pushes the job directory: a split, or `OpenAIBatchJobOperator`.
    :param notifier: a class or its path; the triggerer imports it. Airflow keeps it in its database, so no object.
    :param notifier_args: its arguments, with ``{{ alert.text }}`` and ``{{ alert.subject }}``; plain values, no
        secrets, since Airflow keeps them in its database.
    """
    path = f"{notifier.__module__}.{notifier.__qualname__}" if isinstance(notifier, type) else notifier
    told = {
        "hours": hours,
        "since": since,
        "job_task": job_task,
        "notifier": path,
        "notifier_args": dict(notifier_args or {}),
    }
    return DeadlineAlert(
        reference=(
            DeadlineReference.DAGRUN_QUEUED_AT if since == "queued" else DeadlineReference.DAGRUN_LOGICAL_DATE
        ),
        interval=timedelta(hours=hours),
        callback=AsyncCallback(tell_overdue, kwargs=told),
    )


async def tell_overdue(
    *,
    hours: float,
    job_task: str,
    since: str = "queued",
    notifier: str | None = None,
    notifier_args: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> str:
    """Called by Airflow in the triggerer; the arguments are those of `alert_when_overdue`.

    :returns: the subject, which Airflow keeps as the callback's result.
    """
    run = (context or {}).get("dag_run") or {}
    dag_id, run_id = str(run.get("dag_id", "")), str(run.get("dag_run_id") or run.get("run_id") or "")
    # In a thread of asgiref's, as Airflow's own triggers ask: older ones can answer only there.
    jobs = await sync_to_async(lambda: list(find_jobs(dag_id, run_id, [job_task])))()
    stands: list[JobStatus] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_WITHIN_S):
            stands = await asyncio.to_thread(
                _look_at_jobs, jobs, lambda place: describe_waiting(place, now=time.time())
            )
    late = f"not over {hours:g} h after {'it was queued' if since == 'queued' else 'its logical date'}"
    why = ""
    if not jobs:
        why = f"Task {job_task!r} has planned no job yet, or there is no such task."
    elif not stands:
        why = "How far its job is could not be read; the triggerer's log says why."
    alert = _compose(dag_id, run_id, late, why, stands)
    log.warning("%s", alert.text)
    if notifier is not None:
        await _notify(notifier, notifier_args or {}, {**(context or {}), "alert": alert})
    return alert.subject


async def _notify(path: str, args: Mapping[str, Any], context: dict[str, Any]) -> None:
    module, _, name = path.rpartition(".")
    kind = getattr(await asyncio.to_thread(importlib.import_module, module), name)
    made: Any = kind(**args)
    if kind.async_notify is BaseNotifier.async_notify:
        await asyncio.to_thread(made, context)
        return
    made.context = context
    await made


def _look_at_jobs(uris: Iterable[str], look: Callable[[Location], JobStatus | None]) -> list[JobStatus]:
    """The first few with which something is wrong, else one that is fine; none where none can be read.

    An alert without details is better than none.
    """
    bad, fine = list[JobStatus](), list[JobStatus]()
    for uri in uris:
        try:
            stand = look(resolve_location(uri))
        except Exception as error:
            log.warning("No look at %s: %s", uri, type(error).__name__)
            continue
        if stand is not None:
            (fine if stand.is_fine else bad).append(stand)
        if len(bad) == MOST_NAMED:
            log.info("The message is about the first %d jobs of the run that want a look.", MOST_NAMED)
            break
    return bad or fine[:1]


def _compose(
    dag_id: str, run_id: str, how: str, tasks: str, stands: list[JobStatus], errors: Sequence[str] = ()
) -> Alert:
    first = stands[0].what if stands else next(iter(errors), tasks)
    lines = [f"{dag_id}, run {run_id}: {how}.", *errors]
    for stand in stands:
        lines += [stand.what, stand.numbers, stand.cost, f"To do: {stand.to_do}", f"See {stand.see}"]
    if tasks:
        lines.append(tasks)
    if not stands and not errors:
        lines.append(
            "To do: read the log of the first of these tasks; it says what is wrong, and what to do about it."
        )
    lines.append(_link(dag_id, run_id))
    return Alert(subject=f"{dag_id} {how}: {first}"[:200].strip(), text="\n".join(lines))


def _link(dag_id: str, run_id: str) -> str:
    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id)}"
