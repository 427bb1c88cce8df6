"""Request files dropped into a directory: what lies beside them afterwards, and what a later run leaves alone."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.recipes.inbox.inbox import open_inbox
from airflow_openai_batch.recipes.inbox.pending_files import find_jobs
from fixtures.job import chat_line
from fixtures.request_files import list_names, make_drain, read_lines, write_requests

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag
    from fixtures.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("openai_conn")
DAG_ID = "drain_request_files"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Two files, of four and three requests, whose ids are the same."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    write_requests(folder / "shard-000-of-002.jsonl", "a", 4)
    write_requests(folder / "shard-001-of-002.jsonl", "b", 3)
    return folder


@pytest.fixture
def drain(run_dag: RunDag, inbox: Path) -> Any:
    return make_drain(run_dag, inbox)


def test_answers_lie_beside_the_files_under_gpt_batch_managers_names_and_are_left_alone(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    (inbox / "old.jsonl").write_text(chat_line("old") + "\n")
    (inbox / "old.output.jsonl").write_text("by gpt-batch-manager\n")
    run = drain()
    assert run.state == "success", run.failures
    assert list_names(inbox) == [
        "old.jsonl",
        "old.output.jsonl",
        "shard-000-of-002.jsonl",
        "shard-000-of-002.output.jsonl",
        "shard-001-of-002.jsonl",
        "shard-001-of-002.output.jsonl",
    ]
    assert len(openai_server.batches()) == 4
    for name, text, requests in (("shard-000", "a", 4), ("shard-001", "b", 3)):
        lines = read_lines(inbox / f"{name}-of-002.output.jsonl")
        assert [line["custom_id"] for line in lines] == [f"r-{n}" for n in range(requests)]
        for n, line in enumerate(lines):
            answer = line["response"]["body"]["choices"][0]["message"]["content"]
            assert f"{text} {n}: lovely" in answer
    raw = b"".join(path.read_bytes() for path in sorted(inbox.glob("_batch/*/raw/*.output.jsonl")))
    delivered = b"".join(path.read_bytes() for path in sorted(inbox.glob("shard*.output.jsonl")))
    assert sorted(delivered.splitlines()) == sorted(raw.splitlines()), "verbatim"

    (inbox / "shard-000-of-002.jsonl").touch()
    assert find_jobs(open_inbox(str(inbox)), max_files=10, min_age_s=0) == []


@pytest.mark.long
def test_a_new_file_is_a_new_job_a_copy_or_a_lost_output_costs_nothing(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    assert drain().state == "success"
    first = (inbox / "shard-000-of-002.output.jsonl").read_bytes()
    (inbox / "shard-000-of-002.output.jsonl").unlink()
    shutil.copy(inbox / "shard-001-of-002.jsonl", inbox / "copy.jsonl")
    write_requests(inbox / "new.jsonl", "c", 2)
    run = drain()
    assert run.state == "success", run.failures
    assert (inbox / "shard-000-of-002.output.jsonl").read_bytes() == first
    assert (inbox / "copy.output.jsonl").read_bytes() == (
        inbox / "shard-001-of-002.output.jsonl"
    ).read_bytes()
    assert len(read_lines(inbox / "new.output.jsonl")) == 2
    assert openai_server.books.billed["batch"] == 7 + 2
    assert set(run.labels.values()) >= {"new.jsonl"}


def test_a_copy_of_the_dag_that_is_older_than_its_own_task_for_it_delivers_known_answers_too(
    drain: Any, openai_server: OpenAIServer, inbox: Path, run_dag: RunDag, copied_dag: Any
) -> None:
    assert drain().state == "success"
    (inbox / "shard-000-of-002.output.jsonl").unlink()
    older = [
        ("known = deliver_again(XComArg(found.operator, key=draining.ANSWERED))", ""),
        ("[split, drained, known]", "[split, drained]"),
    ]
    run = run_dag(
        copied_dag(DAG_ID, "sentiment.yaml", code=older), {"inbox": f"file://{inbox}", "min_age": 0}
    )
    assert run.state == "success", run.failures
    assert len(read_lines(inbox / "shard-000-of-002.output.jsonl")) == 4
    assert openai_server.books.billed["batch"] == 7


def test_compressed_files_and_names_in_capitals_are_drained_and_a_bad_file_is_red_once(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    plain = inbox / "shard-000-of-002.jsonl"
    (inbox / "Packed.JSONL.GZ").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    (inbox / "shard-001-of-002.jsonl").rename(inbox / "LOUD.JSONL")
    write_requests(inbox / "LOUD.jsonl.gz", "not packed, and of the same output as the one above", 1)
    (inbox / "broken.jsonl").write_text("not json\n")
    run = drain(max_requests_per_shard=50)
    assert {
        (task, state) for (task, _), state in run.states.items() if state not in ("success", "skipped")
    } == {("split", "failed"), ("all_files_delivered", "upstream_failed")}
    assert run.state == "failed"
    assert list_names(inbox) == [
        "LOUD.JSONL",
        "LOUD.jsonl.gz",
        "LOUD.output.jsonl",
        "Packed.JSONL.GZ",
        "Packed.output.jsonl",
        "broken.jsonl",
    ]
    assert len(read_lines(inbox / "Packed.output.jsonl")) == 4
    assert [line["custom_id"] for line in read_lines(inbox / "LOUD.output.jsonl")] == ["r-0", "r-1", "r-2"]
    assert {run.labels["publish", at] for at in (0, 1)} == {"LOUD.JSONL", "Packed.JSONL.GZ"}
    assert sum(openai_server.books.billed.values()) == 7
    shutil.copy(inbox / "LOUD.output.jsonl", inbox / "kept.OUTPUT.jsonl")
    found = find_jobs(open_inbox(str(inbox)), max_files=10, min_age_s=0)
    assert [job.names for job in found] == [["broken.jsonl"]], "answers are no requests"


def test_a_file_that_may_still_grow_waits_and_the_log_says_for_how_long(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = time.time() - 60
    os.utime(inbox / "shard-000-of-002.jsonl", (old, old))
    (job,) = find_jobs(open_inbox(str(inbox)), max_files=10, min_age_s=30)
    assert job.names == ["shard-000-of-002.jsonl"]
    (told,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert "shard-001-of-002.jsonl was written" in told
    assert "left for the next run" in told


def test_a_run_is_red_where_answers_could_not_be_delivered(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    in_the_way = inbox / "shard-000-of-002.output.jsonl"
    in_the_way.mkdir()
    run = drain(max_requests_per_shard=50)
    assert run.state == "failed"
    assert {
        (task, state) for (task, _), state in run.states.items() if state not in ("success", "skipped")
    } == {("shard.deliver", "failed"), ("all_files_delivered", "upstream_failed")}
    in_the_way.rmdir()
    run = drain(max_requests_per_shard=50)
    assert run.state == "success", run.failures
    assert len(read_lines(in_the_way)) == 4
    assert openai_server.books.billed["batch"] == 7


def test_known_answers_that_cannot_be_delivered_hold_up_no_other_file(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    assert drain(max_requests_per_shard=50).state == "success"
    in_the_way = inbox / "shard-000-of-002.output.jsonl"
    in_the_way.unlink()
    in_the_way.mkdir()
    for copy in ("before.jsonl", "xerox.jsonl"):
        shutil.copy(inbox / "shard-000-of-002.jsonl", inbox / copy)
    write_requests(inbox / "new.jsonl", "c", 2)
    run = drain(max_requests_per_shard=50)
    assert len(read_lines(inbox / "new.output.jsonl")) == 2, run.failures
    assert (
        len(read_lines(inbox / "before.output.jsonl")) == len(read_lines(inbox / "xerox.output.jsonl")) == 4
    )
    assert run.state == "failed", "one has no answers beside it"
    assert {
        (task, state) for (task, _), state in run.states.items() if state not in ("success", "skipped")
    } == {("deliver_known", "failed"), ("all_files_delivered", "upstream_failed")}
    assert str(in_the_way) in run.errors("deliver_known")
    run = drain(max_requests_per_shard=50)
    assert run.state == "failed", "also where nothing else is there to do"
    in_the_way.rmdir()
    assert drain(max_requests_per_shard=50).state == "success"
    assert len(read_lines(in_the_way)) == 4
    assert openai_server.books.billed["batch"] == 7 + 2


def test_a_copy_of_a_file_whose_repair_was_broken_off_gets_its_answers(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    (inbox / "shard-001-of-002.jsonl").unlink()
    openai_server.script(line=400, contains="a 1", times=1)
    assert drain(max_requests_per_shard=50, max_failed_fraction=1).state == "success"
    (report,) = inbox.glob("_batch/*/report.json")
    complete = report.read_bytes()
    broken = openai_server.script(batch="failed", code="model_not_found", times=1)
    assert drain(max_requests_per_shard=50, repair=True).state == "failed"
    report.write_bytes(complete)  # as where somebody marks the run as failed: it publishes nothing
    assert openai_server.hits(broken) == 1
    shutil.copy(inbox / "shard-000-of-002.jsonl", inbox / "copy.jsonl")
    run = drain(max_requests_per_shard=50, max_failed_fraction=1)
    assert run.state == "success", run.failures
    assert "copy.output.jsonl" in list_names(inbox)
    assert sum(openai_server.books.good_by_custom_id.values()) == 4


@pytest.mark.parametrize("letter", ["x", "長"])
def test_a_file_whose_answers_would_have_too_long_a_name_is_left_alone_before_it_costs(
    inbox: Path, letter: str, caplog: pytest.LogCaptureFixture
) -> None:
    width = len(letter.encode())
    longest, too_long = ((letter * (size // width)) + ".jsonl" for size in (204, 210))
    for name in (longest, too_long, letter * (249 // width) + ".jsonl"):
        write_requests(inbox / name, name, 1)
    place = open_inbox(str(inbox))
    found = find_jobs(place, max_files=10, min_age_s=0)
    assert longest in [name for job in found for name in job.names]
    assert len(found) == 3, "the others are the two that lie there anyway"
    place.output(longest).write_bytes(b"an answer")
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len([each for each in told if each.startswith(f"{too_long}: ")]) == 1, told
    assert len(told) == 2
    assert "Rename it" in told[0]


def test_more_than_airflow_maps_over_is_left_for_the_next_run_or_refused_by_name(
    drain: Any, openai_server: OpenAIServer, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    write_requests(inbox / "third.jsonl", "c", 1)
    run = drain()
    assert len(run.xcom("find_files")) == 2
    assert run.state == "failed"
    assert "make 4 shards" in run.errors("collect")
    assert "allows 2 mapped tasks" in run.errors("collect")
    assert openai_server.files() == []
    while len([name for name in list_names(inbox) if name.endswith(".output.jsonl")]) < 3:
        run = drain(max_files=1)
        assert run.state == "success", run.failures
    assert openai_server.books.billed["batch"] == 8


def test_an_empty_file_may_be_skipped(drain: Any, inbox: Path) -> None:
    (inbox / "shard-001-of-002.jsonl").write_text("\n\n")
    run = drain(max_requests_per_shard=50, on_empty="skip")
    assert run.state == "success", run.failures
    assert len(read_lines(inbox / "shard-000-of-002.output.jsonl")) == 4


@pytest.mark.long
def test_a_bad_file_holds_up_no_other_and_what_failed_goes_on_when_triggered_again(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    (inbox / "broken.jsonl").write_text("not json\n" + chat_line("x") + "\n")
    refused = openai_server.script(batch="failed", code="model_not_found", shard=1, times=1)
    run = drain()
    assert run.state == "failed"
    assert "1 line of 2 cannot be sent" in "".join(message for _, _, message in run.failures)
    assert openai_server.hits(refused) == 1
    outputs = [name for name in list_names(inbox) if name.endswith(".output.jsonl")]
    assert len(outputs) == 1, "one of the two good files met a refusal in its second shard"
    answered = openai_server.books.billed["batch"]
    assert answered < 7
    write_requests(inbox / "broken.jsonl", "mended", 1)
    run = drain(mode="auto")
    assert run.state == "success", run.failures
    assert len([name for name in list_names(inbox) if name.endswith(".output.jsonl")]) == 3
    assert sum(openai_server.books.billed.values()) == 7 + 1, "what was answered is not asked again"


@pytest.mark.long
def test_requests_without_an_answer_stand_in_the_error_file(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    openai_server.script(line=400, contains="a 1", times=None)
    openai_server.script(line="missing", contains="a 2", times=None)
    openai_server.script(line=500, contains="a 3", times=1)
    with (inbox / "shard-000-of-002.jsonl").open("a") as file:
        file.write("not json\n")
    run = drain(on_bad_line="reject", max_failed_fraction=1, max_attempts=2)
    assert run.state == "success", run.failures
    assert [line["custom_id"] for line in read_lines(inbox / "shard-000-of-002.output.jsonl")] == [
        "r-0",
        "r-3",
    ]
    errors = {line["custom_id"]: line for line in read_lines(inbox / "shard-000-of-002.error.jsonl")}
    assert errors["r-1"]["response"]["status_code"] == 400
    assert errors["r-2"]["error"]["code"] == "missing"
    assert errors[None]["error"]["code"] == "invalid_json"
    assert "shard-001-of-002.error.jsonl" not in list_names(inbox)


@pytest.mark.long
def test_an_untouched_form_drains_the_samples(run_dag: RunDag, openai_server: OpenAIServer) -> None:
    run = run_dag(DAG_ID)
    assert run.state == "success", run.failures
    (job, *_) = run.xcom("find_files")
    folder = Path(job["input_uri"].removeprefix("file://")).parent
    lines = [
        line
        for name in ("shard-000", "shard-001")
        for line in read_lines(folder / f"{name}-of-002.output.jsonl")
    ]
    assert [line["custom_id"] for line in lines] == [f"ticket-{n}" for n in range(1, 9)]
    words = {line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
    assert words <= {"billing", "bug", "question"}


def test_where_nothing_waits_nothing_is_sent(drain: Any, openai_server: OpenAIServer, inbox: Path) -> None:
    run = drain(min_age=3_600)
    assert run.state == "success"
    for task in ("find_files", "all_files_delivered"):  # the latter runs nothing
        assert run.states.pop((task, -1)) == "success"
    assert set(run.states.values()) == {"skipped"}
    assert openai_server.files() == []


@pytest.mark.long
@pytest.mark.usefixtures("form_names_s3")
def test_an_inbox_may_lie_in_an_object_store(run_dag: RunDag, s3: ObjectStore) -> None:
    s3.put("in/a.jsonl", "\n".join(chat_line(f"r-{n}") for n in range(3)).encode())
    run = run_dag(DAG_ID, {"inbox": s3.uri("in"), "mode": "realtime", "min_age": 0})
    assert run.state == "success", run.failures
    lines = [json.loads(line) for line in s3.get("in/a.output.jsonl").splitlines()]
    assert [line["custom_id"] for line in lines] == ["r-0", "r-1", "r-2"]
    assert find_jobs(open_inbox(s3.uri("in/")), max_files=10, min_age_s=0) == []
    s3.put("in/a.jsonl", s3.get("in/a.jsonl"))
    assert find_jobs(open_inbox(s3.uri("in/")), max_files=10, min_age_s=0) == [], "written again, unchanged"
    s3.put("in/b.jsonl", b"{}")
    assert find_jobs(open_inbox(s3.uri("in/")), max_files=10, min_age_s=3_600) == []
    (job,) = find_jobs(open_inbox(s3.uri("in/")), max_files=10, min_age_s=0)
    assert (job.names, job.landed) == (["b.jsonl"], False)


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_that_came_in_pieces_are_delivered_each_under_the_number_of_its_input(
    drain: Any, openai_server: OpenAIServer, inbox: Path, form: str
) -> None:
    def line(custom_id: str, *given: str) -> str:
        body = {"model": "text-embedding-3-small", "dimensions": 4, "encoding_format": form, "input": given}
        return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body})

    def read_vectors(name: str) -> list[list[list[float]]]:
        bodies = [each["response"]["body"] for each in read_lines(inbox / f"{name}.output.jsonl")]
        for body in bodies:
            assert [each["index"] for each in body["data"]] == list(range(len(body["data"])))
        return [[unpack(each["embedding"]) for each in body["data"]] for body in bodies]

    def unpack(given: Any) -> list[float]:
        is_packed = form == "base64"
        assert isinstance(given, str) == is_packed
        values = struct.unpack("<4f", base64.b64decode(given)) if is_packed else given
        return [round(value, 6) for value in values]

    for path in inbox.iterdir():
        path.unlink()
    (inbox / "whole.jsonl").write_text(line("r0", "red", "green", "blue") + "\n" + line("r1", "one") + "\n")
    assert drain().state == "success"
    openai_server.script(line="missing_vector", contains="red")
    (inbox / "pieces.jsonl").write_text(line("r0", "red", "green", "blue") + "\n" + line("r1", "one"))
    run = drain()
    assert run.state == "success", run.failures
    assert read_vectors("pieces") == read_vectors("whole")
