"""After each night of reviews: the negative ones as a CSV for the people who answer them."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Asset, Param, get_current_context, task

from airflow_openai_batch.dag_params import find_output_root
from airflow_openai_batch.operators.own_tasks import task_failures
from airflow_openai_batch.recipes.reviews.night_report import write_followup
from airflow_openai_batch.recipes.reviews.nights import find_newest_table, read_event

REVIEWS = Asset("reviews_sentiment")
WORD_COLUMN = "sentiment"
"""Of the nights' tables: the property of their prompt's answers."""

DOC_MD = """
### After each good night: the negative reviews, for people who answer them
Scheduled on the asset `reviews_sentiment`, which the last task of `reviews_sentiment_nightly` updates: the event says
which day it was and where its table lies. Writes `followup/<day>.csv`, which opens in Excel. A night that failed or was
quiet updates nothing, so nothing runs; where several nights ended meanwhile, one run takes them all.

**Try it**: run `reviews_sentiment_nightly`, and this one follows. Triggered by hand it takes the newest day there is.

**Make it your own**: this is where a team's own step goes (a ticket, a chat message, a load into a warehouse). Keep the
asset and the first task; replace `write`.
"""

with DAG(
    dag_id="reviews_sentiment_followup",
    dag_display_name="Reviews: follow up on negative ones",
    description="The negative reviews of each new day as a CSV.",
    schedule=[REVIEWS],
    catchup=False,
    tags=["openai", "batch", "example"],
    params={
        "word": Param(
            default="Negative",
            type="string",
            title="Answer",
            description="Which reviews to follow up on: a word of the prompt of the nights. (word)",
        ),
        "output_uri": Param(
            default=f"{find_output_root()}/reviews_sentiment_nightly",
            type="string",
            title="Directory of the nights",
            description="Of a run that is triggered by hand: where to look for the newest day. (output_uri)",
        ),
    },
    doc_md=DOC_MD,
) as dag:

    @task
    def find_days() -> list[dict[str, str]]:
        context = get_current_context()
        events = context["triggering_asset_events"]
        updates = {event.extra["day"]: event.extra for event in events.get(REVIEWS, ())}
        if updates:  # a night that was cleared and run again is one day all the same
            with task_failures():
                nights = [read_event(extra) for _, extra in sorted(updates.items())]
            return [night.to_xcom() for night in nights]
        with task_failures():
            night = find_newest_table(context["params"]["output_uri"])
        if night is None:
            raise AirflowSkipException("There is no day yet: run reviews_sentiment_nightly first.")
        return [night.to_xcom()]

    @task(map_index_template="{{ task.op_kwargs['night']['day'] }}")
    def write(night: Any) -> dict[str, Any]:
        return write_followup(night, WORD_COLUMN, get_current_context()["params"]["word"])

    write.expand(night=find_days())
