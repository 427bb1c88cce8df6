"""How a night begins: its day, its prompt, and what of the day is still to be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.dag_prompt import Prompt, read_dag_prompt
from airflow_openai_batch.recipes.reviews.day_rounds import open_round
from airflow_openai_batch.recipes.reviews.day_words import read_words
from airflow_openai_batch.recipes.reviews.nights import find_night

if TYPE_CHECKING:
    from airflow.sdk import Context


def begin_night(context: Context, *, prompt: Prompt, word: str, timezone: str) -> dict[str, str] | None:
    """What the tasks of a night hand to each other; None for a quiet one, without a file.

    It reads the form: ``reviews``, ``output_uri``, ``day``, ``model``, ``on_existing``, ``repair``.

    :param prompt: that of the DAG's preparation.
    :param word: the property of its answers that is going to be counted.
    :param timezone: in which a day begins.
    """
    with task_failures():
        return _begin(context, prompt, word, timezone)


def _begin(context: Context, prompt: Prompt, word: str, timezone: str) -> dict[str, str] | None:
    params, run = context["params"], context["dag_run"]
    spec = read_dag_prompt(context, prompt, {"model": params["model"]})
    read_words(spec.response_schema, word)
    night = find_night(
        params["reviews"],
        params["output_uri"],
        run_type=run.run_type,
        run_after=run.run_after,
        interval_start=run.data_interval_start,
        timezone=timezone,
        day=params["day"],
    )
    if night is None:
        return None
    asked = open_round(
        night,
        spec,
        find_giver_of(params["reviews"], "reviews"),
        restart=params["on_existing"] == "restart",
        repair=params["repair"],
    )
    return night.to_xcom() | asked.to_xcom()
