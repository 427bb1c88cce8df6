"""Whose job it is: the DAG that planned it acts on it, another one may read what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf

from airflow_openai_batch.core.errors import ForeignJobError
from airflow_openai_batch.core.generations import read_last_plan
from airflow_openai_batch.settings import SECTION

if TYPE_CHECKING:
    from airflow_openai_batch.core.storage import Location

_SETTING = "renamed_dags"


def check_owner(created_by: str, where: str, dag_id: str) -> None:
    """:raises ForeignJobError: if it was another DAG that planned or prepared what lies there.

    :param created_by: ``dag_id/run_id`` as plan or manifest have it; empty where nobody knows.
    """
    owner = find_other_owner(created_by, dag_id)
    if owner is not None:
        raise ForeignJobError(
            f"{where}: belongs to DAG {owner!r}, which began it. DAG {dag_id!r} may read it, but neither go on with it "
            "nor repair, restart or publish it. Choose another output_uri; or, where the DAG was renamed, let whoever "
            f"sets up Airflow write it down: [{SECTION}] {_SETTING} = {dag_id}={owner}."
        )


def check_job_owner(output: Location, dag_id: str) -> None:
    """As `check_owner`, of a job directory; also where a restart was cut off that had put the plan aside already.

    :raises ForeignJobError: if the job is another DAG's.
    """
    plan = read_last_plan(output)
    if plan is not None:
        check_owner(plan.created_by, output.uri, dag_id)


def find_other_owner(created_by: str, dag_id: str) -> str | None:
    """The DAG that began it, where it is another than this one, whatever name this one had."""
    owner = created_by.partition("/")[0]
    return owner if owner not in ("", dag_id) and (dag_id, owner) not in _read_renames() else None


def _read_renames() -> set[tuple[str, str]]:
    """New and old names; what is no such pair allows nothing."""
    pairs = str(conf.get(SECTION, _SETTING, fallback="") or "").split(",")
    names = (pair.partition("=") for pair in pairs)
    return {(new.strip(), old.strip()) for new, _, old in names}
