"""Whether a value is the DAG author's or the form's, by the DAG as it is written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("airflow_db")


def _judge(value: Any, given: dict[str, Any] | None = None, *, mapped: bool = False) -> str:
    """The giver of a field, in a run with these parameters beside the defaults."""
    from airflow.sdk import DAG, Param
    from airflow.sdk.definitions.param import process_params

    from airflow_openai_batch.access.givers import find_giver
    from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator

    with DAG(
        "a_dag",
        schedule=None,
        params={"place": Param("s3://bucket/in", type="string"), "items": "x"},
        user_defined_macros={"bucket": "s3://bucket"},
    ) as dag:
        if mapped:
            OpenAIBatchSplitOperator.partial(task_id="split", output_uri="/out").expand(
                input_uri=value() if callable(value) else value
            )
        else:
            OpenAIBatchSplitOperator(
                task_id="split", output_uri="/out", input_uri=value() if callable(value) else value
            )
    params = process_params(dag, dag.get_task("split"), given, suppress_exception=False)
    context: Any = {"dag": dag, "ti": SimpleNamespace(task_id="split"), "params": params}
    return find_giver(context, "input_uri", "output_uri").name


def _result_of_another() -> Any:
    from airflow.sdk import task

    @task
    def before() -> list[str]:
        return []

    return before()


def _parameter_object() -> Any:
    from airflow.sdk import DAG
    from airflow.sdk.definitions.param import DagParam

    return DagParam(DAG("x", schedule=None), "place", "s3://bucket/in")


@pytest.mark.parametrize(
    ("value", "giver"),
    [
        ("s3://bucket/in.jsonl", "CODE"),
        (["/data/a.jsonl", "/data/b.jsonl"], "CODE"),
        (_result_of_another, "CODE"),
        ("s3://bucket/{{ ds }}/{{ run_id }}.jsonl", "RUN"),
        ("{{ bucket }}/in.jsonl", "RUN"),
        ("{{ var.value.place }}/{{ macros.ds_add(ds, -1) }}", "RUN"),
        ("{{ ti.xcom_pull(task_ids='before', key='k') or '' }}", "RUN"),
        ("{% for d in [ds, ts] %}{{ d }}{% endfor %}/{{ dag_run.run_after.year }}", "RUN"),
        ("{{ params.place }}", "FORM"),
        ("{{ params['place'].rstrip('/') | replace('a', 'b') }}", "FORM"),
        ("{{ params.get('place') }}", "FORM"),
        ("{{ params.items }}", "FORM"),
        ("{{ params[ds] }}", "FORM"),
        ("{{ dag_run.conf.place }}", "FORM"),
        ("{{ dag_run.conf['place'] }}", "FORM"),
        ("{{ dag_run | attr('conf') }}", "FORM"),
        ("{{ ti.dag_run.conf.x }}", "FORM"),
        ("{{ ti.get_template_context()['params'] }}", "FORM"),
        ("{{ task.params.place }}", "FORM"),
        ("{{ ti.xcom_pull(task_ids=params.place) }}", "FORM"),
        ("{% set x = params.place %}{{ x }}", "FORM"),
        ("{% for params in [params] %}{{ params.place }}{% endfor %}", "FORM"),
        ("{{ triggering_asset_events }}", "FORM"),
        ("{{ whatever_it_is }}", "FORM"),
        ("{% include 'other.txt' %}", "FORM"),
        (["/data/a.jsonl", "{{ params.place }}"], "FORM"),
        (_parameter_object, "FORM"),
    ],
)
def test_what_a_field_is_written_with_says_who_gave_it(value, giver):
    assert _judge(value, {"place": "/proc/self/environ"}) == giver


@pytest.mark.parametrize(
    ("value", "giver"),
    [
        (["/data/a.jsonl"], "CODE"),
        (_result_of_another, "CODE"),
        (["/data/a.jsonl", "{{ params.place }}"], "FORM"),
    ],
)
def test_a_mapped_task_is_judged_by_what_it_is_mapped_over(value, giver):
    assert _judge(value, {"place": "/etc/passwd"}, mapped=True) == giver


@pytest.mark.parametrize(
    ("value", "giver"),
    [("[[ params.place ]]", "FORM"), ("[[ ds ]]", "RUN"), ("/data/{{ ds }}", "CODE"), ("/data", "CODE")],
)
def test_a_dag_with_template_signs_of_its_own_is_judged_by_them(value: str, giver: str) -> None:
    from airflow.sdk import DAG, Param

    from airflow_openai_batch.access.givers import find_giver_in
    from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator

    signs = {"variable_start_string": "[[", "variable_end_string": "]]"}
    params = {"place": Param("s3://bucket/in", type="string")}
    with DAG("own_signs", schedule=None, params=params, jinja_environment_kwargs=signs) as dag:
        OpenAIBatchSplitOperator(task_id="split", output_uri="/out", input_uri=value)
    assert find_giver_in(dag, "split", {"place": "/proc/self/environ"}, "input_uri").name == giver


def test_the_form_as_it_stands_is_the_authors():
    assert _judge("{{ params.place }}/x") == "RUN"


@pytest.mark.parametrize("within", [True, False])
def test_what_a_run_wrote_into_a_parameter_is_not_taken_for_its_default(within: bool):
    """Where a task was made outside of its DAG, Airflow writes into the DAG's own parameters."""
    from airflow.sdk import DAG, Param
    from airflow.sdk.definitions.param import process_params

    from airflow_openai_batch.access.givers import find_giver
    from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator

    dag = DAG("made_apart", schedule=None, params={"place": Param("s3://bucket/in", type="string")})
    places = {"input_uri": "{{ params.place }}", "output_uri": "/out"}
    task = OpenAIBatchSplitOperator(task_id="split", **({"dag": dag} if within else {}), **places)
    task.dag = dag
    params = process_params(dag, task, {"place": "/proc/self/environ"}, suppress_exception=False)
    context: Any = {"dag": dag, "ti": SimpleNamespace(task_id="split"), "params": params}
    assert find_giver(context, "input_uri").name == "FORM"
