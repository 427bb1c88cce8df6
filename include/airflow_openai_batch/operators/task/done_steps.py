"""Steps that would find their goal reached are skipped by the task before them, and a report that runs though tasks
before it were skipped looks whether there is something to report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import TriggerRule

from airflow_openai_batch.operators.task.handover import does_our_work_alone, find_as_written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow.sdk import BaseOperator, Context

_TAKE_SKIPPED = frozenset({TriggerRule.ALL_DONE, TriggerRule.ALWAYS})
"""Trigger rules of tasks that run whether or not those before them were skipped."""


def find_done_steps(operator: Any, kind: type[BaseOperator], takes_skipped: type[BaseOperator]) -> list[str]:
    """Task ids right after an operator, of the same shard, that may be skipped where the shard is done.

    None where something would be missed: what an author has hung onto them, or a task after them that needs them to
    have succeeded. Whatever is not of this package may read what they return.

    :param kind: of the steps.
    :param takes_skipped: what may come after them, with a trigger rule that runs it all the same.
    """
    if not does_our_work_alone(operator):
        return []
    shard = getattr(find_as_written(operator), "shard", None)
    if shard is None:  # mapped on its own, or in no DAG
        return []
    return [
        task.task_id
        for task in operator.downstream_list
        if isinstance(task, kind)
        and getattr(task, "shard", None) == shard
        and does_our_work_alone(task)
        and all(
            isinstance(later, takes_skipped) and later.trigger_rule in _TAKE_SKIPPED
            for later in task.downstream_list
        )
    ]


def check_upstream_ran(operator: Any, context: Context, kind: type[BaseOperator]) -> None:
    """For a task that runs whatever became of those before it: where one that it cannot do without has not succeeded,
    it has nothing to do.

    :param kind: of the tasks it cannot do without.
    :raises AirflowFailException: where one failed, or never ran because of a failure.
    :raises AirflowSkipException: where one was skipped.
    """
    if operator.trigger_rule not in _TAKE_SKIPPED:
        return  # Airflow has looked
    wanted = sorted(task.task_id for task in operator.upstream_list if isinstance(task, kind))
    for task_id, state in _read_states(context["ti"], wanted):
        if state in ("failed", "upstream_failed"):
            raise AirflowFailException(
                f"{task_id} has failed, so there is nothing to report. Clear {task_id} once its error is mended: "
                "what comes after it is cleared with it."
            )
        if state == "skipped":
            raise AirflowSkipException(f"{task_id} was skipped, so there is nothing to report.")


def _read_states(ti: Any, task_ids: Collection[str]) -> Iterator[tuple[str, str | None]]:
    if task_ids:
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=list(task_ids))
        yield from (states.get(ti.run_id) or {}).items()
