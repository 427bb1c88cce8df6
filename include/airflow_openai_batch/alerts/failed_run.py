"""What a callback can learn of its run: which tasks failed, what they said, which jobs they made.

Airflow answers the DAG processor and the triggerer, which call them, less than it answers a task.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import XCom

from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.task.failures import ERROR

log = logging.getLogger(__name__)

MOST_NAMED = 5
MOST_ERRORS = 3
MOST_ASKED = 5
"""Instances of one task."""
Failed = tuple[str, int | None]
"""A task instance: id and map index, None where it is not mapped."""


def is_one_of(task: Any, kinds: tuple[type, ...]) -> bool:
    kind = getattr(task, "operator_class", None) or type(task)  # of a mapped one
    return isinstance(kind, type) and issubclass(kind, kinds)


def find_jobs(dag_id: str, run_id: str, task_ids: Iterable[str]) -> Iterator[str]:
    """The job directories that tasks of the run have pushed, each once."""
    found = set()
    for task_id in task_ids:
        try:
            for uri in _read_jobs(dag_id, run_id, task_id):
                if uri not in found:
                    found.add(uri)
                    yield uri
        except Exception as error:
            log.warning(
                "No look at the job of %s: Airflow does not tell (%s).", task_id, type(error).__name__
            )


def _read_jobs(dag_id: str, run_id: str, task_id: str) -> Iterator[str]:
    """Of one task, one after the other where it is mapped: a triggerer cannot ask for all at once."""
    names = {"key": "job", "dag_id": dag_id, "task_id": task_id, "run_id": run_id}
    if isinstance(uri := XCom.get_one(**names), str):
        yield uri
        return
    # Not `get_ti_count`, whose answer the DAG processor of 3.3.2 does not understand.
    for map_index in range(len(_read_states(dag_id, run_id, task_id))):
        if isinstance(uri := XCom.get_one(**names, map_index=map_index), str):
            yield uri


def _read_states(dag_id: str, run_id: str, *task_ids: str) -> Mapping[str, str | None]:
    """By task id, ``_`` and map index where it is mapped."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    wanted = list(task_ids) or None
    states = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id], task_ids=wanted)
    return states.get(run_id) or {}


def find_failed(dag_id: str, run_id: str, tasks: Mapping[str, Any]) -> list[Failed]:
    """Task ids and map indices, reports last, which only sum up; empty where Airflow does not tell."""
    try:
        states = _read_states(dag_id, run_id)
    except Exception:
        return []
    found = list[Failed]()
    for name, state in states.items():
        if state != "failed":
            continue
        task_id, _, number = name.rpartition("_")  # "ask.shard_3", where it is mapped
        is_mapped = name not in tasks and number.isdecimal()
        found.append((task_id, int(number)) if is_mapped else (name, None))
    sums_up = {name: is_one_of(task, (OpenAIBatchReportOperator,)) for name, task in tasks.items()}
    return sorted(found, key=lambda each: (sums_up.get(each[0], False), each[0], each[1] or 0))


def name_failed(failed: list[Failed]) -> str:
    more = f" and {len(failed) - MOST_NAMED:,} more" if len(failed) > MOST_NAMED else ""
    names = ", ".join(_name(each) for each in failed[:MOST_NAMED])
    return f"Failed tasks: {names}{more}." if failed else ""


def _name(task: Failed) -> str:
    return task[0] if task[1] is None else f"{task[0]} [{task[1]}]"


def read_errors(dag_id: str, run_id: str, failed: list[Failed]) -> Iterator[str]:
    """What the first of them said; what others of the same task said is like it as a rule.

    Killed tasks said nothing. Of a few instances each is asked for, since a callback has seconds, not one per shard.
    """
    told, asked = set[str](), Counter[str]()
    for task_id, map_index in failed:
        if task_id in told or asked[task_id] == MOST_ASKED:
            continue
        asked[task_id] += 1
        try:
            said = XCom.get_one(key=ERROR, dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)
        except Exception as error:
            log.warning("No look at why %s failed: %s", task_id, type(error).__name__)
            return
        if isinstance(said, str):
            told.add(task_id)
            yield f"{_name((task_id, map_index))}: {said}"
        if len(told) == MOST_ERRORS:
            return
