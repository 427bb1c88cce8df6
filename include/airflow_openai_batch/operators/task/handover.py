"""What one task of a shard hands over to the next, so that it can begin in the triggerer; see `triggers.handover`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS
from airflow.sdk import TriggerRule

from airflow_openai_batch.job.shard_state import Goal, is_reached
from airflow_openai_batch.operators.links import OpenAIBatchLink, describe_link
from airflow_openai_batch.triggers.handover_note import GIVEN, KEY, TRIGGER, describe_given

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

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
_PARAMETER = r"params\.\w+"
_KNOWN_IN_TRIGGERER = re.compile(rf"[^{{]*|\{{\{{\s*{_PARAMETER}(\s+or\s+({_PARAMETER}|''|\"\"))*\s*\}}\}}")
"""A text as it is, or the run's parameters. All else may come to something else there, where a template finds nothing
of what the DAG's author has defined, or to nothing: some questions (an XCom without ``map_indexes``) Airflow 3.3 never
answers a trigger, which then waits for ever."""


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


class _AskedLate:
    """Of a task, once the DAG is whole: only then it is known what comes before, and what an author has set since. Of
    the class, which Airflow asks for one that is mapped: what such a one is told."""

    def __init__(self, find: Callable[[Any], Any], of_class: Any) -> None:
        self._find = find
        self._of_class = of_class

    def __get__(self, operator: Any, _: type) -> Any:
        return self._of_class if operator is None else self._find(operator)

    def __set__(self, operator: Any, value: Any) -> None:
        """What is around the task decides."""


def find_start(operator: Any) -> StartTriggerArgs | None:
    """What a task begins with in the triggerer; ``None`` where it begins in a worker.

    There, where Airflow can (from 3.3 on, not mapped on its own), exactly one task hands something over for the same
    shard, and nothing before or after the wait needs a worker. ``airflow dags test`` begins it in a worker whatever is
    said here.
    """
    is_made = AIRFLOW_V_3_3_PLUS and hasattr(operator, "deferrable")  # Airflow asks while it is made as well
    if not (is_made and operator.has_dag() and operator.deferrable and operator.shard is not None):
        return None
    before = _find_giver_of_shard(operator)
    given = {name: getattr(operator, name) for name in GIVEN}
    is_known = before is not None and all(map(_is_known_in_triggerer, given.values()))
    if not is_known or _is_bound_by_airflow(operator) or not may_end_in_triggerer(operator):
        return None
    if operator.goal is Goal.CREATED and not is_created_before(operator, before):
        return None
    from airflow.triggers.base import StartTriggerArgs

    timeout = getattr(operator, "timeout", None)
    arguments = {
        **given,
        "before": before.task_id,
        "goal": operator.goal.name,
        "timeout": None if timeout is None else float(timeout),
        "cancel_on_kill": operator.cancel_on_kill,
        "pushes": operator.do_xcom_push,
        "link_key": OpenAIBatchLink().xcom_key,
    }
    return StartTriggerArgs(trigger_cls=TRIGGER, trigger_kwargs=arguments, next_method="resume")


class MayBeginInTriggerer:
    """Of operators, before their other bases."""

    start_trigger_args = _AskedLate(find_start, None)
    start_from_trigger = _AskedLate(lambda operator: find_start(operator) is not None, False)


def _find_giver_of_shard(operator: Any) -> Any:
    """The task right before it that hands over what it knows of this shard; ``None`` where that is not sure."""
    before = [task for task in operator.upstream_list if getattr(task, "hands_over", False)]
    if len(before) != 1 or getattr(before[0], "shard", None) is None:  # mapped on its own
        return None
    return before[0] if operator.shard in (before[0].shard, before[0].output) else None


def _is_known_in_triggerer(value: Any) -> bool:
    if isinstance(value, str):
        return _KNOWN_IN_TRIGGERER.fullmatch(value) is not None
    return value is None or isinstance(value, int | float)


def _is_bound_by_airflow(operator: Any) -> bool:
    """Airflow counts an ``execution_timeout`` for what begins in the triggerer, as it does for nothing else that is
    deferred, and forgets the task's queue, so that where triggerers have queues no one may take it."""
    waits = operator.goal is Goal.ENDED and operator.execution_timeout is not None
    return waits or conf.getboolean("triggerer", "queues_enabled", fallback=False)


def is_created_before(operator: Any, upload: Any) -> bool:
    """Whether the task before it, which uploads, creates the batch as well, so that there is nothing left for a worker.

    As long as nobody can see a difference: nothing comes between the two, both have the same parameters, and what an
    author has hung onto either, or said of which and how many may run, holds for this one alone.
    """
    if upload.goal is not Goal.UPLOADED:
        return False
    alike = (*upload.template_fields, *_SEEN_BY_AUTHORS)
    return bool(
        operator.upstream_task_ids - {upload.task_id} <= upload.upstream_task_ids
        and not (operator.depends_on_past or operator.wait_for_downstream)
        and operator.trigger_rule == upload.trigger_rule == TriggerRule.ALL_SUCCESS
        and operator.max_active_tis_per_dag is None
        and operator.max_active_tis_per_dagrun is None
        and does_our_work_alone(upload)
        and all(getattr(operator, name, None) == getattr(upload, name, None) for name in alike)
        and not any(_differs_by_task(getattr(upload, name)) for name in upload.template_fields)
        and operator.params_as_written == upload.params_as_written
    )


def _differs_by_task(value: Any) -> bool:
    return isinstance(value, str) and _OF_THE_TASK.search(value) is not None


def describe_params(operator: Any) -> dict[str, tuple[Any, Any, Any]]:
    """What an author has said of the parameters, for an operator that is made: while it runs, they hold the values of
    the run."""
    params = {name: operator.params.get_param(name) for name in operator.params}
    return {name: (param.value, param.description, param.schema) for name, param in params.items()}


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
    at_its_end = operator.outlets or operator.on_success_callback or operator._post_execute_hook
    hooked = operator.on_execute_callback or operator._pre_execute_hook or at_its_end
    return bool(is_ours and not hooked and not operator.multiple_outputs)


def _has_listeners() -> bool:
    """Whether some plugin, OpenLineage for instance, wants to hear of tasks that have ended well."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # Airflow 3.1
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]
    return bool(get_listener_manager().has_listeners)
