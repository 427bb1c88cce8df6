"""No task of a DAG to copy fails in a green run: Airflow judges a run by its last tasks alone, and some of these run
whatever has failed before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, TriggerRule

from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.task.shard_operator import ShardOperator
from fixtures.airflow_versions import DagBag
from fixtures.documents import ROOT

DAGS = sorted(ROOT.glob("dags/*.py"))
NEEDS_ONE = {TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, TriggerRule.ONE_SUCCESS}


def find_red(dag: DAG, failed: str) -> set[str]:
    """The task that fails, and all that it takes with it."""
    red: set[str] = set()
    for task in dag.topological_sort():  # type: ignore[no-untyped-call]
        before = set(task.upstream_task_ids)
        if task.task_id == failed or (before & red and is_taken_along(dag, task, before, red)):
            red.add(task.task_id)
    return red


def is_taken_along(dag: DAG, task: Any, before: set[str], red: set[str]) -> bool:
    if {each.task_id for each in getattr(task, "iter_mapped_dependencies", tuple)()} & red:
        return True  # Airflow makes no task of what it cannot map
    rule = TriggerRule(task.trigger_rule)
    if rule == TriggerRule.ALL_DONE or rule in NEEDS_ONE:
        looks = find_class(task) is OpenAIBatchReportOperator  # into the job directory, whether all is done
        judged = looks and any(is_of_job(dag.get_task(each)) for each in before & red)
        return judged or (rule in NEEDS_ONE and before <= red)
    return True


def is_of_job(task: Any) -> bool:
    return issubclass(find_class(task), OpenAIBatchSplitOperator | ShardOperator)


def find_class(task: Any) -> type[Any]:
    kind = getattr(task, "operator_class", type(task))
    return kind if isinstance(kind, type) else type(task)


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_whatever_task_fails_the_run_is_red(path: Path) -> None:
    for dag in DagBag(str(path)).dags.values():
        last = {task.task_id for task in dag.tasks if not task.downstream_list}
        assert [task for task in dag.task_ids if not find_red(dag, task) & last] == []
