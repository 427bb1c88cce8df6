"""The sources of a plan are held to the allowed places each time that they are read, not by the split alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.access.givers import Giver, find_giver_in
from airflow_openai_batch.access.locations import make_resolver

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.storage.location import Resolver

_FIELD = "input_uri"


def find_source_giver(context: Context | None) -> Giver:
    """Who could have named the places that a plan names, which is data: whoever can write ``plan.json`` must not read
    more by it.

    It reads what the input of this DAG could have been: where the form says the input of a task, what a form may name.

    :param context: of the task; without it, what a form may name.
    """
    if context is None:
        return Giver.FORM
    dag = context.get("dag")
    if dag is None:
        return Giver.CODE
    params = context.get("params") or {}
    tasks = [task for task in dag.tasks if _FIELD in task.template_fields]
    givers = [find_giver_in(dag, task.task_id, params, _FIELD) for task in tasks]
    return max(givers, default=Giver.CODE)


def make_source_resolver(context: Context | None) -> Resolver:
    """For the places that a plan names; see `find_source_giver`."""
    return make_resolver("input", find_source_giver(context))
