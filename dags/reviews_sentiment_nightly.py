"""Every night: the day's reviews become a table with a sentiment beside each, and a report with the trend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Asset, Param, TriggerRule, get_current_context, task

from airflow_openai_batch.alerts import AlertOnFailure
from airflow_openai_batch.dag_params import (
    find_output_root,
    make_form,
    prepare_arguments,
    sample_path,
)
from airflow_openai_batch.operators.own_tasks import check_joined
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.recipes.reviews.night_report import report_night
from airflow_openai_batch.recipes.reviews.night_start import begin_night
from airflow_openai_batch.task_group import openai_batch_task_group

try:
    from airflow.sdk import CronDataIntervalTimetable
except ImportError:  # Airflow 3.1
    from airflow.timetables.interval import CronDataIntervalTimetable  # type: ignore[assignment]

DAG_ID = "reviews_sentiment_nightly"
TIMEZONE = "Europe/Berlin"
REVIEWS = Asset("reviews_sentiment")
PROMPT = "sentiment.yaml"
WORD = "sentiment"
"""The property of the prompt's answers that is counted."""
SQL, SQL_CONN_ID = "", ""
"""In place of files: a query for the rows of a day, with ``{day}`` and ``{next_day}`` in it, and its connection."""

DOC_MD = """
### Reviews of the day -> Positive, Negative or Neutral, every night at half price
| once a night |
| --- |
| find_night → prepare → ask (split → shard → publish) → join → report → announce |

* **find_night** decides which day the run is about: the one on which its data interval begins (from 4 a.m. to 4 a.m.,
  Berlin), or, in a run without an interval, that of `run_after`. **A quiet night**, without a file or without a row, is
  skipped. A run that you start by hand takes the newest day that has a file.
* **prepare** makes a request of every row; equal texts are asked about once, rows without a text are rejected.
* **ask** is the whole batch flow, **join** puts the answers beside the rows, and **report** writes
  `table/day=.../reviews.parquet` and `days/.../report.md` with the trend of cost and failures over the nights before.
  The first three answers stand in its log. Both are there whatever failed: a review without an answer says why in
  `answer_status` and `answer_error`, and the night is red where more than `max_failed_fraction` have none.
* **announce** updates the asset `reviews_sentiment`, after a good night alone.

**Try it**: trigger it with the form as it is. It takes the sample reviews of 2025-06-04; with `day` = 2025-06-02 and
2025-06-03 there is a trend to look at. Then see the DAG `reviews_sentiment_followup`, which ran after each of them.

**Clear any red task**: the night goes on from where it is, and nothing is paid for twice. Each day has a directory of
its own, so a night that is run again finds its answers there. **A file that has grown or was corrected**: run its *day*
again, and only rows are asked whose text is new; the table is that of the file as it is now. `on_existing=restart` asks
(and pays for) the whole day again, for instance with another prompt.

**Who is told**: one message for a night that has failed, whichever and however many of its shards did. It is in the log
of the DAG processor until you give `AlertOnFailure` a notifier of yours (Slack, mail, pager).

**Make it your own**
1. `reviews`: where your files lie, with `{day}` where the date stands (a glob is fine, and so is `s3://conn@bucket/...`).
   For rows of a database `SQL`, for instance `SELECT id, text FROM reviews WHERE stored_at >= '{day}' AND stored_at <
   '{next_day}'`, and `SQL_CONN_ID`. Take the time at which a row was stored, not that of the review: a row that comes
   late then belongs to the night after it came. Otherwise nobody asks about it until its *day* is run again.
2. `include/prompts/sentiment.yaml`: the words it may answer with (`enum`), and the column it reads (`text`). A file of
   that name beside this one takes its place. Another property than `sentiment` is named in `WORD`.
3. `TIMEZONE` and the timetable below. `catchup=True` would run all nights since `start_date`, one after another, and so
   does a backfill; `max_active_runs=1` keeps them in order.
4. `AlertOnFailure(SlackNotifier(text="{{ alert.text }}"))`.
5. `max_rejected_fraction`, `max_failed_fraction` and `max_cost_usd`: when a night is red, and what it may cost.
"""

