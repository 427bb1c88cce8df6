"""What README and docs show works as it stands."""

from __future__ import annotations

import configparser
import gzip
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import openai
import openpyxl
import pyarrow.parquet as pq
import pytest

from fixtures.documents import DAGS, PAGES, README, SHOWN, Document, make_dag, python_blocks, run_block
from fixtures.job import chat_line
from fixtures.object_store import ObjectStore

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

MOST_README_LINES = 220
GETTING_STARTED = next(page for page in PAGES if page.path.stem == "getting-started")
RESULTS = next(page for page in PAGES if page.path.stem == "results")
MONEY = next(page for page in PAGES if page.path.stem == "money-and-queues")
COMPOSE = next(page for page in PAGES if page.path.stem == "compose")
SECURITY = next(page for page in PAGES if page.path.stem == "security")
OTHER_BLOCKS = [(document, block) for document, block in python_blocks() if block not in DAGS.values()]


def test_the_readme_ends_after_the_first_success() -> None:
    """What does not fit belongs into a page of docs/, to which it sends on."""
    assert README.text.count("\n") <= MOST_README_LINES


def test_every_page_says_first_whom_it_is_for() -> None:
    for page in PAGES:
        _, blank, first, *_ = page.text.splitlines()
        assert (blank, first.partition(" ")[0]) == ("", "For"), page.name


@pytest.fixture
def bucket(s3_server: str, define_connection: Callable[..., str]) -> ObjectStore:
    """The bucket and the connection that the documents name."""
    define_connection(
        "my_aws",
        conn_type="aws",
        login="testing",
        password="testing",
        extra={"endpoint_url": s3_server, "region_name": "us-east-1"},
    )
    httpx.put(f"{s3_server}/bucket", trust_env=False).raise_for_status()
    return ObjectStore(s3_server, "bucket")


@pytest.mark.parametrize("dag_id", DAGS)
def test_python_makes_a_dag_that_airflow_can_store(dag_id: str) -> None:
    from fixtures.airflow_versions import DagSerialization

    dag = make_dag(dag_id)
    assert dag.dag_id == dag_id
    assert set(DagSerialization.to_dict(dag)) >= {"dag"}


@pytest.mark.usefixtures("openai_conn")
def test_the_nightly_dag_runs_without_a_logical_date(run_dag: RunDag, bucket: ObjectStore) -> None:
    """As a run does that an asset triggers."""
    day = datetime(2026, 1, 31, 2, tzinfo=UTC)
    bucket.put("reviews/2026-01-31/a.jsonl.gz", gzip.compress(chat_line("a").encode()))
    run = run_dag(make_dag("nightly_reviews"), logical_date=None, run_after=day)
    assert run.state == "success", run.failures
    part = pq.read_table(io.BytesIO(bucket.get("jobs/reviews/2026-01-31/results/part-00000.parquet")))
    assert part.column("status").to_pylist() == ["ok"]


