"""Whose job it is: the DAG that planned it acts on it, another one may read what it left."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.permissions import find_roots
from airflow_openai_batch.access.settings import describe_option, read_list
from airflow_openai_batch.errors import ForeignJobError, JobError, NotAllowedError
from airflow_openai_batch.job.generations import read_last_head
from airflow_openai_batch.storage.uris import parse_uri

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_openai_batch.job.plan import PlanHead
    from airflow_openai_batch.storage.location import Location

_SETTING = "renamed_dags"
_MOST_FOLDERS = 16


def check_owner(created_by: str, where: str, dag_id: str) -> None:
    """:raises ForeignJobError: if it was another DAG that planned or prepared what lies there.

    :param created_by: ``dag_id/run_id`` as plan or manifest have it; empty where nobody knows.
    """
    owner = find_other_owner(created_by, dag_id)
    if owner is not None:
        raise ForeignJobError(
            f"{where}: belongs to DAG {owner!r}, which began it. DAG {dag_id!r} may read it, but neither go on with it "
            "nor repair, restart or publish it. Choose another output_uri, unless the DAG was renamed. "
            f"{describe_option(_SETTING, f'{dag_id}={owner}')}"
        )


def check_job_owner(output: Location, dag_id: str) -> None:
    """As `check_owner`, of a job directory; also where a restart was cut off that had put the plan aside already.

    :raises ForeignJobError: if the job is another DAG's.
    """
    plan = read_last_head(output)
    if plan is not None:
        check_owner(plan.created_by, output.uri, dag_id)


def check_same_plan(planned: Collection[str], plan: PlanHead, where: str) -> None:
    """What lies there after a restart by another run is that run's: this one would take its rows for its own.

    :param planned: names of the plans that this run has gone on with; none where it is not known.
    :raises JobError: if another one is there now.
    """
    if planned and plan.name not in planned:
        raise JobError(
            f"{where}: {plan.created_by or 'another run'} has restarted this job since this run planned it, so that "
            "what lies there now is not this run's. Clear this run from its split on to go on with what is there, or "
            "give each run an output_uri of its own, for instance with {run_id}."
        )


def check_folder(folder: Location, dag_id: str, giver: Giver) -> None:
    """For whoever writes files of its own into a folder: as `check_folders_above`, of the folder as well."""
    check_folders_above(folder.child(""), dag_id, giver)


def check_folders_above(output: Location, dag_id: str, giver: Giver) -> None:
    """A form must not put files into the directory of another DAG's job either, where readers take them for its own.

    :raises ForeignJobError: if one of the folders above, as far as forms may write, is another DAG's job.
    """
    if giver is not Giver.FORM:
        return
    roots = [parse_uri(root) for root in find_roots("output", giver) or ()]
    uri, path = output.uri, output.path
    for _ in range(_MOST_FOLDERS):
        uri, path = uri.rpartition("/")[0], path.rpartition("/")[0]
        if not path or not any(parse_uri(uri).is_below(root) for root in roots):
            return
        plan = None
        with contextlib.suppress(JobError):  # a file of somebody's that happens to be called plan.json
            plan = read_last_head(replace(output, path=path, uri=uri, bounds=None))
        if plan is not None:
            check_owner(plan.created_by, uri, dag_id)


def check_below_root(output: Location, giver: Giver) -> None:
    """A job in the folder of all jobs would be one above those of all other DAGs.

    :raises NotAllowedError: if a form names that folder itself.
    """
    roots = (find_roots("output", giver) or ()) if giver is Giver.FORM else ()
    if any(parse_uri(root) == parse_uri(output.uri) for root in roots):
        raise NotAllowedError(
            f"{output.uri}: is the folder below which forms name their outputs. Name a folder in it, for instance "
            f"{output.uri.rstrip('/')}/{{run_id}}."
        )


def find_other_owner(created_by: str, dag_id: str) -> str | None:
    """The DAG that began it, where it is another than this one, whatever name this one had."""
    owner = created_by.partition("/")[0]
    return owner if owner not in ("", dag_id) and (dag_id, owner) not in _read_renames() else None


def _read_renames() -> set[tuple[str, str]]:
    """New and old names; what is no such pair allows nothing."""
    names = (pair.partition("=") for pair in read_list(_SETTING))
    return {(new.strip(), old.strip()) for new, _, old in names}
