"""Run again with another prompt or model into the same directory: no result has answers to both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

ROOT = Path(__file__).resolve().parents[2]
VIDEO = ROOT / "include" / "samples" / "video" / "four_scenes.mp4"


def change(dag: DAG, prompt: str, old: str, new: str) -> None:
    """Of a copied DAG, as its author would."""
    file = Path(dag.fileloc).with_name(prompt)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def read_sheet(file: Path, name: str) -> list[dict[str, Any]]:
    head, *rows = openpyxl.load_workbook(file)[name].iter_rows(values_only=True)
    return [dict(zip(map(str, head), row, strict=True)) for row in rows]


def test_captions_of_two_prompts_never_stand_in_one_report(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Callable[..., DAG]
) -> None:
    dag = copied_dag("caption_video_frames", "frame_caption.yaml")
    form = {
        "video_uri": str(VIDEO),
        "output_uri": str(tmp_path / "out"),
        "poll_interval": 0.1,
        "mode": "realtime",
        "model_2": None,
    }

    def count_paid() -> int:
        return sum(openai_server.books.good.values())

    first = run_dag(dag, {**form, "max_frames": 4})
    assert first.state == "success", first.failures
    change(dag, "frame_caption.yaml", "A caption, for", "One caption, for")
    assert run_dag(dag, {**form, "max_frames": 4}).state == "success", "it asks the same"
    assert count_paid() == 4

    change(dag, "frame_caption.yaml", "\nuser: ", "\nsystem: In French.\nuser: ")
    second = run_dag(dag, {**form, "max_frames": 6})
    assert second.state == "failed"
    assert "changed: what the prompt frame_caption says" in second.errors("choose")
    assert count_paid() == 4, "nothing was asked"

    anew = run_dag(dag, {**form, "max_frames": 2, "on_existing": "restart"})
    assert anew.state == "success", anew.failures
    assert count_paid() == 4 + 2
    frames = read_sheet(Path(anew.xcom("compare")["workbook"].removeprefix("file://")), "captions")
    (compared,) = anew.xcom("compare")["outcomes"]
    assert (compared["frames"], compared["captions"]) == (2, 2), "those of the first prompt are put aside"
    assert [row["problems"] is None for row in frames] == [True, True, False, False, False, False]

    more = run_dag(dag, {**form, "max_frames": 6, "on_existing": "resume"})
    assert more.state == "success", more.failures
    assert count_paid() == 4 + 6
    (compared,) = more.xcom("compare")["outcomes"]
    assert (compared["frames"], compared["captions"]) == (6, 6)


@pytest.mark.parametrize("step", ["cd_cover.yaml", "cd_choice.yaml"])
def test_covers_read_by_two_prompts_never_stand_in_one_catalogue(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Callable[..., DAG], step: str
) -> None:
    dag = copied_dag("catalog_cd_images", step)
    form = {"output_uri": str(tmp_path / "out"), "poll_interval": 0.1}
    first = run_dag(dag, form)
    assert first.state == "success", first.failures
    paid = sum(openai_server.books.good.values())
    change(dag, step, "\nuser: ", "\nversion: 7\nuser: ")
    second = run_dag(dag, form)
    assert second.state == "failed"
    lists = "list_photos" if step == "cd_cover.yaml" else "list_choices"
    assert "version 7" in second.errors(lists)
    assert sum(openai_server.books.good.values()) == paid
    anew = run_dag(dag, {**form, "on_existing": "restart"})
    assert anew.state == "success", anew.failures
    assert sum(openai_server.books.good.values()) == 2 * paid
    again = run_dag(dag, {**form, "on_existing": "resume"})
    assert again.state == "success", again.failures
    assert sum(openai_server.books.good.values()) == 2 * paid


def test_another_model_reads_what_failed_and_no_new_covers(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    form = {"output_uri": str(tmp_path / "out"), "poll_interval": 0.1, "mode": "batch"}
    rule = openai_server.script(line=400, every=5, times=None)
    assert run_dag("catalog_cd_images", form).state == "success"
    openai_server.unscript(rule)
    run = run_dag("catalog_cd_images", {**form, "model": "gpt-5.4-mini"})
    assert run.state == "failed"
    assert "the model (was gpt-6-luna, now gpt-5.4-mini)" in run.errors("list_photos")
    repaired = run_dag("catalog_cd_images", {**form, "model": "gpt-5.4-mini", "repair": True})
    assert repaired.state == "success", repaired.failures
    rows = (tmp_path / "out/covers/round-002/answers.jsonl").read_text().splitlines()
    assert {json.loads(row)["answer_model"] for row in rows} == {"gpt-5.4-mini"}
    back = run_dag("catalog_cd_images", {**form, "model": "gpt-6-luna", "repair": False})
    assert back.state == "success", back.failures
