"""Whoever may write into a folder may put something there that never ends, or that is larger than any memory: nobody
waits for the one, and no API server reads the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.errors import ConfigError, InputError, JobError
from airflow_openai_batch.job.open_plan import open_plan
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.operators.task.prompt_files import load_prompt
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.plugin.directories import Directory
from airflow_openai_batch.recipes.qdrant.document_files import find_documents, read_files
from airflow_openai_batch.report.snapshot import SnapshotReader
from airflow_openai_batch.storage.location import resolve_plain
from fixtures.job import chat_line

PIPE = "is a device or a pipe"


def test_a_plan_that_is_a_pipe_holds_up_no_page(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    page = Directory(str(tmp_path))
    page.look()
    assert page.error is not None
    assert PIPE in page.error


def test_nor_a_worker(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    with pytest.raises(InputError, match=PIPE):
        open_plan(resolve_plain(str(tmp_path)))


@pytest.mark.parametrize("named", ["{}/pipe.yaml", "file://{}/pipe.yaml"])
def test_a_prompt_that_is_a_pipe_is_refused(tmp_path: Path, named: str) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises((ConfigError, InputError)):
        load_prompt(named.format(tmp_path), {}, None, Giver.CODE)


def test_a_document_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match=PIPE):
        list(read_files(*find_documents(str(tmp_path / "pipe.txt"))))


@pytest.mark.parametrize("name", ["plan.json", "report.json"])
def test_the_page_reads_nothing_larger_than_its_memory(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.jsonl").write_text(f"{chat_line('1')}\n")
    job = resolve_plain(f"file://{tmp_path}/job")
    split_job(str(tmp_path / "in.jsonl"), job, resolve=resolve_plain, limits=ShardLimits(), now=1.0)
    with (tmp_path / "job" / name).open("wb") as file:
        file.truncate(2**33)  # of which a disk holds nothing
    with pytest.raises(JobError, match="8,589,934,592 bytes"):
        SnapshotReader(job).read()
