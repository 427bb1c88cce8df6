"""A request file that is renamed, or removed while a copy is left, before its job is done."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.request_files import list_names, make_drain, read_lines, write_requests

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """One file, of four requests."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    write_requests(folder / "first.jsonl", "a", 4)
    return folder


@pytest.fixture
def drain(run_dag: RunDag, inbox: Path) -> Any:
    return make_drain(run_dag, inbox)


def _file_renamed_under_way(drain: Any, server: OpenAIServer, inbox: Path) -> tuple[Path, Path]:
    """A job of two shards, one of which is not done, and its file under its old and its new name."""
    server.script(batch="failed", code="model_not_found", shard=1, times=1)
    assert drain().state == "failed"
    old = inbox / "first.jsonl"
    return old, old.rename(inbox / "renamed.jsonl")


def test_a_file_renamed_under_way_is_red_in_words_that_name_both_and_costs_nothing(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    old, new = _file_renamed_under_way(drain, openai_server, inbox)
    billed = openai_server.books.billed["batch"]
    write_requests(inbox / "other.jsonl", "c", 2)
    run = drain()
    assert run.state == "failed"
    assert {
        (task, state) for (task, _), state in run.states.items() if state not in ("success", "skipped")
    } == {("deliver_known", "failed"), ("all_files_delivered", "upstream_failed")}
    told = run.errors("deliver_known")
    assert old.name in told
    assert new.name in told
    assert "restart" not in told
    assert len(read_lines(inbox / "other.output.jsonl")) == 2, "it holds up no other"
    assert openai_server.books.billed["batch"] == billed + 2
    new.rename(old)
    run = drain()
    assert run.state == "success", run.failures
    assert len(read_lines(inbox / "first.output.jsonl")) == 4
    assert openai_server.books.billed["batch"] == 4 + 2, "what was answered is not asked again"


def test_a_copy_gets_its_answers_once_the_file_that_the_job_is_for_is_back(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    old, new = _file_renamed_under_way(drain, openai_server, inbox)
    write_requests(old, "another content under the old name", 1)
    run = drain()
    assert f"{old.name}: has another content now" in run.errors("deliver_known")
    assert "renamed.output.jsonl" not in list_names(inbox)
    shutil.copy(new, old)
    run = drain()
    assert run.state == "success", run.failures
    assert (
        len(read_lines(inbox / "renamed.output.jsonl")) == len(read_lines(inbox / "first.output.jsonl")) == 4
    )


def test_a_renamed_file_may_be_paid_again_and_goes_on_under_its_new_name(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    old, new = _file_renamed_under_way(drain, openai_server, inbox)
    openai_server.script(batch="failed", code="model_not_found", shard=1, times=1)
    assert drain(on_existing="restart").state == "failed"
    shutil.copy(new, old)
    run = drain()
    assert run.state == "success", run.failures
    assert (
        len(read_lines(inbox / "renamed.output.jsonl")) == len(read_lines(inbox / "first.output.jsonl")) == 4
    )


def test_a_repair_of_a_renamed_file_is_red_in_the_same_words(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    openai_server.script(line=400, contains="a 1", times=1)
    assert drain(max_requests_per_shard=50, max_failed_fraction=1).state == "success"
    old = inbox / "first.jsonl"
    old.rename(inbox / "renamed.jsonl")
    run = drain(repair=True)
    assert run.state == "failed"
    assert old.name in run.errors("deliver_known")
    run = drain(max_failed_fraction=1)
    assert run.state == "success", "it has its answers, good or not"
    assert "renamed.output.jsonl" in list_names(inbox)


def test_a_moved_inbox_is_red_in_words_that_name_both_places(
    drain: Any, openai_server: OpenAIServer, inbox: Path
) -> None:
    openai_server.script(batch="failed", code="model_not_found", shard=1, times=1)
    assert drain().state == "failed"
    moved = inbox.rename(inbox.with_name("elsewhere"))
    told = drain(inbox=f"file://{moved}").errors("deliver_known")
    assert f"file://{inbox}" in told
    assert f"file://{moved}" in told
    moved.rename(inbox)
    run = drain()
    assert run.state == "success", run.failures
    assert openai_server.books.billed["batch"] == 4
