"""Parameters of a run: those that nobody reads, of which Airflow says nothing, and those that fill an argument."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import Context

_MOST_NAMED = 5


def describe_unknown_keys(context: Context) -> str:
    """A sentence on the keys of the run's conf that are no parameters of the DAG; empty where all are, or where the
    DAG has none. Values are not shown."""
    dag_run, dag = context.get("dag_run"), context.get("dag")
    given = getattr(dag_run, "conf", None) or {}
    if given and not conf.getboolean("core", "dag_run_conf_overrides_params", fallback=True):
        named = ", ".join(repr(str(key)[:60]) for key in list(given)[:_MOST_NAMED])
        return (
            f"Ignored, since [core] dag_run_conf_overrides_params is false: all that the run was given ({named}"
            f"{', ...' if len(given) > _MOST_NAMED else ''}). The DAG's own defaults stand."
        )
    known = list(
        getattr(dag, "params", None) or ()
    )  # those of the context have the run's own keys among them
    unknown = [str(key) for key in given if key not in known]
    if not known or not unknown:
        return ""
    named = ", ".join(_describe(key, known) for key in unknown[:_MOST_NAMED])
    more = f" and {len(unknown) - _MOST_NAMED:,} more" if len(unknown) > _MOST_NAMED else ""
    return f"Ignored, since the DAG has no such parameter: {named}{more}."


def name_parameter(context: Context, field: str) -> str:
    """What whoever triggers knows an argument of the operator by: the one parameter that its template is of, or else
    the argument's own name."""
    dag, ti = context.get("dag"), context.get("ti")
    task = (
        dag.get_task(ti.task_id) if dag is not None and ti is not None and dag.has_task(ti.task_id) else None
    )
    raw = getattr(task, field, None)  # the task that runs has been rendered, the DAG's has not
    names = set(re.findall(r"\bparams\.(\w+)", raw)) if isinstance(raw, str) else set()
    return names.pop() if len(names) == 1 else field


def _describe(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"{key[:60]!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
