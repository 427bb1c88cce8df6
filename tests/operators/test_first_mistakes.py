"""What somebody gets wrong in a first DAG of their own is said before it costs, with a way out that is one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, task

from airflow_openai_batch.answers import iter_answers
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.whole_job import OpenAIBatchJobOperator
from airflow_openai_batch.task_group import openai_batch_task_group
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

QUICK: dict[str, Any] = {"send_mode": "batch", "poll_interval": 0.1}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Three requests."""
    return Job(tmp_path).write(chat_line(str(n)) for n in range(3))


def test_a_percentage_for_a_fraction_does_not_turn_every_run_green(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    openai_server.script(line=400, times=None)
    said = "max_failed_fraction={}: must be at most 1. It is a part of the rows: 0.05 is five"
    with DAG("percent", schedule=None) as dag:
        fields = {"input_uri": str(job.input), "output_uri": job.uri, **QUICK}
        for constant in (5, "5"):  # said where the DAG is read, not after it has been paid
            with pytest.raises(ConfigError) as refused:
                openai_batch_task_group("early", **fields, max_failed_fraction=constant)
            assert str(refused.value).startswith(said.format(repr(constant)))
        openai_batch_task_group("ask", **fields, max_failed_fraction="{{ 2 + 3 }}")
    run = run_dag(dag)
    assert run.state == "failed"
    assert run.errors("ask.publish").startswith(said.format("'5'"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"poll_interval": "1m"}, "poll_interval='1m': must be a number"),
        ({"max_failed_fraction": "1%"}, "max_failed_fraction='1%': must be a number"),
        ({"max_failed_fraction": True}, "max_failed_fraction=True: must be a number"),
        ({"poll_interval": timedelta(seconds=30)}, "(seconds=30): must be a number of seconds."),
        ({"finish_within_h": "4h"}, "finish_within_h='4h': must be a number of hours."),
        ({"enqueued_token_limit": -1}, "enqueued_token_limit=-1: must be at least 1; leave it empty"),
        ({"realtime_concurrency": 0}, "realtime_concurrency=0: must be at least 1; leave it empty"),
        ({"max_requests_per_shard": 0}, "max_requests_per_shard=0: must be 1 to 50,000"),
        ({"max_bytes_per_shard": "0"}, "max_bytes_per_shard=0: must be 1 to 200,000,000"),
        (
            {"max_tokens_per_shard": "inf"},
            "max_tokens_per_shard='inf': must be a whole number; leave it empty",
        ),
        ({"max_attempts": 2.5}, "max_attempts=2.5: must be a whole number."),
        ({"max_attempts": "0"}, "max_attempts='0': must be at least 1."),
        (
            {"conn_id": None},
            "conn_id=None: name a connection of type OpenAI, or leave it out for openai_default.",
        ),
        ({"input_uri": None}, "input_uri is empty: name a JSONL file, a list of them, or a glob."),
    ],
)
def test_a_value_that_is_needed_later_is_looked_at_before_anything_is_sent(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job, options: dict[str, Any], words: str
) -> None:
    with DAG("too_late", schedule=None) as dag:
        fields = {"input_uri": str(job.input), "output_uri": job.uri, **QUICK, **options}
        OpenAIBatchJobOperator(task_id="ask", **fields)
    assert words in run_dag(dag).errors("ask")
    assert openai_server.batches() == []


