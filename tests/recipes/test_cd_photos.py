"""Which photographs a round takes, and which leave the results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.recipes.cds.cd_photos import PresentPhotos, list_photos
from airflow_openai_batch.recipes.json_rows import read_rows, write_rows
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.prepared import ask


@pytest.fixture
def output(tmp_path: Path) -> Location:
    return resolve_plain(str(tmp_path / "out"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.JPG", "b.heic", "sub/c.tiff"):
        (folder / name).write_bytes(name.encode())
    return folder


def prompt(**image: Any) -> Any:
    return ask(user="What?", images=[{"column": "photo_uri", **image}])


def begin(photos: Path, output: Location, spec: Any, **how: Any) -> list[dict[str, Any]]:
    place = list_photos(str(photos), output, spec, **how)
    return [] if place is None else list(read_rows(resolve_plain(f"{place}/rows.jsonl"), made_by="test"))


def answer(output: Location, number: int, rows: list[dict[str, Any]], **statuses: str) -> None:
    told = [{**row, "answer_status": statuses.get(row["photo"][0], "ok")} for row in rows]
    write_rows(output.child(f"covers/round-00{number}/answers.jsonl"), told)


def test_a_rejected_photograph_is_tried_again_when_what_rejected_it_changes(
    photos: Path, output: Location
) -> None:
    rows = begin(photos, output, prompt())
    assert [row["photo"] for row in rows] == ["a.JPG", "b.heic", "sub/c.tiff"]
    answer(output, 1, rows, b="rejected")
    assert begin(photos, output, prompt()) == []
    assert begin(photos, output, None) == []
    for how in ({}, {"only_failed": True}):
        assert [row["photo"] for row in begin(photos, output, prompt(max_bytes=9), **how)] == ["b.heic"]


def test_what_an_older_release_rejected_is_tried_once_more(photos: Path, output: Location) -> None:
    rows = begin(photos, output, None)
    for row in rows:
        del row["photo_reading"]
    answer(output, 1, rows, b="rejected")
    again = begin(photos, output, prompt())
    assert [row["photo"] for row in again] == ["b.heic"]
    answer(output, 2, again, b="rejected")
    assert begin(photos, output, prompt()) == []


def test_a_photograph_is_gone_only_where_it_was_looked_for(
    photos: Path, output: Location, tmp_path: Path
) -> None:
    rows = begin(photos, output, prompt())
    (photos / "a.JPG").unlink()
    assert not any(PresentPhotos(output).is_gone(row["photo_uri"]) for row in rows)
    begin(photos, output, prompt())
    gone = [row["photo"] for row in rows if PresentPhotos(output).is_gone(row["photo_uri"])]
    assert gone == ["a.JPG"]
    (tmp_path / "photos-2").mkdir()
    (tmp_path / "photos-2" / "z.png").touch()
    begin(tmp_path / "photos-2", output, prompt())
    assert not any(PresentPhotos(output).is_gone(row["photo_uri"]) for row in rows)


def test_what_is_left_out_is_named(photos: Path, output: Location, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "notes.cr2").touch()
    (photos / "Thumbs.db").touch()
    with caplog.at_level(logging.WARNING):
        begin(photos, output, prompt())
    assert "2 files left out" in caplog.text
    assert "Thumbs.db, notes.cr2" in caplog.text
