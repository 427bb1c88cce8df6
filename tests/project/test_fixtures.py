"""The fixtures that other tests stand on do what they promise."""

from __future__ import annotations

import os

from airflow.sdk import DAG, ObjectStoragePath, Param, task


def make_dag(dag_id: str) -> DAG:
    with DAG(dag_id, schedule=None, params={"numbers": Param([], type="array")}) as dag:

        @task
        def read(params: dict[str, list[int]]) -> list[int]:
            return params["numbers"]

        @task(retries=3)
        def halve(number: int) -> int:
            if number % 2:
                raise ValueError("odd")
            return number // 2

        halve.expand(number=read())
    return dag


def test_a_run_tells_states_and_results(run_dag):
    run = run_dag(make_dag("halves"), {"numbers": [4, 8]})
    assert run.state == "success"
    assert run.states == {("read", -1): "success", ("halve", 0): "success", ("halve", 1): "success"}
    assert run.xcom("halve", map_index=1) == 4


def test_a_failing_task_fails_the_run_at_once(run_dag):
    run = run_dag(make_dag("odd"), {"numbers": [4, 5]})
    assert run.state == "failed"
    assert run.states["halve", 1] == "failed"


def test_object_storage_goes_to_a_bucket_of_its_own(s3, airflow_db):
    ObjectStoragePath(s3.uri("folder/hello.txt")).write_text("hello")
    assert s3.keys() == ["folder/hello.txt"]
    assert s3.get("folder/hello.txt") == b"hello"


def test_nothing_of_the_developers_environment_is_seen():
    assert "OPENAI_API_KEY" not in os.environ
    assert "airflow-home-" in os.environ["AIRFLOW_HOME"]
