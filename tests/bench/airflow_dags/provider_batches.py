"""The peer: the same shards by the operators of apache-airflow-providers-openai, as its guide composes them.

Files are split beforehand, since the provider does not split; nothing is accounted for.
"""

from __future__ import annotations

from pathlib import Path

from airflow.providers.openai.hooks.openai import OpenAIHook
from airflow.providers.openai.operators.openai import OpenAITriggerBatchOperator
from airflow.sdk import DAG, Param, get_current_context, task, task_group

with DAG(
    dag_id="provider_batches", schedule=None, params={"folder": Param("", type="string")}, max_active_tasks=64
) as dag:

    @task
    def find_files() -> list[str]:
        """The shards, split by someone else."""
        return sorted(str(path) for path in Path(get_current_context()["params"]["folder"]).glob("*.jsonl"))

    @task_group(group_id="shard")
    def process(path: str) -> None:
        @task
        def upload(path: str) -> str:
            """The provider's hook reads the whole file."""
            return OpenAIHook().upload_file(path, purpose="batch").id

        @task
        def download(path: str, batch_id: str) -> str:
            """The answers, as they are."""
            client = OpenAIHook().get_conn()
            output = client.batches.retrieve(batch_id).output_file_id
            assert output is not None
            Path(f"{path}.out").write_bytes(client.files.content(output).content)
            return f"{path}.out"

        batch = OpenAITriggerBatchOperator(
            task_id="batch",
            file_id=upload(path),  # type: ignore[arg-type]
            endpoint="/v1/chat/completions",
            deferrable=True,
            poll_interval=1,
        )
        download(path, batch.output)  # type: ignore[arg-type]

    process.expand(path=find_files())
