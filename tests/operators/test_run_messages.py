"""What the log and the error of the split tell somebody who typed something wrong, or comes back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from airflow_openai_batch.access.locations import _find_connection, resolve_location
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.own_tasks import task_failures
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.sensors.batch import OpenAIBatchSensor
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path, {"max_requests_per_shard": 1}).write(chat_line(str(n)) for n in range(2))


@pytest.fixture
def nothing_known() -> None:
    """Connections that other tests of this process had are forgotten."""
    _find_connection.cache_clear()


@pytest.mark.usefixtures("nothing_known")
def test_a_connection_in_a_uri_that_does_not_exist_is_named() -> None:
    """Amazon's provider would go on without credentials and fail with a traceback of the store's client."""
    with pytest.raises(ConfigError) as refused:
        resolve_location("s3://my_aws@bucket/in.jsonl")
    assert str(refused.value) == (
        "s3://my_aws@bucket/in.jsonl: connection 'my_aws' does not exist. Create it, or set AIRFLOW_CONN_MY_AWS on "
        "workers and triggerers, or leave it out of the URI to use the credentials of the machine."
    )


@pytest.mark.parametrize("param", ["input_uri", "output_uri"])
@pytest.mark.usefixtures("openai_conn", "nothing_known")
def test_a_missing_connection_fails_the_split_without_a_traceback_of_the_store(
    run_dag: RunDag, job: Job, param: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = "INPUT_ROOT" if param == "input_uri" else "OUTPUT_ROOT"
    monkeypatch.setenv(f"AIRFLOW__OPENAI_BATCH__{root}", "s3://my_aws@bucket")
    run = run_dag("openai_batch", job.conf(**{param: "s3://my_aws@bucket/x"}), retries=2)
    assert run.state == "failed"
    assert run.errors("split").count("connection 'my_aws' does not exist") == 1  # and no second try


@pytest.mark.usefixtures("openai_conn")
def test_a_misspelt_parameter_is_named(run_dag: RunDag, job: Job) -> None:
    conf = job.conf()
    run = run_dag("openai_batch", {"inputuri": conf["input_uri"], "output_uri": conf["output_uri"], "zzz": 1})
    message = run.errors("split")
    assert "input_uri is empty" in message
    assert "the DAG has no such parameter: 'inputuri' (did you mean 'input_uri'?), 'zzz'" in message
    assert str(conf["input_uri"]) not in message


@pytest.mark.usefixtures("openai_conn")
def test_a_batch_that_is_not_known_is_looked_for_with_a_connection(run_dag: RunDag) -> None:
    with DAG("unknown_batch", schedule=None) as dag:
        OpenAIBatchSensor(task_id="wait", batch_id="batch_of_others", poll_interval=0.1)
    assert run_dag(dag, retries=2).errors("wait") == (
        "fetching batch_of_others with connection 'openai_default': the server answered 404. It is not there (any "
        "more), or belongs to another project than the connection's key."
    )


@pytest.mark.long
@pytest.mark.usefixtures("openai_conn")
def test_a_plan_that_exists_is_said_to_be_gone_on_with(
    run_dag: RunDag, job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    run_dag("openai_batch", job.conf(dry_run=True))
    assert "exists: going on" not in "".join(capfd.readouterr())
    run_dag("openai_batch", job.conf())
    assert "going on with it; 0 of 2 shards have results already." in "".join(capfd.readouterr())
    run_dag("openai_batch", job.conf())
    assert "going on with it; 2 of 2 shards have results already." in "".join(capfd.readouterr())


def test_an_error_within_a_task_of_ones_own_is_one_that_airflow_can_tell() -> None:
    """Half of a surrogate pair would end its process before Airflow has heard why."""
    with pytest.raises(AirflowFailException) as failed, task_failures():
        raise ConfigError("caf\udce9.csv: is no table.")
    assert str(failed.value).encode() == rb"caf\udce9.csv: is no table."


@pytest.mark.usefixtures("openai_conn")
def test_a_report_without_a_job_says_to_clear_the_split(run_dag: RunDag) -> None:
    """As where somebody has marked the split as success before it ran."""
    with DAG("without_a_job", schedule=None) as dag:
        OpenAIBatchReportOperator(task_id="publish", job="")
    run = run_dag(dag)
    assert run.state == "failed"
    assert "marked it as success). Clear it" in run.errors("publish")
