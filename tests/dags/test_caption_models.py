"""Captions made one's own: models of several servers, a part of the video, and more frames once the first are good."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

from airflow_openai_batch.testing import OpenAIServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import DAG

    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

ROOT = Path(__file__).resolve().parents[2]
VIDEO = ROOT / "include" / "samples" / "video" / "four_scenes.mp4"


@pytest.fixture
def local(define_connection: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """A second server, behind the connection ``local``, which forms may name."""
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS", "openai_default, local")
    with OpenAIServer() as server:
        define_connection("local", conn_type="openai", password="none-needed", host=server.base_url)
        yield server


def load_own_dag(tmp_path: Path) -> DAG:
    """A copy of the DAG with a third model, as its documentation says."""
    text = (ROOT / "dags" / "caption_video_frames.py").read_text()
    line = 'MODELS = {"model_1": DEFAULT_MODEL, "model_2": COMPARED_MODEL}'
    assert line in text
    text = text.replace(line, line.replace("}", ', "model_3": None}'))
    # Its samples and prompts lie beside it.
    (tmp_path / "own" / "dags").mkdir(parents=True)
    (tmp_path / "own" / "include").symlink_to(ROOT / "include")
    path = tmp_path / "own" / "dags" / "own_captions.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("own_captions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dag: DAG = module.dag
    return dag


def make_conf(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"video_uri": str(VIDEO), "output_uri": str(tmp_path / "out"), "poll_interval": 0.1, **more}


def read_sheet(uri: str, name: str) -> list[dict[str, Any]]:
    sheet = openpyxl.load_workbook(uri.removeprefix("file://"))[name]
    head, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_three_models_of_two_servers_and_a_part_of_the_video(
    run_dag: RunDag, openai_server: OpenAIServer, local: OpenAIServer, tmp_path: Path
) -> None:
    conf = make_conf(
        tmp_path,
        mode="batch",
        start_s=2.5,
        every_s=2,
        model_2="gpt-6-luna",  # the same name at another server
        model_2_conn_id="local",
        model_2_mode="realtime",
        model_3="gpt-5.4-mini",
    )
    run = run_dag(load_own_dag(tmp_path), conf)
    assert run.state == "success", run.failures
    done = run.xcom("compare")
    frames = read_sheet(done["workbook"], "captions")
    assert [row["second"] for row in frames] == [2.5, 4.5, 6.5]
    names = ["gpt-6-luna (batch)", "gpt-6-luna at local (realtime)", "gpt-5.4-mini (batch)"]
    for row, colour in zip(frames, ("green", "red", "black"), strict=True):
        assert row["problems"] is None
        assert all(f"mostly {colour}" in row[name] for name in names), row
    compared = read_sheet(done["workbook"], "comparison")
    assert {(row["model"], row["sent as"], row["captions"]) for row in compared} == {
        ("gpt-6-luna", "batch", 3),
        ("gpt-6-luna at local", "realtime", 3),
        ("gpt-5.4-mini", "batch", 3),
    }
    assert dict(openai_server.books.billed) == {"batch": 6}
    assert dict(local.books.billed) == {"realtime": 3}


@pytest.mark.long
def test_a_sample_is_not_paid_for_twice_when_more_frames_are_wanted(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    conf = make_conf(tmp_path, mode="realtime", model_2=None)
    first = run_dag("caption_video_frames", {**conf, "max_frames": 2})
    assert first.state == "success", first.failures
    second = run_dag("caption_video_frames", {**conf, "max_frames": 5})
    assert second.state == "success", second.failures
    assert openai_server.books.billed["realtime"] == 5
    done = second.xcom("compare")
    assert done["workbook"] == first.xcom("compare")["workbook"]
    frames = read_sheet(done["workbook"], "captions")
    assert [row["second"] for row in frames] == [0, 1, 2, 3, 4]
    assert all(row["gpt-6-luna (realtime)"] for row in frames)
    (compared,) = read_sheet(done["workbook"], "comparison")
    assert (compared["frames"], compared["captions"]) == (5, 5)
    (before,) = first.xcom("compare")["outcomes"]
    assert compared["input tokens"] == pytest.approx(before["input tokens"] * 5 / 2, rel=0.02)

    third = run_dag("caption_video_frames", {**conf, "max_frames": 3})
    assert third.state == "success", third.failures
    assert openai_server.books.billed["realtime"] == 5
