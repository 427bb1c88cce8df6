"""The main job: a JSONL of requests of any size becomes one result row per request."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task_group

from airflow_openai_batch.dag_params import (
    DOC_MD,
    landing_arguments,
    make_params,
    report_arguments,
    sending_arguments,
    split_arguments,
)
from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchResendOperator, OpenAIBatchUploadOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor

with DAG(
    dag_id="openai_batch",
    dag_display_name="OpenAI batch",
    description="Split a JSONL of requests into shards, send each as a batch, account for every request.",
    schedule=None,
    catchup=False,
    tags=["openai", "batch"],
    params=make_params(),
    doc_md=DOC_MD,
    default_args={
        "retry_delay": timedelta(minutes=1),
        # Shards in their order, so that results come early and a failed shard holds up no other.
        "weight_rule": "absolute",
    },
    max_active_tasks=64,
) as dag:
    split = OpenAIBatchSplitOperator(task_id="split", **split_arguments())

    @task_group(group_id="shard")
    def process(shard: dict[str, Any]) -> None:
        # Nothing is passed on but what the steps hand over by themselves.
        sending: dict[str, Any] = {"shard": shard, "do_xcom_push": False, **sending_arguments()}
        landing: dict[str, Any] = {**sending, **landing_arguments()}
        (
            OpenAIBatchUploadOperator(task_id="upload", **sending)
            # Before all else that is ready: OpenAI is at it meanwhile.
            >> OpenAIBatchCreateOperator(task_id="create", priority_weight=2, **sending)
            >> OpenAIBatchSensor(task_id="wait", **sending)
            >> OpenAIBatchDownloadOperator(task_id="download", **landing)
            >> OpenAIBatchResendOperator(task_id="resend_leftovers", **landing)
        )

    publish = OpenAIBatchReportOperator(
        task_id="publish",
        job="{{ ti.xcom_pull(task_ids='split', key='job') or '' }}",
        asset_uri="{{ ti.xcom_pull(task_ids='split', key='asset') or '' }}",
        **report_arguments(),
        # Whatever became of the shards, leftovers that were not there included.
        trigger_rule=OpenAIBatchReportOperator.AFTER_STEPS,
    )

    process.expand(shard=split.output) >> publish
    split >> publish
