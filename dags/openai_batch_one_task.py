"""The main job with one deferrable task per shard: fewer worker starts, fewer boxes in the grid."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule

from airflow_openai_batch.dag_params import (
    DOC_MD_ONE_TASK,
    landing_arguments,
    make_params,
    report_arguments,
    sending_arguments,
    split_arguments,
)
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator

with DAG(
    dag_id="openai_batch_one_task",
    dag_display_name="OpenAI batch (one task per shard)",
    description="As openai_batch, with one deferrable task per shard.",
    schedule=None,
    catchup=False,
    tags=["openai", "batch"],
    params=make_params(),
    doc_md=DOC_MD_ONE_TASK,
    default_args={"retry_delay": timedelta(minutes=1)},
    max_active_tasks=64,
) as dag:
    split = OpenAIBatchSplitOperator(task_id="split", **split_arguments())

    shard = OpenAIBatchShardOperator.partial(
        task_id="shard", **sending_arguments(), **landing_arguments()
    ).expand(shard=split.output)

    publish = OpenAIBatchReportOperator(
        task_id="publish",
        job="{{ ti.xcom_pull(task_ids='split', key='job') or '' }}",
        asset_uri="{{ ti.xcom_pull(task_ids='split', key='asset') or '' }}",
        **report_arguments(),
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
    )

    shard >> publish
    split >> publish
