"""Which tasks of a shard begin in the triggerer: those that nothing keeps from it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Asset, cross_downstream, task

from airflow_openai_batch.operators.create import OpenAIBatchCreateOperator
from airflow_openai_batch.operators.download import OpenAIBatchDownloadOperator
from airflow_openai_batch.operators.shard import OpenAIBatchResendOperator, OpenAIBatchUploadOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from fixtures.airflow_versions import needs_airflow_3_3

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator

pytestmark = needs_airflow_3_3

SHARD = {"job": "s3://b/job", "shard": 3}
OTHER = {"job": "s3://b/job", "shard": 4}


class OwnSensor(OpenAIBatchSensor):
    """Somebody's own, which may do more than ours."""


def make_steps(
    *, wait: dict[str, Any] | None = None, kind: type[OpenAIBatchSensor] = OpenAIBatchSensor, **each: Any
) -> dict[str, Any]:
    """The tasks of a shard that is not mapped, by their names.

    :param wait: what the sensor alone is told.
    """
    with DAG("d", schedule=None, user_defined_macros={"hours_left": lambda: 5}, params={"hours": 5}):
        steps: dict[str, Any] = {
            "upload": OpenAIBatchUploadOperator(task_id="upload", shard=SHARD, **each),
            "create": OpenAIBatchCreateOperator(task_id="create", shard=SHARD, **each),
            "wait": kind(task_id="wait", **{"shard": SHARD, **each, **(wait or {})}),
            "download": OpenAIBatchDownloadOperator(task_id="download", shard=SHARD, **each),
            "resend": OpenAIBatchResendOperator(task_id="resend", shard=SHARD, **each),
        }
        for before, after in itertools.pairwise(steps.values()):
            before >> after
    return steps


def name_those_in_triggerer(steps: dict[str, Any]) -> list[str]:
    return [name for name, step in steps.items() if step.start_from_trigger]


@pytest.mark.parametrize(
    "each",
    [
        {},
        {"finish_within_h": 5, "conn_id": "mine"},
        {"finish_within_h": "{{ params.hours }}"},
        {"conn_id": "{{ params.own or params.hours or '' }}"},
    ],
)
def test_those_that_come_after_one_that_hands_over(each: dict[str, Any]) -> None:
    steps = make_steps(**each)
    assert name_those_in_triggerer(steps) == ["create", "wait", "resend"]
    found = [steps[name].start_trigger_args for name in ("create", "wait", "resend")]
    assert [start.trigger_kwargs["before"] for start in found] == ["upload", "create", "download"]
    assert {start.next_method for start in found} == {"resume"}


@pytest.mark.parametrize(
    "written",
    [
        "{{ ti.xcom_pull(task_ids='choose') }}",
        "{{ prev_data_interval_end_success }}",
        "{{ hours_left() }}",
        "{{ 5 | whole }}",
        "{{ params.hours + hours_left() }}",
        "{% if params.hours %}5{% endif %}",
        "{{ params.hours }}{{ hours_left() }}",
    ],
)
def test_none_whose_parameters_a_triggerer_may_not_find_out(written: str) -> None:
    """Airflow 3.3 never answers some of these there, and the task would wait for ever, whoever clears it."""
    assert name_those_in_triggerer(make_steps(finish_within_h=written)) == []


@pytest.mark.parametrize(
    "wait",
    [
        {"deferrable": False},
        {"outlets": [Asset("a")]},
        {"on_success_callback": print},
        {"on_execute_callback": print},
        {"pre_execute": print},
        {"kind": OwnSensor},
        {"multiple_outputs": True},
        {"execution_timeout": timedelta(hours=1)},
        {"shard": None, "batch_id": "batch_1"},
        {"shard": OTHER},
    ],
    ids=lambda wait: "+".join(wait),
)
def test_no_sensor_that_needs_a_worker_at_its_end_or_would_be_bound_there(wait: dict[str, Any]) -> None:
    kind = wait.pop("kind", OpenAIBatchSensor)
    assert name_those_in_triggerer(make_steps(wait=wait, kind=kind)) == ["create", "resend"]


def test_none_whose_connection_another_task_names() -> None:
    with DAG("d", schedule=None):
        upload = OpenAIBatchUploadOperator(task_id="upload", shard=SHARD)
        wait = OpenAIBatchSensor(
            task_id="wait",
            shard=SHARD,
            conn_id=task(task_id="choose")(lambda: "x")(),  # type: ignore[arg-type]
        )
        upload >> wait
    assert not wait.start_from_trigger


def test_what_is_hung_onto_a_task_later_counts_as_well() -> None:
    """A cluster's policy, or whoever goes on with the task after it was made."""
    steps = make_steps()
    steps["wait"].on_execute_callback = [print]
    steps["resend"].add_outlets([Asset("a")])
    assert name_those_in_triggerer(steps) == ["create"]


def test_none_where_triggerers_have_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow forgets the queue of what begins there, so nobody might take it."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    assert name_those_in_triggerer(make_steps()) == []


def test_none_that_would_take_what_was_handed_over_for_another_shard() -> None:
    with DAG("d", schedule=None):
        shards = {"a": SHARD, "b": OTHER}
        downloads = [OpenAIBatchDownloadOperator(task_id=f"download_{n}", shard=shards[n]) for n in shards]
        resends = [OpenAIBatchResendOperator(task_id=f"resend_{n}", shard=shards[n]) for n in shards]
        cross_downstream(downloads, resends)
        last = OpenAIBatchResendOperator(task_id="last", shard=OTHER)
        downloads[0] >> last
        alone = OpenAIBatchResendOperator(task_id="alone", shard=SHARD)
    tasks: list[BaseOperator] = [*resends, last, alone]
    assert not any(each.start_from_trigger for each in tasks)


def test_a_shard_may_be_what_the_task_before_returns() -> None:
    with DAG("d", schedule=None):
        create = OpenAIBatchCreateOperator(task_id="create", shard=SHARD)
        wait = OpenAIBatchSensor(task_id="wait", shard=create.output)
        choose = task(task_id="choose")(lambda: 12)()
        choose >> wait
    assert wait.start_from_trigger


@pytest.mark.parametrize(
    "options",
    [
        {"depends_on_past": True},
        {"wait_for_downstream": True},
    ],
)
def test_no_batch_is_created_by_an_upload_that_need_not_wait_for_the_last_creation(
    options: dict[str, Any],
) -> None:
    assert "create" not in name_those_in_triggerer(make_steps(**options))


def test_no_batch_is_created_above_the_budget_of_the_task_that_creates() -> None:
    with DAG("d", schedule=None, params={"cap": 100}):
        both: dict[str, Any] = {"shard": SHARD, "max_cost_usd": "{{ params.cap }}"}
        upload = OpenAIBatchUploadOperator(task_id="upload", **both)
        create = OpenAIBatchCreateOperator(task_id="create", params={"cap": 1}, **both)
        upload >> create
    assert not create.start_from_trigger