def test_a_shard_that_could_not_wait_creates_no_batch(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    with DAG("cannot_wait", schedule=None) as dag:
        openai_batch_task_group(
            "ask", input_uri=str(job.input), output_uri=job.uri, send_mode="batch", poll_interval=-1
        )
    run = run_dag(dag)
    assert "poll_interval=-1: must be at least 0.1" in run.errors("ask.shard", map_index=0)
    assert openai_server.batches() == []


def test_rows_that_a_function_yields_in_vain_are_counted_and_may_stop_it(
    run_dag: RunDag, openai_server: OpenAIServer
) -> None:
    def make(**options: Any) -> DAG:
        with DAG(f"in_vain_{len(options)}", schedule=None) as dag:

            @task.openai_batch(model="gpt-6-luna", user="Good? {{ text }}", **QUICK, **options)
            def ask() -> Iterator[dict[str, Any]]:
                yield {"id": 1, "text": "Lovely."}
                yield {"id": 2, "text": None}
                yield {"id": 3}

            ask()
        return dag

    run = run_dag(make())
    assert run.state == "success"
    assert (run.xcom("ask")["rows"], run.xcom("ask")["rejected"]) == ({"ok": 1}, 2)
    sent = len(openai_server.batches())
    assert "more than max_rejected_fraction=0.5 allows" in run_dag(make(max_rejected_fraction=0.5)).errors(
        "ask"
    )
    assert len(openai_server.batches()) == sent


def test_who_reads_a_sample_is_told_how(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    with DAG("reads_a_sample", schedule=None) as dag:
        ask = OpenAIBatchJobOperator(
            task_id="ask", input_uri=str(job.input), output_uri=job.uri, sample_requests=1, **QUICK
        )

        @task
        def load(asked: Any) -> list[str | None]:
            return [answer.custom_id for answer in iter_answers(asked)]

        @task
        def look(asked: Any) -> list[str | None]:
            return [answer.custom_id for answer in iter_answers(asked, unfinished=True)]

        load(ask.output)
        look(ask.output)
    run = run_dag(dag)
    assert "After a sample (sample_requests), iter_answers(job, unfinished=True)" in run.errors("load")
    assert run.xcom("look") == ["0"]


def test_a_task_that_finds_no_input_turns_no_job_green(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    with DAG("finds_none", schedule=None) as dag:

        @task
        def find() -> None:
            return None

        ask = OpenAIBatchJobOperator(
            task_id="ask", input_uri=find(), output_uri=job.uri, on_empty="skip", **QUICK
        )

        @task
        def load(asked: Any) -> list[Any]:
            return list(iter_answers(asked))

        load(ask.output)
    run = run_dag(dag)
    assert (run.state, run.states[("load", -1)]) == ("failed", "upstream_failed")
    assert "input_uri is empty" in run.errors("ask")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Positive or negative? {{ text }}", "{{ text }}: there is no such prompt file."),
        ("Positive or negative? " * 200 + "{{ text }}", "...: there is no such prompt file."),
        ({"name": "s", "model": "gpt-6-luna", "user": "{{ text }}", "temperature": 1}, "`temperature`"),
    ],
)
def test_a_prompt_that_is_none_says_what_one_is(
    run_dag: RunDag, openai_server: OpenAIServer, prompt: Any, words: str
) -> None:
    with DAG("asks_wrongly", schedule=None) as dag:

        @task.openai_batch(prompt=prompt, **QUICK)
        def ask() -> Iterator[dict[str, Any]]:
            yield {"text": "Lovely."}

        ask()
    said = run_dag(dag, retries=1).failures
    assert len(said) == 1, "no retry helps"
    assert words in said[0][2]
    assert len(said[0][2]) < 1000
    way_out = "the endpoint takes goes into parameters" if isinstance(prompt, dict) else 'prompt={"name": '
    assert way_out in said[0][2]


def test_who_reads_a_group_or_several_jobs_at_once_is_told_what_to_give(
    run_dag: RunDag, openai_server: OpenAIServer, job: Job
) -> None:
    with DAG("reads_a_list", schedule=None) as dag:
        jobs = OpenAIBatchJobOperator.partial(task_id="ask", output_uri=job.uri, **QUICK).expand(
            input_uri=[str(job.input)]
        )

        @task
        def load(asked: Any) -> list[Any]:
            return list(iter_answers(list(asked)))  # type: ignore[arg-type]

        load(jobs.output)
    assert "job is a list: give what the task of the job returned" in run_dag(dag).errors("load")


def test_a_prompt_without_a_column_is_not_paid_for_once_a_row(
    run_dag: RunDag, openai_server: OpenAIServer
) -> None:
    def make(**options: Any) -> DAG:
        with DAG(f"no_column_{len(str(options))}", schedule=None) as dag:

            @task.openai_batch(model="gpt-6-luna", **QUICK, **options)
            def ask() -> Iterator[str]:
                yield "Lovely."
                yield "It broke."

            ask()
        return dag

    for user in ("Is this a good review?", "Is this a good review? {prompt}"):
        said = run_dag(make(user=user)).errors("ask")
        assert said.startswith("user: would ask the same of every row"), said
        assert "What is yielded as a text is {{ prompt }}." in said
    assert openai_server.batches() == []
    assert run_dag(make(user="Tell me a joke. {# same for all #}")).state == "success"
    assert run_dag(make(system="Is this a good review?")).state == "success"


def test_a_group_that_wants_a_form_says_so_when_the_dag_is_read() -> None:
    with (
        DAG("no_form", schedule=None, params={"mine": 1}),
        pytest.raises(TypeError, match=r"from_params=True needs a form: give the DAG params=make_params\(\)"),
    ):
        openai_batch_task_group("ask", from_params=True)


def test_a_file_where_a_directory_is_wanted(run_dag: RunDag, openai_server: OpenAIServer, job: Job) -> None:
    with DAG("not_a_directory", schedule=None) as dag:

        @task.openai_batch(model="gpt-6-luna", output_uri=str(job.input), **QUICK)
        def ask() -> Iterator[str]:
            yield "Lovely."

        ask()
        OpenAIBatchPrepareOperator(
            task_id="prepare",
            source=str(job.input),
            prompt={"name": "p", "model": "gpt-6-luna", "user": "{{ custom_id }}"},
            output_uri=str(job.input),
        )
        OpenAIBatchJobOperator(task_id="job", input_uri=str(job.input), output_uri=str(job.input), **QUICK)
    run = run_dag(dag, retries=1)
    for name in ("ask", "prepare", "job"):
        assert "cannot be written (" in run.errors(name), name
    assert len(run.failures) == 3, "no retry helps"


def test_what_holds_for_any_task_goes_into_default_args_of_a_group() -> None:
    with (
        DAG("with_retries", schedule=None),
        pytest.raises(TypeError, match=r"default_args=\{'retries': \.\.\.\}"),
    ):
        openai_batch_task_group("ask", input_uri="a", output_uri="b", retries=2)
