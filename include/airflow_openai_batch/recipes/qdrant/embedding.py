"""What the tasks of ``embed_documents`` do: cut documents, write vectors, judge them, look what lies near what.

Each reads from the form: ``output_uri``, ``qdrant_conn_id``, ``collection``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.dag_prompt import Prompt, read_dag_prompt
from airflow_openai_batch.recipes.job_folder import find_restart, open_folder
from airflow_openai_batch.recipes.qdrant.chunk_writing import TABLE, check_failed, write_chunks
from airflow_openai_batch.recipes.qdrant.documents import CHUNKS, read_documents
from airflow_openai_batch.recipes.qdrant.neighbours import report_neighbours
from airflow_openai_batch.recipes.qdrant.qdrant_points import find_store

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TABLE", "cut_documents", "judge_vectors", "show_neighbours", "write_vectors"]


@task_failures()
def cut_documents(context: Context, prompt: Prompt) -> int:
    """Write the chunks that have no vector yet into a table, whose URI is pushed as ``chunks``; how many.

    It reads the form: ``documents``, ``max_chars``, ``on_existing``.

    :param prompt: that of the DAG's preparation.
    """
    params = context["params"]
    folder = open_folder(context)
    found = read_documents(
        find_store(context),
        folder,
        read_dag_prompt(context, prompt),
        source=params["documents"],
        max_chars=params["max_chars"],
        restart_of=find_restart(context),
    )
    context["ti"].xcom_push("chunks", folder.child(CHUNKS).uri)
    return found.new


@task_failures()
def write_vectors(context: Context, prompt: Prompt) -> dict[str, Any]:
    """Put chunks with their vectors into the collection, take those away that are no longer in their documents."""
    done = write_chunks(open_folder(context), find_store(context), read_dag_prompt(context, prompt))
    return {"written": done.written, "deleted": done.deleted, "cost_usd": done.cost_usd}


@task_failures()
def judge_vectors(context: Context) -> None:
    """Fail where more than ``max_failed_fraction`` of the chunks got no vector; see `check_failed`."""
    params = context["params"]
    check_failed(open_folder(context), params["max_failed_fraction"])


@task_failures()
def show_neighbours(context: Context, prompt: Prompt) -> None:
    """Write what is nearest to each query; see `report_neighbours`.

    It reads the form: ``queries``, ``conn_id``, ``neighbours``.
    """
    params = context["params"]
    report_neighbours(
        open_folder(context),
        find_store(context),
        params["queries"] or [],
        read_dag_prompt(context, prompt),
        params["conn_id"],
        limit=params["neighbours"],
    )
