"""Nothing to do: what comes after is skipped, but not what tidies up."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import SkipMixin
    from airflow.sdk import Context


def skip_rest(operator: SkipMixin, context: Context, *, but: Collection[str] = ()) -> None:
    """Skip the tasks downstream, as Airflow's own operators do: a teardown runs whenever its setup did.

    :param but: ids of tasks that are left alone.
    """
    tasks: list[Any] = [
        task
        for task in context["task"].get_flat_relatives(upstream=False)
        if not task.is_teardown and task.task_id not in but
    ]
    operator.skip(ti=context["ti"], tasks=tasks)
