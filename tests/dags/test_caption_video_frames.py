"""From a video to captions of two models in two ways, with the workbook and the report read back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

SAMPLE = Path(__file__).resolve().parents[2] / "include" / "samples" / "video" / "four_scenes.mp4"
DAG_ID = "caption_video_frames"


def make_conf(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"video_uri": str(SAMPLE), "output_uri": str(tmp_path / "out"), "poll_interval": 0.1, **more}


def read_sheet(uri: str, name: str) -> list[dict[str, Any]]:
    sheet = openpyxl.load_workbook(uri.removeprefix("file://"))[name]
    head, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_models_and_ways_are_compared(run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.script(http="POST /v1/**", delay_s=0.1, times=None)  # seconds are told in tenths
    run = run_dag(DAG_ID, make_conf(tmp_path, every_s=2))
    assert run.state == "success", run.failures
    done = run.xcom("compare")
    frames = read_sheet(done["workbook"], "captions")
    assert [row["second"] for row in frames] == [0, 2, 4, 6]
    for name in ("gpt-6-luna", "gpt-5.4-mini"):
        told = [row[f"{name} (realtime)"] for row in frames]
        assert told == [row[f"{name} (batch)"] for row in frames]
        scenes = zip(("blue", "green", "red", "black"), told, strict=True)
        assert all(f"mostly {colour}" in text for colour, text in scenes), told
    compared = {(row["model"], row["sent as"]): row for row in read_sheet(done["workbook"], "comparison")}
    assert len(compared) == 4
    for (_, way), row in compared.items():
        assert row["captions"] == row["frames"] == 4
        assert row["seconds"] > 0
        factor = 2 if way == "batch" else 0.5
        assert row["USD sent the other way"] == pytest.approx(factor * row["cost USD"])
    books = openai_server.books
    assert (books.billed["batch"], books.billed["realtime"]) == (8, 8)
    report = Path(done["report"].removeprefix("file://")).read_text()
    assert "gpt-6-luna: real time took" in report
    assert "mostly blue" in report


@pytest.mark.long
def test_a_second_run_adds_the_other_way_and_pays_nothing_twice(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    conf = make_conf(tmp_path, max_frames=2, model_2=None)
    first = run_dag(DAG_ID, {**conf, "mode": "realtime", "tier": "2"})
    assert first.state == "success", first.failures
    assert first.states[("model_1_batch.caption.publish", -1)] == "skipped"
    assert [each["sent as"] for each in first.xcom("compare")["outcomes"]] == ["realtime"]
    second = run_dag(DAG_ID, conf)
    assert second.state == "success", second.failures
    assert [each["sent as"] for each in second.xcom("compare")["outcomes"]] == ["realtime", "batch"]
    books = openai_server.books
    assert (books.billed["realtime"], books.billed["batch"]) == (2, 2)


@pytest.mark.long
def test_what_is_no_video_is_named(run_dag: RunDag, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video at all" * 100)
    run = run_dag(DAG_ID, make_conf(tmp_path, video_uri=str(text)))
    assert run.state == "failed"
    assert "notes.mp4: cannot be read as a video" in run.errors("extract_frames")
