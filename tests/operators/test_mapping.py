"""A mapped operator is to the scheduler what an unmapped one is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, BaseOperator

from airflow_openai_batch.decorators.openai_batch import openai_batch_task
from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.report import ASSET_ALIAS, OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import (
    OpenAIBatchResendOperator,
    OpenAIBatchShardOperator,
    OpenAIBatchUploadOperator,
)
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from fixtures.airflow_versions import DagSerialization

OPERATORS: dict[type[BaseOperator], dict[str, Any]] = {
    OpenAIBatchUploadOperator: {"shard": {}},
    OpenAIBatchCreateOperator: {"shard": {}},
    OpenAIBatchSensor: {"shard": {}},
    OpenAIBatchDownloadOperator: {"shard": {}},
    OpenAIBatchResendOperator: {"shard": {}},
    OpenAIBatchShardOperator: {"shard": {}},
    OpenAIBatchSplitOperator: {"input_uri": "a", "output_uri": "b"},
    OpenAIBatchPrepareOperator: {"source": "a", "output_uri": "b", "prompt": "p.yaml"},
    OpenAIBatchJoinOperator: {"prepared": "a", "job": "b", "output_uri": "c"},
    OpenAIBatchReportOperator: {"job": "a"},
    OpenAIBatchJobOperator: {"input_uri": "a", "output_uri": "b"},
}
"""Each with what it cannot do without; mapped over the first of these."""
SETTINGS = (
    *("retries", "retry_delay", "retry_exponential_backoff", "max_retry_delay", "execution_timeout", "pool"),
    *("trigger_rule", "priority_weight", "queue", "depends_on_past", "max_active_tis_per_dag"),
    *("map_index_template", "email_on_failure", "on_failure_fail_dagrun", "task_type", "ui_color"),
)
"""What the scheduler reads of a task."""


def read_settings(dag: DAG, task_id: str) -> dict[str, Any]:
    """Of a task, as serialised and read again by the scheduler."""
    data = DagSerialization.to_dict(dag)
    task = DagSerialization.from_dict(data).get_task(task_id)
    (raw,) = (each["__var"] for each in data["dag"]["tasks"] if each["__var"]["task_id"] == task_id)
    outlets = raw.get("partial_kwargs", raw).get(
        "outlets", []
    )  # where Airflow looks for what a mapped task fills
    return {name: getattr(task, name) for name in SETTINGS} | {"outlets": outlets}


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("own", [{}, {"retries": 1, "max_retry_delay": 30.0, "outlets": [Asset("x")]}])
def test_a_mapped_operator_is_serialised_with_the_defaults_of_an_unmapped_one(
    kind: type[BaseOperator], own: dict[str, Any]
) -> None:
    (name, value), *rest = OPERATORS[kind].items()
    with DAG("mapping", schedule=None, default_args={"pool": "narrow"}) as dag:
        kind(task_id="single", **OPERATORS[kind], **own)
        kind.partial(task_id="mapped", **dict(rest), **own).expand(**{name: [value]})
    assert read_settings(dag, "mapped") == read_settings(dag, "single")


@pytest.mark.parametrize("own", [{}, {"retries": 1, "max_retry_delay": 30.0, "outlets": [Asset("x")]}])
def test_a_mapped_function_is_serialised_with_the_defaults_of_an_unmapped_one(own: dict[str, Any]) -> None:
    with DAG("mapped_function", schedule=None, default_args={"retry_delay": timedelta(minutes=7)}) as dag:

        @openai_batch_task(model="gpt-4o-mini", task_id="ask", **own)
        def ask(path: str) -> Iterator[str]:
            yield path

        ask.override(task_id="single")("a")
        ask.override(task_id="mapped").expand(path=["a"])
    mapped = read_settings(dag, "mapped")
    assert mapped == read_settings(dag, "single")
    assert mapped["retry_delay"] == timedelta(minutes=7)
    assert ASSET_ALIAS in str(mapped["outlets"])


def test_what_the_dag_says_wins_over_an_operators_own_default() -> None:
    with DAG("said", schedule=None, default_args={"max_retry_delay": timedelta(minutes=3)}) as dag:
        OpenAIBatchShardOperator.partial(task_id="mapped").expand(shard=[{}])
    assert read_settings(dag, "mapped")["max_retry_delay"] == timedelta(minutes=3)
