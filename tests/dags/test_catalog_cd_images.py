"""From photographs of CD covers to a workbook, through the DAG's front door, with the sheets read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

SAMPLES = Path(__file__).resolve().parents[2] / "include" / "samples" / "cd_covers"
DAG_ID = "catalog_cd_images"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A copy of the samples, to be added to and mended."""
    return Path(shutil.copytree(SAMPLES / "photos", tmp_path / "photos"))


def make_conf(photos: Path, **more: Any) -> dict[str, Any]:
    output = photos.parent / "out"
    return {"photos_uri": str(photos), "output_uri": str(output), "poll_interval": 0.1, **more}


def read_sheet(photos: Path, name: str) -> list[dict[str, Any]]:
    sheet = openpyxl.load_workbook(photos.parent / "out" / "catalogue.xlsx")[name]
    head, *rows = sheet.iter_rows(values_only=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


def read_codes(photos: Path) -> set[tuple[str, str]]:
    return {(row["photo"], row["code"]) for row in read_sheet(photos, "problems")}


def test_covers_become_a_workbook_with_results_and_problems(
    run_dag: RunDag, openai_server: OpenAIServer, photos: Path
) -> None:
    run = run_dag(DAG_ID, make_conf(photos))
    assert run.state == "success", run.failures
    results = {row["photo"]: row for row in read_sheet(photos, "results")}
    assert len(results) == 13
    found = results["scan_007.png"]
    assert (found["title"], found["artist"]) == ("Live at the Granary", "The Paper Lanterns")
    assert (found["year"], found["catalogue_id"], found["state"]) == (1996, "lib-00019", "good")
    assert results["scan_002.png"]["title"] == "Northbound"
    assert read_codes(photos) == {
        ("scan_006.png", "duplicate"),
        ("scan_009.png", "unsure"),
        ("scan_009.png", "no_title"),
        ("scan_009.png", "no_artist"),
        ("scan_009.png", "no_year"),
        ("scan_010.png", "year_differs"),
        ("scan_010.png", "weak_match"),
        ("scan_011.png", "no_candidate"),
        ("scan_013.png", "photo_rejected"),
    }
    billed = openai_server.books.billed
    assert billed["batch"] == 12, "the covers were too many for real time"
    assert billed["flex"] == 10, "the choices were few enough"
    assert sum(row["cost_usd"] or 0 for row in results.values()) > 0


@pytest.mark.long
def test_a_second_run_sends_only_what_failed_or_is_new(
    run_dag: RunDag, openai_server: OpenAIServer, photos: Path
) -> None:
    for path in sorted(photos.iterdir())[4:]:
        path.unlink()  # four photographs will do
    # The third photograph, and the third choice, which is about the fourth.
    rule = openai_server.script(line=400, code="invalid_request_error", custom_id="row-2", times=None)
    assert run_dag(DAG_ID, make_conf(photos, mode="batch")).state == "success"
    assert read_codes(photos) == {("scan_003.png", "not_read"), ("scan_004.png", "not_judged")}
    openai_server.unscript(rule)
    shutil.copy(SAMPLES / "photos" / "scan_012.png", photos)

    again = run_dag(DAG_ID, make_conf(photos))
    assert again.state == "success", again.failures
    rows = (photos.parent / "out/covers/round-002/rows.jsonl").read_text().splitlines()
    assert [json.loads(row)["photo"] for row in rows] == ["scan_003.png", "scan_012.png"]
    paid = sum(openai_server.books.good.values())
    assert paid == 10, "five photographs and their five choices, each paid for once"
    assert {row["state"] for row in read_sheet(photos, "results")} == {"good"}


@pytest.mark.long
def test_without_anything_new_the_model_is_not_asked_and_a_limit_is_applied_anew(
    run_dag: RunDag, openai_server: OpenAIServer, photos: Path
) -> None:
    for path in sorted(photos.iterdir())[1:]:
        path.unlink()
    assert run_dag(DAG_ID, make_conf(photos)).state == "success"
    assert read_codes(photos) == set()
    run = run_dag(DAG_ID, make_conf(photos, min_confidence=0.99))
    assert run.state == "success"
    assert run.states[("read_covers.publish", -1)] == run.states[("join_choices", -1)] == "skipped"
    assert sum(openai_server.books.good.values()) == 2
    assert read_codes(photos) == {("scan_001.png", "unsure")}


@pytest.mark.long
def test_where_every_photograph_is_damaged_the_workbook_says_so(
    run_dag: RunDag, openai_server: OpenAIServer, photos: Path
) -> None:
    for path in sorted(photos.iterdir())[:-1]:
        path.unlink()
    run = run_dag(DAG_ID, make_conf(photos))
    assert run.state == "success", run.failures
    assert read_codes(photos) == {("scan_013.png", "photo_rejected")}
    assert not openai_server.books.billed
