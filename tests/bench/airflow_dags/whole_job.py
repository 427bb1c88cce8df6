"""The same shards in one task, by `OpenAIBatchJobOperator`."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_openai_batch.dag_params import make_params
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator

with DAG(dag_id="whole_job", schedule=None, params=make_params()) as dag:
    OpenAIBatchJobOperator(
        task_id="job",
        input_uri="{{ params.input_uri }}",
        output_uri="{{ params.output_uri }}",
        max_requests_per_shard="{{ params.max_requests_per_shard }}",
        poll_interval="{{ params.poll_interval }}",
        send_mode="batch",
    )
