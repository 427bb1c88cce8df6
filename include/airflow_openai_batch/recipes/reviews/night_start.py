"""How a night begins: its day, its prompt, and what of the day is still to be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.access.givers import Giver, find_giver_of
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.dag_prompt import Prompt, read_dag_prompt
from airflow_openai_batch.recipes.reviews.day_query import read_day
from airflow_openai_batch.recipes.reviews.day_rounds import open_round
from airflow_openai_batch.recipes.reviews.day_words import read_words
from airflow_openai_batch.recipes.reviews.nights import check_root, find_day, find_night

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.recipes.reviews.nights import Night
    from airflow_openai_batch.tables.prompts import PromptSpec


def begin_night(
    context: Context,
    *,
    prompt: Prompt,
    word: str,
    timezone: str,
    sql: str = "",
    sql_conn_id: str = "",
) -> dict[str, str] | None:
    """What the tasks of a night hand to each other; None for a quiet one, without a file.

    It reads the form: ``reviews``, ``output_uri``, ``day``, ``model``, ``on_existing``, ``repair``,
    ``max_rejected_fraction``.

    :param prompt: that of the DAG's preparation.
    :param word: the property of its answers that is going to be counted.
    :param timezone: in which a day begins.
    :param sql: in place of the files ``reviews``, see `read_day`; an argument of the task that calls this, so that it
        is the author's.
    :param sql_conn_id: the connection that it is for.
    """
    with task_failures():
        spec = read_dag_prompt(context, prompt, {"model": context["params"]["model"]})
        read_words(spec.response_schema, word)
        if sql:
            return _begin(context, spec, _ask_for_night(context, timezone, sql, sql_conn_id), Giver.CODE)
        night = _find_night(context, timezone)
        giver = find_giver_of(context["params"]["reviews"], "reviews")
        return None if night is None else _begin(context, spec, night, giver)


def _find_night(context: Context, timezone: str) -> Night | None:
    params, run = context["params"], context["dag_run"]
    return find_night(
        params["reviews"],
        params["output_uri"],
        run_type=run.run_type,
        run_after=run.run_after,
        interval_start=run.data_interval_start,
        timezone=timezone,
        day=params["day"],
    )


def _ask_for_night(context: Context, timezone: str, sql: str, conn_id: str) -> Night:
    params, run = context["params"], context["dag_run"]
    day = find_day(
        run_after=run.run_after,
        interval_start=run.data_interval_start,
        timezone=timezone,
        day=params["day"],
    )
    night = read_day(day, check_root(params["output_uri"]), sql, conn_id)
    night.check_bounds()
    return night


def _begin(context: Context, spec: PromptSpec, night: Night, giver: Giver) -> dict[str, str]:
    params = context["params"]
    asked = open_round(
        night,
        spec,
        giver,
        restart=params["on_existing"] == "restart",
        repair=params["repair"],
    )
    return night.to_xcom() | asked.to_xcom(float(params.get("max_rejected_fraction", 1.0)))
