"""Nothing to do: what comes after is skipped, but not what tidies up."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import SkipMixin
    from airflow.sdk import Context


def skip_rest(operator: SkipMixin, context: Context, *, but: Collection[str] = (), dry: bool = False) -> None:
    """Skip the tasks downstream, as Airflow's own operators do: a teardown runs whenever its setup did.

    :param but: ids of tasks that are left alone.
    :param dry: nothing was to be done at all; else only this one of many mapped instances had nothing to do, and what
        gathers their results goes on with those of the others.
    :raises AirflowSkipException: in a mapped task, whose instances Airflow lets skip themselves alone.
    """
    in_group = context["task"].get_closest_mapped_task_group() is not None
    if not but and (in_group or (dry and context["ti"].map_index not in (None, -1))):
        raise AirflowSkipException("There is nothing to do for what comes after.")
    tasks: list[Any] = [
        task
        for task in context["task"].get_flat_relatives(upstream=False)
        if not task.is_teardown and task.task_id not in but
    ]
    operator.skip(ti=context["ti"], tasks=tasks)
