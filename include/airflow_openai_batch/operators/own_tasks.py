"""What a DAG's own tasks need of this package: its errors as Airflow takes them, prompts, names of runs in paths, and
the last look at what was joined."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import get_current_context

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.prompt_files import PromptSpec, load_prompt
from airflow_openai_batch.operators.task.run_place import make_path_safe

__all__ = ["PromptSpec", "check_joined", "load_prompt", "make_path_safe", "task_failures"]


def check_joined(*task_ids: str) -> None:
    """For the last task of a DAG that joins whatever became of the shards: whether its tables have the rows that came
    since. Who clears the shards that failed, and not the join, has all answers and a table without them.

    :param task_ids: of the joins, of which some may have been skipped.
    :raises AirflowFailException: if rows of a table are of shards that were not done when it was written.
    """
    ti = get_current_context()["ti"]
    for task_id in task_ids:
        joined = ti.xcom_pull(task_ids=task_id) or {}
        if unfinished := joined.get("statuses", {}).get("unfinished"):
            raise AirflowFailException(
                f"{joined['uri']}: {task_id} wrote it while {unfinished:,} of its {joined['rows']:,} rows had no "
                f"result yet, since their shards were not done. Clear {task_id} with all that comes after it; that "
                "costs nothing."
            )
