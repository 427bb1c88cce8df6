"""Paths on a worker's own disk, which workers on other machines do not see: said before, and explained after."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import get_current_context
from airflow.utils.net import get_hostname

from airflow_openai_batch.access.locations import absolute_uri
from airflow_openai_batch.access.settings import SECTION
from airflow_openai_batch.storage.uris import is_local_uri

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.errors import NoPlanError

SPLIT_HOST = "split_host"
"""XCom of the split: the machine whose disk has the plan, where it lies on one."""

_ON_ONE_MACHINE = {"LocalExecutor", "SequentialExecutor"}
_WAY_OUT = (
    "Use object storage (s3://, gs://, abfs://), or a disk that all workers mount at this path; for that set "
    f"[{SECTION}] shared_disk = true."
)


def describe_local_places(inputs: Iterable[str], output_uri: str, job_uri: str) -> Iterator[str]:
    """Warnings of a split about what it was given.

    :param output_uri: as it was written.
    :param job_uri: what came of it.
    """
    if (warning := describe_local_paths([*inputs, job_uri])) is not None:
        yield warning
    if is_local_uri(output_uri) and "://" not in output_uri and not output_uri.strip().startswith(("/", "~")):
        yield (
            f"The output {output_uri!r} is a relative path: the job lies in {absolute_uri(job_uri)}, below the "
            "directory that this worker was started in. A worker that was started elsewhere finds no job there, and "
            "pays for a new one. Write the path from the root on, or a URI."
        )


def describe_local_paths(uris: Iterable[str]) -> str | None:
    """A warning where tasks may run on machines that do not see these places; ``None`` where all is well.

    Whether a disk is shared cannot be seen from one machine, so ``[openai_batch] shared_disk`` says it.
    """
    local = [uri for uri in uris if is_local_uri(uri)]
    executor = _find_remote_executor()
    if not local or executor is None or conf.getboolean(SECTION, "shared_disk", fallback=False):
        return None
    others = f" and {len(local) - 1:,} more" if len(local) > 1 else ""
    return (
        f"{local[0]}{others} lies on the disk of {find_host()}, and {executor} may run the other tasks on machines "
        f"that do not see it: they would fail. {_WAY_OUT}"
    )


def find_host() -> str:
    """This machine, by the name that Airflow shows."""
    return str(get_hostname())  # type: ignore[no-untyped-call]


def explain_missing_plan(error: NoPlanError) -> str:
    """Names both machines where the split wrote the plan on the disk of another; called while a task runs."""
    here, there = find_host(), next(_find_split_hosts(get_current_context()), None)
    if not is_local_uri(error.uri) or there in (None, here):
        return str(error)
    return (
        f"{error.uri}: there is no plan.json on the disk of {here}, where this task runs; the split wrote it on the "
        f"disk of {there}. {_WAY_OUT}"
    )


def _find_remote_executor() -> str | None:
    """What may run tasks on several machines. A pod of Kubernetes is told that its executor is a local one."""
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        return "KubernetesExecutor"
    # Several, some with an alias, a team or the path of their module before them.
    names = re.findall(r"\w+Executor\b", str(conf.get("core", "executor", fallback="")))
    return next((name for name in names if name not in _ON_ONE_MACHINE), None)


def _find_split_hosts(context: Context) -> Iterator[str]:
    """Of this task, which may hold a whole job, and of those before it."""
    ti, task = context["ti"], context["task"]
    tasks = [ti.task_id, *(before.task_id for before in task.get_flat_relatives(upstream=True))]
    found = ti.xcom_pull(task_ids=tasks, key=SPLIT_HOST)
    yield from (host for host in found or () if isinstance(host, str))