OWN = {
    "reviews": Param(
        default=sample_path("reviews/{day}.csv"),
        type="string",
        title="Reviews",
        description="URI or path of a day's table, with {day} where 2025-06-02 stands.",
    ),
    "day": Param(
        default=None,
        type=["null", "string"],
        format="date",
        title="Day",
        description="Exactly this day. Empty: the day of the run's interval; by hand, the newest that has a file.",
    ),
    "output_uri": Param(
        default=f"{find_output_root()}/{DAG_ID}",
        type="string",
        title="Output",
        description="Directory of all nights: days/, table/, followup/.",
    ),
    "model": Param(
        default=None,
        type=["null", "string"],
        title="Model",
        description="Empty: the one that the prompt names.",
    ),
    "show_answers": Param(
        default=3,
        type="integer",
        minimum=0,
        title="Show answers",
        description="So many of the first answers stand in the log of the report, readable for all who may read "
        "logs.",
        section="Report",
    ),
    "trend_days": Param(
        default=14,
        type="integer",
        minimum=0,
        maximum=366,
        title="Days of the trend",
        description="How many days to look back.",
        section="Report",
    ),
    "max_rejected_fraction": Param(
        default=0.2,
        type="number",
        minimum=0,
        maximum=1,
        title="Rejected rows allowed",
        description="The night is red, before anything is sent, when more than this fraction of the rows cannot be "
        "asked about, those that came late with the others of their day.",
        section="Report",
    ),
}

with DAG(
    dag_id=DAG_ID,
    dag_display_name="Reviews: sentiment, nightly",
    description="A day's reviews from CSV to a table with sentiments, with a report and its trend.",
    # The interval of a night is the day before it; at 4 a.m. the clock is never put forward or back.
    schedule=CronDataIntervalTimetable("0 4 * * *", timezone=TIMEZONE),
    start_date=pendulum.datetime(2025, 6, 1, tz=TIMEZONE),
    catchup=False,
    max_active_runs=1,
    # Once per run, not once per shard.
    on_failure_callback=AlertOnFailure(),
    # No `deadline=alert_when_overdue(30, job_task="ask.split")`: with it, Airflow 3.3.2 cannot clear a task of a night
    # that is not overdue yet.
    is_paused_upon_creation=True,  # nobody wants nightly runs of a sample; the trigger form unpauses it
    tags=["openai", "batch", "example"],
    params=make_form(OWN, on_empty="skip"),
    doc_md=DOC_MD,
    default_args={"retry_delay": timedelta(minutes=1)},
) as dag:

    @task(task_id="find_night")
    def find(sql: str, sql_conn_id: str) -> dict[str, str]:
        night = begin_night(
            get_current_context(),
            prompt=PROMPT,
            word=WORD,
            timezone=TIMEZONE,
            sql=sql,
            sql_conn_id=sql_conn_id,
        )
        if night is None:
            raise AirflowSkipException("A quiet night: there is no file for it.")
        return night

    @task(trigger_rule=TriggerRule.NONE_FAILED)  # also where no late row can be asked about
    def report(night: Any) -> dict[str, Any]:
        params = get_current_context()["params"]
        return report_night(
            night,
            WORD,
            show_answers=params["show_answers"],
            trend_days=params["trend_days"],
            max_failed_fraction=params["max_failed_fraction"],
        )

    @task(outlets=[REVIEWS], trigger_rule=TriggerRule.NONE_FAILED)
    def announce(found: Any) -> None:
        context = get_current_context()
        if not found or context["params"]["sample_requests"]:
            raise AirflowSkipException("Nobody is told of a sample.")
        check_joined("join")
        context["outlet_events"][REVIEWS].extra = found

    night: Any = find(SQL, SQL_CONN_ID)

    prepare = OpenAIBatchPrepareOperator(
        task_id="prepare",
        source=night["source"],
        prompt=PROMPT,
        prompt_overrides={"model": "{{ params.model }}"},
        output_uri=night["prepared"],
        dedupe=True,
        on_changed_source="keep",
        max_rejected_fraction=night["max_rejected_fraction"],  # of the day, also where a few rows came late
        on_none_left=night["on_none_left"],
        **prepare_arguments(),
    )

    ask = openai_batch_task_group(
        "ask",
        input_uri=prepare.output,
        output_uri=night["job"],
        asset_uri=night["root"],
        from_params=True,
    )

    join = ask.join_rows(
        prepare,
        night["answers"],
        max_rejected_fraction=1,  # `prepare` judges
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,  # the day's table is there whatever failed
    )

    reported = report(night)
    prepare >> ask >> join >> reported
    [ask.report, reported] >> announce(reported)
