"""One row that is filtered, in each use: the sink has all others and the reason, the run is red, a repair pays for it.

And a shard that never lands: the sink says so of its rows.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, task

from airflow_openai_batch.operators.own_tasks import check_joined
from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore
from airflow_openai_batch.recipes.qdrant.transcripts import seed_transcripts
from fixtures.job import chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

SAMPLES = Path(__file__).resolve().parents[2] / "include" / "samples"
REPAIRED = {"repair": True}


def failed_tasks(run: FinishedRun) -> set[str]:
    return {task for (task, _), state in run.states.items() if state == "failed"}


def good(server: OpenAIServer) -> int:
    """Good answers that were paid for."""
    return sum(server.books.good.values())


@pytest.fixture
def trigger(run_dag: RunDag, tmp_path: Path) -> Callable[..., FinishedRun]:
    """Run a use into ``tmp_path/out``, as a batch."""

    def run(dag_id: str, **conf: Any) -> FinishedRun:
        how = {"poll_interval": 0.1, "mode": "batch", "output_uri": f"file://{tmp_path}/out"}
        return run_dag(dag_id, {**how, **conf})

    return run


def test_a_table_with_a_shard_that_never_landed_says_so(
    trigger: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    rule = openai_server.script(batch="failed", code="model_not_found", shard=1, times=None)
    run = trigger("openai_batch_table", max_requests_per_shard=5)
    assert run.state == "failed"
    with (tmp_path / "out" / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["answer_status"] for row in rows] == ["ok"] * 5 + ["unfinished"] * 3
    assert all("shard 1" in row["answer_error"] for row in rows[5:])
    openai_server.unscript(rule)
    run = trigger("openai_batch_table", max_requests_per_shard=5)
    assert run.state == "success", run.failures
    assert good(openai_server) == 8


def test_who_clears_the_shards_alone_is_told_that_the_table_is_older(
    trigger: Any, openai_server: OpenAIServer, run_dag: RunDag, tmp_path: Path
) -> None:
    openai_server.script(batch="failed", code="model_not_found", shard=1, times=1)
    run = trigger("openai_batch_table", max_requests_per_shard=5)
    assert run.states[("judge", -1)] == "upstream_failed"
    joined = run.xcom("join")
    seen: list[str] = []

    def judge() -> None:
        try:
            check_joined("join")
        except AirflowFailException as error:
            seen.append(str(error))

    with DAG("judged", schedule=None) as dag:

        @task(task_id="join")
        def join() -> Any:
            return joined

        join() >> task(judge)()
    assert run_dag(dag).state == "success"
    (told,) = seen
    assert "while 3 of its 8 rows had no result yet" in told
    assert "Clear join with all that comes after it" in told


def test_a_split_that_fails_leaves_the_table_of_before_and_no_second_red_task(
    trigger: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    assert trigger("openai_batch_table").state == "success"
    before = (tmp_path / "out" / "answers.csv").read_bytes()
    run = trigger("openai_batch_table", sample_requests=2, repair=True)
    assert run.state == "failed"
    assert failed_tasks(run) == {"ask.split"}
    assert (tmp_path / "out" / "answers.csv").read_bytes() == before


@pytest.mark.long
def test_captions_of_the_other_frames_stand_in_the_workbook(
    trigger: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    form = {
        "video_uri": str(SAMPLES / "video" / "four_scenes.mp4"),
        "model_2": None,
        "max_failed_fraction": 0,
        "max_frames": 6,
    }
    rule = openai_server.script(line="content_filter", custom_id="row-2", times=None)
    run = trigger("caption_video_frames", **form)
    assert run.state == "failed"
    assert failed_tasks(run) == {"model_1_batch.caption.publish"}
    assert "1 of 6 rows are not ok" in run.errors("model_1_batch.caption.publish")
    (workbook,) = (tmp_path / "out").rglob("captions.xlsx")
    name = "gpt-6-luna (batch)"
    rows = read_sheet(workbook, "captions")
    assert [row[name] is not None for row in rows] == [True, True, False, True, True, True]
    assert rows[2]["problems"].startswith(f"{name}: failed, content_filter")
    assert [row["problems"] for row in rows if row[name]] == [None] * 5

    openai_server.unscript(rule)
    paid = good(openai_server)
    run = trigger("caption_video_frames", **form, **REPAIRED)
    assert run.state == "success", run.failures
    assert good(openai_server) == paid + 1
    assert all(row[name] and row["problems"] is None for row in read_sheet(workbook, "captions"))


def test_a_night_has_its_table_and_nobody_is_told_of_it_until_it_is_good(
    trigger: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    rule = openai_server.script(line="content_filter", contains="defective", times=None)
    run = trigger("reviews_sentiment_nightly", day="2025-06-03")
    assert run.state == "failed"
    assert failed_tasks(run) == {"ask.publish"}
    assert run.asset_events() == []
    table = tmp_path / "out" / "table" / "day=2025-06-03" / "reviews.parquet"
    rows = {row["review_id"]: row for row in pq.ParquetFile(table).read().to_pylist()}
    assert (rows["R-1013"]["sentiment"], rows["R-1013"]["answer_status"]) == (None, "failed")
    assert rows["R-1013"]["answer_error"].startswith("content_filter")
    assert sum(row["sentiment"] is not None for row in rows.values()) == 7
    assert "1 failed" in (tmp_path / "out" / "days" / "2025-06-03" / "report.md").read_text()

    openai_server.unscript(rule)
    paid = good(openai_server)
    run = trigger("reviews_sentiment_nightly", day="2025-06-03", **REPAIRED)
    assert run.state == "success", run.failures
    assert good(openai_server) == paid + 1
    assert [event["uri"] for event in run.asset_events() if event["uri"] == "reviews_sentiment"]
    rows = {row["review_id"]: row for row in pq.ParquetFile(table).read().to_pylist()}
    assert rows["R-1013"]["sentiment"] is not None


@pytest.mark.long
def test_a_cover_that_is_filtered_is_a_line_of_the_workbook(
    trigger: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(SAMPLES / "cd_covers" / "photos", tmp_path / "photos"))
    for path in sorted(photos.iterdir())[4:]:
        path.unlink()
    form = {"photos_uri": str(photos), "max_failed_fraction": 0}
    rule = openai_server.script(line="content_filter", custom_id="row-2", times=None)
    run = trigger("catalog_cd_images", **form)
    assert run.state == "failed"
    assert failed_tasks(run) == {"read_covers.publish", "judge.publish"}
    workbook = tmp_path / "out" / "catalogue.xlsx"
    results = {row["photo"]: row["state"] for row in read_sheet(workbook, "results")}
    assert len(results) == 4
    problems = {(row["photo"], row["code"]): row["detail"] for row in read_sheet(workbook, "problems")}
    assert set(problems) == {("scan_003.png", "not_read"), ("scan_004.png", "not_judged")}
    assert all("content_filter" in detail for detail in problems.values())

    openai_server.unscript(rule)
    shutil.copy(SAMPLES / "cd_covers" / "photos" / "scan_012.png", photos)
    paid = good(openai_server)
    run = trigger("catalog_cd_images", **form, **REPAIRED)
    assert run.state == "success", run.failures
    assert good(openai_server) == paid + 3, "the cover and its choice, and the choice of the other one"
    assert {row["state"] for row in read_sheet(workbook, "results")} == {"good"}
    assert len(read_sheet(workbook, "results")) == 4, "what is new waits for a run that is no repair"


@pytest.mark.long
def test_a_shard_of_covers_that_never_landed_goes_on_in_the_next_run(
    trigger: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(SAMPLES / "cd_covers" / "photos", tmp_path / "photos"))
    for path in sorted(photos.iterdir())[4:]:
        path.unlink()
    form = {"photos_uri": str(photos), "max_requests_per_shard": 2}
    rule = openai_server.script(batch="failed", code="model_not_found", shard=1, times=None)
    run = trigger("catalog_cd_images", **form)
    assert run.state == "failed"
    problems = {
        (row["photo"], row["code"]) for row in read_sheet(tmp_path / "out/catalogue.xlsx", "problems")
    }
    assert {("scan_003.png", "not_yet_read"), ("scan_004.png", "not_yet_read")} <= problems
    openai_server.unscript(rule)
    run = trigger("catalog_cd_images", **form)
    assert run.state == "success", run.failures
    assert [path.name for path in sorted((tmp_path / "out" / "covers").iterdir())] == ["round-001"]
    assert {row["state"] for row in read_sheet(tmp_path / "out/catalogue.xlsx", "results")} == {"good"}
    assert good(openai_server) == 8


@pytest.mark.long
def test_a_sample_of_covers_comes_first_and_the_rest_goes_on_in_the_same_round(
    trigger: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(SAMPLES / "cd_covers" / "photos", tmp_path / "photos"))
    for path in sorted(photos.iterdir())[4:]:
        path.unlink()
    run = trigger("catalog_cd_images", photos_uri=str(photos), sample_requests=1)
    assert run.state == "success", run.failures
    problems = {
        row["photo"]: row["detail"] for row in read_sheet(tmp_path / "out/catalogue.xlsx", "problems")
    }
    assert set(problems) == {"scan_002.png", "scan_003.png", "scan_004.png"}
    assert all("sample" in detail for detail in problems.values())
    run = trigger("catalog_cd_images", photos_uri=str(photos))
    assert run.state == "success", run.failures
    assert {row["state"] for row in read_sheet(tmp_path / "out/catalogue.xlsx", "results")} == {"good"}
    assert good(openai_server) == 8


@pytest.mark.long
def test_transcripts_are_tagged_but_for_the_one_that_is_filtered(
    trigger: Any, openai_server: OpenAIServer, form_roots: Path, tmp_path: Path
) -> None:
    store = PointStore(collection="transcripts", name="tag_transcripts")
    seed_transcripts(store, SAMPLES / "transcripts")
    rule = openai_server.script(line="content_filter", custom_id="row-9", times=None)
    run = trigger("tag_transcripts", max_failed_fraction=0)
    assert run.state == "failed"
    assert failed_tasks(run) == {"judge"}
    assert "1 of 22 points were not tagged (1 failed)" in run.errors("judge")
    (skipped,) = map(json.loads, (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    assert skipped["reason"].startswith("content_filter")
    assert "| 22 | 21 | 1 |" in (tmp_path / "out" / "summary.md").read_text()
    assert count_tagged(store) == 21

    openai_server.unscript(rule)
    paid = good(openai_server)
    run = trigger("tag_transcripts", max_failed_fraction=0, **REPAIRED)
    assert run.state == "success", run.failures
    assert good(openai_server) == paid + 1
    assert count_tagged(store) == 22
    assert "| 22 | 22 | 0 |" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.long
def test_chunks_have_their_vectors_but_for_the_one_that_is_refused(
    trigger: Any, openai_server: OpenAIServer, form_roots: Path, tmp_path: Path
) -> None:
    store = PointStore(collection="documents", name="embed_documents")
    form = {"documents": f"{shutil.copytree(SAMPLES / 'documents' / 'guides', tmp_path / 'guides')}/"}
    rule = openai_server.script(line="missing_vector", custom_id="row-0", times=None)
    run = trigger("embed_documents", **form, queries=["bread"])
    assert run.state == "failed"
    assert failed_tasks(run) == {"judge"}
    assert "1 chunk got no vector" in run.errors("judge")
    (missing,) = map(json.loads, (tmp_path / "out" / "without_vector.jsonl").read_text().splitlines())
    assert missing["answer_error"].startswith("missing_parts")
    assert count_points(store) == 31
    assert (tmp_path / "out" / "neighbours.md").exists(), "the others are there to be looked at"
    run = trigger("embed_documents", **form, queries=[], max_failed_fraction=0.1)
    assert run.state == "success", "a tenth may be missing"

    openai_server.unscript(rule)
    paid = good(openai_server)
    run = trigger("embed_documents", **form, queries=[], **REPAIRED)
    assert run.state == "success", run.failures
    assert good(openai_server) == paid + 1
    assert count_points(store) == 32


@pytest.mark.long
def test_a_request_file_has_its_answers_and_the_reason_beside_them(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a.jsonl").write_text("".join(f"{chat_line(f'r-{n}', f'a {n}')}\n" for n in range(4)))
    (inbox / "b.jsonl").write_text("".join(f"{chat_line(f'r-{n}', f'b {n}')}\n" for n in range(2)))
    form = {"inbox": f"file://{inbox}", "mode": "batch", "poll_interval": 0.1, "min_age": 0}
    rule = openai_server.script(line="content_filter", contains="a 1", times=None)
    run = run_dag("drain_request_files", form)
    assert run.state == "failed"
    assert failed_tasks(run) == {"publish"}
    assert "repair=true" in "".join(message for _, _, message in run.failures)
    assert len((inbox / "b.output.jsonl").read_text().splitlines()) == 2

    openai_server.unscript(rule)
    paid = good(openai_server)
    run = run_dag("drain_request_files", {**form, **REPAIRED})
    assert run.state == "success", run.failures
    assert good(openai_server) == paid + 1
    answers = [json.loads(line) for line in (inbox / "a.output.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in answers] == [f"r-{n}" for n in range(4)]
    assert {line["response"]["body"]["choices"][0]["finish_reason"] for line in answers} == {"stop"}
    assert not (inbox / "a.error.jsonl").exists()
    (inbox / "b.output.jsonl").unlink()
    run = run_dag("drain_request_files", {**form, "on_existing": "restart"})
    assert run.state == "success", run.failures
    assert good(openai_server) == paid + 1 + 2, (
        "the file without an output is asked about again, and no other"
    )


def read_sheet(path: Path, name: str) -> list[dict[str, Any]]:
    head, *rows = openpyxl.load_workbook(path)[name].iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


def count_tagged(store: PointStore) -> int:
    with store.open() as points:
        return sum("tags" in point.payload for page in points.read_pages(["tags"]) for point in page)


def count_points(store: PointStore) -> int:
    with store.open() as points:
        return points.count()
