"""What Airflow's provider list and configuration reference show of this package."""

from __future__ import annotations

from typing import Any

from airflow_openai_batch import __version__

_OPTIONS = {
    "allowed_input_roots": "Comma-separated URIs; inputs must lie below one of them, also those that DAG code names. "
    "Unset: DAG code may name any; a form what lies below input_root, output_root or the samples.",
    "allowed_output_roots": "Comma-separated URIs; job directories must lie below one of them, also those that DAG "
    "code names. Unset: DAG code may name any; a form what lies below output_root.",
    "allowed_conn_ids": "Comma-separated connection ids that the operators may use. Unset: any in DAG code; in a form "
    "those that the DAG's code names, such as the default of conn_id.",
    "webhook_conn_ids": "Comma-separated ids of the connections whose webhooks are taken. Unset: openai_default.",
    "shared_disk": "true where all workers mount the disk that paths and file:// lead to. Unset: a run that keeps its "
    "files on a worker's disk is warned, where the executor may use several machines.",
    "allowed_sql_conn_ids": "Comma-separated ids of database connections that a query typed into a form may be for. "
    "Unset: none; queries in DAG code are free.",
    "renamed_dags": "new_name=old_name, with commas between: DAGs that go on with the jobs of what they were called. "
    "Unset: a job is acted on by the DAG that planned it.",
    "input_root": "Comma-separated URIs below which whoever triggers a DAG may name inputs, where allowed_input_roots "
    "is unset. Unlike that list it does not bind DAG code. Unset: none but output_root and the samples.",
    "output_root": "Where the DAGs' default job directories lie. Unset: $AIRFLOW_HOME/openai_batch.",
    "books_root": "Where it is written what connections with a monthly budget have spent; all workers must share it. "
    "Unset: output_root.",
    "max_result_bytes": "More than these are taken of no result file and no video, whatever a server sends. Unset: "
    "68719476736 (64 GiB).",
    "min_deferral": "Seconds for which a task that was deferred is left alone, so that the process that deferred it is "
    "gone when the task comes back to a worker. Unset: two of [workers] min_heartbeat_interval, at least 10.",
    "land_in_triggerer": "Whether answers of small shards (4 MB) become rows in the triggerer, which then needs access "
    "to the job directory and 100 MB more. Unset: true.",
    "landings_per_machine": "How many shards' answers become rows at once on one machine, each taking a core and up "
    "to 240 MB beside its task. Unset: one for each core and GB of memory.",
}


def get_provider_info() -> dict[str, Any]:
    """The description that the entry point ``apache_airflow_provider`` hands to Airflow."""
    return {
        "package-name": "airflow-provider-openai-batch",
        "name": "OpenAI Batch",
        "description": "Any number of requests through OpenAI's Batch API, one accounted-for result for each.",
        "versions": [__version__],
        "extra-links": ["airflow_openai_batch.operators.links.OpenAIBatchLink"],
        "task-decorators": [
            {
                "name": "openai_batch",
                "class-name": "airflow_openai_batch.decorators.openai_batch.openai_batch_task",
            }
        ],
        "config": {
            "openai_batch": {
                "description": "Who may send what where with the operators for OpenAI's Batch API.",
                "options": {
                    name: {
                        "description": text,
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": None,
                    }
                    for name, text in _OPTIONS.items()
                },
            }
        },
    }
