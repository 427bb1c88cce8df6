"""What one task of a shard hands over to the next, so that it can begin in the triggerer; see `triggers.handover`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from airflow.sdk import TriggerRule

from airflow_openai_batch.job.shard_state import Goal, is_reached
from airflow_openai_batch.operators.links import OpenAIBatchLink, describe_link
from airflow_openai_batch.triggers.handover_note import GIVEN, KEY, TRIGGER, describe_given

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger

_SEEN_BY_AUTHORS = (
    "pool", "pool_slots", "queue", "executor", "executor_config", "run_as_user", "depends_on_past",
    "wait_for_downstream", "execution_timeout", "retries", "retry_delay", "max_retry_delay", "retry_policy",
    "on_failure_callback", "on_retry_callback", "email", "email_on_failure", "email_on_retry",
)  # fmt: skip
"""What an author may have said of one of two tasks, and would miss where the other does its work."""
_OF_THE_TASK = re.compile(r"\{.*\b(task|task_id|task_instance_key_str)\b", re.DOTALL)
"""A template that may come to something else in the next task."""
_HANDED = (Goal.CREATED, Goal.ENDED, Goal.DONE)
"""Goals of the tasks that may begin in the triggerer."""


def hand_over(
    operator: Any,
    context: Context,
    *,
    state: ShardState,
    result: Mapping[str, Any],
    wait: OpenAIBatchEndTrigger | None,
) -> None:
    """Leave it as an XCom.

    :param result: what the next task returns.
    :param wait: what waits for the batch, where there is one to wait for.
    """
    note = {
        "given": describe_given(operator),
        "reached": [goal.name for goal in _HANDED if is_reached(state, goal)],
        "result": dict(result),
        "wait": None if wait is None else wait.serialize()[1],
        "link": describe_link(state.last_batch_id),
    }
    context["ti"].xcom_push(KEY, note)


def begin_in_triggerer(operator: Any, *, timeout: float | None = None) -> None:
    """Have a task begin there, where Airflow can (from 3.3 on, not mapped on its own) and nothing before or after the
    wait needs a worker. ``airflow dags test`` begins it in a worker whatever is said here.

    :param timeout: seconds since the batch's creation for which a sensor waits.
    """
    from airflow.triggers.base import StartTriggerArgs

    given = {name: getattr(operator, name) for name in GIVEN}
    plain = all(value is None or isinstance(value, str | int | float) for value in given.values())
    if not (AIRFLOW_V_3_3_PLUS and operator.deferrable and operator.shard is not None and plain):
        return
    if not may_end_in_triggerer(operator):
        return
    arguments = {
        **given,
        "goal": operator.goal.name,
        "timeout": timeout,
        "cancel_on_kill": operator.cancel_on_kill,
        "pushes": operator.do_xcom_push,
        "link_key": OpenAIBatchLink().xcom_key,
    }
    operator.start_trigger_args = StartTriggerArgs(
        trigger_cls=TRIGGER, trigger_kwargs=arguments, next_method="resume"
    )
    operator.start_from_trigger = True


def is_created_before(operator: Any) -> bool:
    """Whether the task before it, which uploads, creates the batch as well, so that there is nothing left for a worker.

    As long as nobody can see a difference: nothing comes between the two, both have the same parameters, and what an
    author has hung onto either, or said of how many may run, holds for this one alone.
    """
    if operator.start_trigger_args is None or not operator.has_dag():
        return False
    before = [task for task in operator.upstream_list if getattr(task, "goal", None) is Goal.UPLOADED]
    if len(before) != 1:
        return False
    upload = before[0]
    alike = (*upload.template_fields, *_SEEN_BY_AUTHORS)
    return bool(
        operator.upstream_task_ids - {upload.task_id} <= upload.upstream_task_ids
        and operator.trigger_rule == upload.trigger_rule == TriggerRule.ALL_SUCCESS
        and operator.max_active_tis_per_dag is None
        and operator.max_active_tis_per_dagrun is None
        and does_our_work_alone(upload)
        and all(getattr(operator, name, None) == getattr(upload, name, None) for name in alike)
        and not any(_differs_by_task(getattr(upload, name)) for name in upload.template_fields)
        and _describe_params(operator) == _describe_params(upload)
    )


def _differs_by_task(value: Any) -> bool:
    return isinstance(value, str) and _OF_THE_TASK.search(value) is not None


def _describe_params(operator: Any) -> dict[str, tuple[Any, Any]]:
    """What an author has said of the parameters; while a task runs, its own hold the values of the run."""
    params = {name: operator.params.get_param(name) for name in operator.params}
    return {name: (param.description, param.schema) for name, param in params.items()}


def creates_for_next(operator: Any) -> bool:
    """Whether a task that uploads is to create the batch as well; see `is_created_before`."""
    written = find_as_written(operator)
    later = () if written is None else written.downstream_list
    return any(getattr(each, "goal", None) is Goal.CREATED and each.start_from_trigger for each in later)


def find_as_written(operator: Any) -> Any:
    """A task that runs as its author wrote it, since its own parameters are rendered; ``None`` outside of a DAG."""
    dag = operator.get_dag()
    return None if dag is None else dag.get_task(operator.task_id)


def may_end_in_triggerer(operator: Any) -> bool:
    """Whether nothing is lost by it that only a worker does: Airflow forgets it where a task ends in the triggerer."""
    return does_our_work_alone(operator) and not _has_listeners()


def does_our_work_alone(operator: Any) -> bool:
    """Whether there is nothing that only a worker does, at its begin or its end: what a DAG's author has hung onto the
    task, or what a class of somebody's own may do besides."""
    is_ours = type(operator).__module__.startswith(f"{__package__.partition('.')[0]}.")
    hooked = operator.on_execute_callback or operator._pre_execute_hook or _has_hooks_at_its_end(operator)
    return bool(is_ours and not hooked)


def _has_hooks_at_its_end(operator: Any) -> bool:
    return bool(operator.outlets or operator.on_success_callback or operator._post_execute_hook)


def _has_listeners() -> bool:
    """Whether some plugin, OpenLineage for instance, wants to hear of tasks that have ended well."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # Airflow 3.1
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]
    return bool(get_listener_manager().has_listeners)