@pytest.mark.usefixtures("openai_conn")
def test_a_table_comes_back_with_its_answers(run_dag: RunDag, bucket: ObjectStore) -> None:
    bucket.put("reviews.csv", b"id,text\n1,Lovely\n2,Broken\n3,Lovely\n")
    run = run_dag(make_dag("review_table"))
    assert run.state == "success", run.failures
    rows = list(openpyxl.load_workbook(io.BytesIO(bucket.get("reviews_with_sentiment.xlsx"))).active.values)
    answer = rows[0].index("answer")
    assert [row[:2] for row in rows[1:]] == [("1", "Lovely"), ("2", "Broken"), ("3", "Lovely")]
    assert all(row[answer] in ("Positive", "Negative", "Neutral") for row in rows[1:])
    assert rows[1][answer] == rows[3][answer]


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.timeout(180)
def test_the_compositions_run(
    run_dag: RunDag, bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT", f"file://{tmp_path}")
    bucket.put("texts/a.txt", b"Lovely")
    bucket.put("products.csv", b"name\nKettle\nLamp\nKettle\n")
    bucket.put("mails/a.csv", b"text\nWhere is my parcel?\n")
    bucket.put("tickets/a.csv", b"text\nWhere is my parcel?\nThe lamp hums.\n")
    runs = {
        dag_id: run_dag(make_dag(dag_id))
        for dag_id in ("judge_reviews", "tag_products", "check_claims", "sort_messages", "judge")
    }
    assert {dag_id: run.state for dag_id, run in runs.items()} == dict.fromkeys(runs, "success")
    assert runs["sort_messages"].xcom("count") == {"mail": 1, "ticket": 2}
    assert set(runs["check_claims"].xcom("doubtful")) <= {1, 2}
    assert runs["judge"].xcom("read").keys() == {"1", "2"}
    tagged = bucket.get("tagged.txt").decode().splitlines()
    assert [line.partition(":")[0] for line in tagged] == ["Kettle", "Lamp", "Kettle"]


@pytest.mark.usefixtures("openai_conn")
def test_a_batch_of_somebody_elses_is_fetched(
    run_dag: RunDag, openai_server: OpenAIServer, bucket: ObjectStore
) -> None:
    with openai.OpenAI(base_url=openai_server.base_url, api_key="any") as client:
        file = client.files.create(file=("f.jsonl", chat_line("a").encode()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    run = run_dag(make_dag("fetch_batch"), {"batch_id": batch.id})
    assert run.state == "success", run.failures
    assert json.loads(bucket.get(f"answers/{batch.id}.output.jsonl"))["custom_id"] == "a"
    assert run.xcom("download")["output"] == f"s3://my_aws@bucket/answers/{batch.id}.output.jsonl"


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.parametrize("document", [README, GETTING_STARTED], ids=lambda document: document.name)
def test_the_first_run_and_the_way_to_read_its_results(
    run_dag: RunDag, tmp_path: Path, document: Document
) -> None:
    (line,) = document.blocks("json")
    reading, looking = (block.replace("/data", str(tmp_path)) for block in RESULTS.blocks("python"))
    (tmp_path / "reviews.jsonl").write_text(line)
    command = next(line for line in document.text.splitlines() if line.startswith("$ airflow dags test"))
    conf = json.loads(command.partition("--conf '")[2].removesuffix("'").replace("/data", str(tmp_path)))
    assert run_dag("openai_batch", conf).state == "success"
    rows = run_block(reading)["rows"]
    assert rows.to_pylist() == [{"custom_id": "review/1", "status": "ok", "content": "Neutral"}]
    assert run_block(looking)["bad"].to_pylist() == []


def test_what_is_no_dag_runs_as_well() -> None:
    """But what reads a job that is not there."""
    assert len(OTHER_BLOCKS) >= 2
    for _, block in OTHER_BLOCKS:
        if "/data/" not in block:
            run_block(block)


def test_every_parameter_in_a_command_is_one() -> None:
    from airflow_openai_batch.dag_params import make_params

    texts = "\n".join(document.text for document in SHOWN)
    confs = [json.loads(found) for found in re.findall(r"openai_batch --conf '(\{.*\})'", texts)]
    assert len(confs) >= 3
    assert {key for conf in confs for key in conf} <= set(make_params())


def test_the_keys_of_rejected_lines_are_all_named() -> None:
    from airflow_openai_batch.job.rejected import RejectedLine

    assert [name for name in RejectedLine.__struct_fields__ if f"`{name}`" not in RESULTS.text] == []


@pytest.mark.parametrize("document", [README, GETTING_STARTED], ids=lambda document: document.name)
def test_the_request_it_shows_is_one(document: Document) -> None:
    from airflow_openai_batch.requests.request import read_request

    (line,) = document.blocks("json")
    assert json.loads(line)["custom_id"] == "review/1"
    assert read_request(line.strip().encode()).custom_id == "review/1"


@pytest.mark.parametrize("document", [README, RESULTS], ids=lambda document: document.name)
def test_it_names_every_column_of_the_results(document: Document) -> None:
    from airflow_openai_batch.results.result_rows import SCHEMA

    missing = [name for name in SCHEMA.names if f"`{name}`" not in document.text]
    assert missing == []


def test_the_connections_extra_it_shows_can_be_read() -> None:
    from airflow_openai_batch.openai_api.account_limits import read_account_limits
    from airflow_openai_batch.openai_api.model_ends import read_own_ends
    from airflow_openai_batch.openai_api.own_prices import read_own_prices

    extra, prices, ends = map(json.loads, MONEY.blocks("jsonc"))
    limits = read_account_limits(extra, MONEY.name)
    assert read_own_prices(prices, MONEY.name)["gpt-6.2-sol"].batch.base.output == 10
    assert read_own_ends(ends, MONEY.name).keys() == {"gpt-4o", "gpt-4.1-nano"}
    assert limits.queue_limit("gpt-6-luna").tokens == 2_000_000
    assert limits.queue_limit("gpt-4o").tokens == 90_000
    assert (limits.requests_per_minute, limits.realtime_concurrency) == (500, 10)


def test_the_prompt_it_shows_is_one() -> None:
    from airflow_openai_batch.tables.prompts import read_prompt

    (block,) = COMPOSE.blocks("yaml")
    assert read_prompt(block).name == "tags"


def test_the_configuration_it_shows_can_be_read() -> None:
    from airflow_openai_batch.provider_info import get_provider_info

    (block,) = SECURITY.blocks("ini")
    shown = configparser.ConfigParser()
    shown.read_string(block)
    assert shown.sections() == ["openai_batch"]
    assert set(shown["openai_batch"]) <= set(get_provider_info()["config"]["openai_batch"]["options"])
