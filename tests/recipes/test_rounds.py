"""Rounds: nothing is asked twice that has a good answer, and a round under way stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.recipes.cds.rounds import open_round, read_answers, read_latest
from airflow_openai_batch.recipes.json_rows import read_rows, write_rows
from airflow_openai_batch.storage.location import Location, resolve_plain


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return resolve_plain(str(tmp_path / "rounds"))


def key(row: dict[str, Any]) -> str:
    return str(row["id"])


def begin(folder: Location, *ids: str) -> tuple[str | None, list[str]]:
    """Name and rows of the round to go on with."""
    place, asked = open_round(folder, ({"id": each} for each in ids), key)
    if place is None:
        assert asked == 0
        return None, []
    rows = [row["id"] for row in read_rows(place.child("rows.jsonl"), made_by="test")]
    assert len(rows) == asked
    return Path(place.path).name, rows


def finish(folder: Location, name: str, **statuses: str) -> None:
    answers = [{"id": each, "answer_status": status, "by": name} for each, status in statuses.items()]
    write_rows(folder.child(f"{name}/answers.jsonl"), answers)


def test_a_round_holds_what_has_no_good_answer(folder: Location) -> None:
    assert begin(folder, "a", "b", "c") == ("round-001", ["a", "b", "c"])
    finish(folder, "round-001", a="ok", b="failed", c="rejected")
    assert begin(folder, "a", "b", "c", "d") == ("round-002", ["b", "d"])
    finish(folder, "round-002", b="ok", d="ok")
    assert begin(folder, "a", "b", "c", "d") == (None, [])
    assert [(row["id"], row["by"]) for row in read_latest(folder, key)] == [
        ("a", "round-001"),
        ("b", "round-002"),
        ("c", "round-001"),
        ("d", "round-002"),
    ]


def test_a_round_is_begun_anew_until_its_requests_are_prepared(folder: Location) -> None:
    begin(folder, "a")
    assert begin(folder, "a", "b") == ("round-001", ["a", "b"])
    folder.child("round-001/prepared/manifest.json").write_bytes(b"{}")
    assert begin(folder, "a", "b", "c") == ("round-001", ["a", "b"])
    finish(folder, "round-001", a="ok", b="ok")
    assert begin(folder, "a", "b", "c") == ("round-002", ["c"])
    assert len(list(read_answers(folder))) == 2


def test_rows_that_are_not_there_name_the_task_that_makes_them(folder: Location) -> None:
    with pytest.raises(InputError, match="Run the task clean first"):
        list(read_rows(folder.child("cleaned.jsonl"), made_by="clean"))
    folder.child("cleaned.jsonl").write_bytes(b'{"a": 1}\n{"a"')
    with pytest.raises(InputError, match=r"cleaned\.jsonl:2: is not valid JSON"):
        list(read_rows(folder.child("cleaned.jsonl"), made_by="clean"))
