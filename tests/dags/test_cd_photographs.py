"""The catalogue of CDs, made one's own: another schema, photographs that come, go and are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest
from PIL import Image, PngImagePlugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

PROMPT = "cd_cover.yaml"
MORE = """
    language:
      type: ["string", "null"]
    tracks:
      type: array
      items: {type: string}
    photo:
      type: string
    label:
"""


def photograph(path: Path, title: str, **facts: Any) -> None:
    """A picture that is described as the drawn samples are."""
    notes = PngImagePlugin.PngInfo()
    said = {"title": title, "artist": "The Paper Lanterns", "year": "(C) 1996", "confidence": 0.9, **facts}
    notes.add_text("Description", json.dumps(said))
    with Image.new("RGB", (123, 77), "navy") as image:
        image.save(path, pnginfo=notes)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    photograph(
        folder / "a.png", "Live at the Granary", language="Finnish", tracks=["One", "=2+3"], photo="front"
    )
    photograph(folder / "b.png", "Harbour Lights", language=None, tracks=[])
    return folder


@pytest.fixture
def dag(copied_dag: Callable[..., DAG]) -> DAG:
    """A copy of the DAG with its reading prompt beside it, changed as a user would."""
    change = ("max_completion_tokens: 300", "max_completion_tokens: 999")
    return copied_dag("catalog_cd_images", PROMPT, change, ("\n    label:\n", MORE))


@pytest.fixture
def own_prompt(dag: DAG) -> Path:
    return Path(dag.fileloc).with_name(PROMPT)


@pytest.fixture
def catalogue(run_dag: RunDag, dag: DAG, photos: Path, tmp_path: Path) -> Callable[..., FinishedRun]:
    """Run the copy."""

    def run(**conf: Any) -> FinishedRun:
        form = {"photos_uri": str(photos), "output_uri": str(tmp_path / "out"), "poll_interval": 0.1}
        return run_dag(dag, {**form, **conf})

    return run


def read_sheet(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    sheet = openpyxl.load_workbook(tmp_path / "out" / "catalogue.xlsx")[name]
    head, *rows = sheet.iter_rows(values_only=True)
    assert len(set(head)) == len(head)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_a_property_added_to_the_prompt_is_a_column_of_the_workbook(
    catalogue: Callable[..., FinishedRun], tmp_path: Path
) -> None:
    run = catalogue()
    assert run.state == "success", run.failures
    first, second = read_sheet(tmp_path, "results")
    assert list(first)[:9] == [
        *("photo", "title", "artist", "year", "label", "catalogue_number"),
        *("language", "tracks", "answer_photo"),
    ]
    assert (first["photo"], first["language"], first["tracks"]) == ("a.png", "Finnish", "One; =2+3")
    assert first["answer_photo"] == "front"
    assert (second["language"], second["tracks"] or "") == (None, "")
    assert (first["title"], first["taken_from"], first["state"]) == (
        "Live at the Granary",
        "catalogue",
        "good",
    )


def test_a_photograph_that_was_replaced_and_put_back_has_its_own_answer_again(
    catalogue: Callable[..., FinishedRun], openai_server: OpenAIServer, photos: Path, tmp_path: Path
) -> None:
    def read_titles() -> list[str]:
        run = catalogue(mode="batch")
        assert run.state == "success", run.failures
        return [row["title"] for row in read_sheet(tmp_path, "results")]

    assert read_titles() == ["Live at the Granary", "Harbour Lights"]
    (photos / "a.png").rename(tmp_path / "kept.png")
    photograph(photos / "a.png", "Another Day at Sea")
    assert read_titles() == ["Another Day at Sea", "Harbour Lights"]
    paid = sum(openai_server.books.good.values())
    (tmp_path / "kept.png").rename(photos / "a.png")
    assert read_titles() == ["Live at the Granary", "Harbour Lights"]
    assert sum(openai_server.books.good.values()) == paid, "nothing is asked twice"


@pytest.mark.long
def test_a_photograph_that_is_gone_leaves_the_results_and_a_rejected_one_is_tried_when_a_setting_changes(
    catalogue: Callable[..., FinishedRun],
    own_prompt: Path,
    openai_server: OpenAIServer,
    photos: Path,
    tmp_path: Path,
) -> None:
    with Image.effect_noise((300, 300), 80) as image:
        image.save(photos / "large.png")
    text = own_prompt.read_text()
    own_prompt.write_text(text.replace("    detail: high", "    detail: high\n    max_bytes: 20000"))
    assert catalogue().state == "success"
    problems = {(row["photo"], row["code"]): row["detail"] for row in read_sheet(tmp_path, "problems")}
    assert "limit 20,000" in problems["large.png", "photo_rejected"]
    paid = sum(openai_server.books.good.values())

    (photos / "b.png").unlink()
    run = catalogue()
    assert run.state == "success", run.failures
    assert not (tmp_path / "out/covers/round-002").exists(), "nothing was to be asked"
    assert [row["photo"] for row in read_sheet(tmp_path, "results")] == ["a.png", "large.png"]
    gone = [row for row in read_sheet(tmp_path, "problems") if row["photo"] == "b.png"]
    assert [(row["code"], row["title"]) for row in gone] == [("photo_gone", "Harbour Lights")]

    own_prompt.write_text(text)
    run = catalogue()
    assert run.state == "success", run.failures
    rows = (tmp_path / "out/covers/round-002/rows.jsonl").read_text().splitlines()
    assert [json.loads(row)["photo"] for row in rows] == ["large.png"]
    states = {row["photo"]: row["problems"] for row in read_sheet(tmp_path, "results")}
    assert "photo_rejected" not in (states["large.png"] or "")
    assert sum(openai_server.books.good.values()) >= paid + 1


@pytest.mark.long
def test_the_first_photographs_first_and_then_the_others(
    catalogue: Callable[..., FinishedRun], openai_server: OpenAIServer, tmp_path: Path
) -> None:
    run = catalogue(sample_requests=1, mode="batch")
    assert run.state == "success", run.failures
    states = {row["photo"]: row["state"] for row in read_sheet(tmp_path, "results")}
    assert states == {"a.png": "good", "b.png": "not yet read"}
    assert sum(openai_server.books.good.values()) == 2, "a cover and its choice"
    (missing,) = (row for row in read_sheet(tmp_path, "problems") if row["photo"] == "b.png")
    assert missing["code"] == "not_yet_read"
    assert "not part of the sample" in missing["detail"]

    run = catalogue(sample_requests=None, mode="batch")
    assert run.state == "success", run.failures
    assert {row["photo"]: row["title"] for row in read_sheet(tmp_path, "results")} == {
        "a.png": "Live at the Granary",
        "b.png": "Harbour Lights",
    }
    assert sum(openai_server.books.good.values()) == 4, "each cover and each choice once"
