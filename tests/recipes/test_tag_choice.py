"""Which points are asked about, whatever an earlier run, another prompt or somebody else left in them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.recipes.qdrant.payload_text import read_field
from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore
from airflow_openai_batch.recipes.qdrant.tag_choice import TagChoice
from airflow_openai_batch.recipes.qdrant.tag_marks import (
    Fields,
    find_origin,
    make_payload,
    mark_failure,
)
from airflow_openai_batch.recipes.qdrant.tags import Tagged
from airflow_openai_batch.recipes.qdrant.transcripts import read_transcripts
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.prompts import PromptSpec, read_prompt

FIELDS = Fields()
OTHER_KEYS = Fields(tags="topics", summary="gist")
TAGGED = Tagged(["a", "b", "c"], "A sentence.")


def make_prompt(version: Any = 2, model: str = "gpt-6-luna", name: str = "tags") -> PromptSpec:
    return read_prompt({"name": name, "version": version, "model": model, "user": "{{ text }}"})


def tagged_by(prompt: PromptSpec, fields: Fields = FIELDS) -> dict[str, Any]:
    return make_payload(TAGGED, fields, find_origin(prompt), model="gpt-6-luna-1", cost_usd=0.0)


def failed_by(prompt: PromptSpec, text: str = "text", before: dict[str, Any] | None = None) -> dict[str, Any]:
    there = before or {}
    return there | mark_failure(
        there, FIELDS, find_origin(prompt), text=text, code="failed", reason="content_filter"
    )


POINTS: dict[int, dict[str, Any]] = {
    1: {},
    2: tagged_by(make_prompt(1)),
    3: tagged_by(make_prompt(2)),
    4: tagged_by(make_prompt(3)),
    5: tagged_by(make_prompt(2, model="gpt-6-sol")),
    6: tagged_by(make_prompt(name="another")),
    7: {"tagging": {"prompt": "tags", "prompt_version": 2}, "tags": ["of an earlier release"]},
    8: tagged_by(make_prompt(2)) | {"tags": ["changed", "by", "hand"]},
    9: {"summary": "By hand."},
    10: failed_by(make_prompt()),
    11: failed_by(make_prompt(), text="what it was before"),
    12: failed_by(make_prompt(), before=tagged_by(make_prompt(1))),
    13: tagged_by(make_prompt(2), OTHER_KEYS),
    14: {"text": " "},
}


@pytest.fixture
def store(form_roots: Path) -> PointStore:
    store = PointStore(collection="texts", name="texts")
    with store.open() as points:
        points.create(None)
        points.write(list(POINTS), [{"text": "text"} | payload for payload in POINTS.values()])
    return store


def read(
    store: PointStore, folder: Path, choice: TagChoice, fields: Fields = FIELDS
) -> tuple[list[int], Any]:
    place = resolve_plain(str(folder))
    found = read_transcripts(store, place, make_prompt(), filters={}, fields=fields, choice=choice)
    rows = pq.read_table(folder / "transcripts.parquet").column("point_id").to_pylist()
    assert found.read == len(rows)
    assert found.matching == sum((found.tagged, found.empty, found.foreign, found.set_aside, found.read)), (
        "every point is one of these"
    )
    return [int(each) for each in rows], found


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        ({}, [1, 2, 6, 11, 13]),
        ({"retag": "changed"}, [1, 2, 5, 6, 7, 11, 13]),
        ({"retag": "all"}, [1, 2, 3, 5, 6, 7, 11, 13]),
        ({"retag": "never"}, [1, 11, 13]),
        ({"retry_failed": True}, [1, 2, 6, 11, 13, 10, 12]),
        ({"retag": "never", "overwrite": True}, [1, 9, 11, 13]),
    ],
)
def test_points_are_asked_about_as_the_form_says(
    store: PointStore, tmp_path: Path, choice: dict[str, Any], asked: list[int]
) -> None:
    assert read(store, tmp_path / "out", TagChoice(**choice))[0] == asked


def test_under_other_keys_tags_of_before_do_not_count(store: PointStore, tmp_path: Path) -> None:
    asked, found = read(store, tmp_path / "out", TagChoice(), OTHER_KEYS)
    assert 13 not in asked
    assert {3, 8, 9} <= set(asked), "there is nothing yet where the answers go"
    assert found.foreign == 0


def test_what_is_left_out_is_told_by_key(store: PointStore, tmp_path: Path) -> None:
    _, found = read(store, tmp_path / "out", TagChoice(retag="all"))
    assert found.foreign_keys == {"tags": 1, "summary": 2}
    assert (found.foreign, found.set_aside, found.empty, found.tagged) == (2, 2, 1, 1)


def test_a_directory_that_was_read_for_another_choice_is_not_gone_on_with(
    store: PointStore, tmp_path: Path
) -> None:
    read(store, tmp_path / "out", TagChoice())
    read(store, tmp_path / "out", TagChoice())
    with pytest.raises(JobError, match="another output_uri"):
        read(store, tmp_path / "out", TagChoice(retag="all"))


def test_what_an_earlier_release_read_is_gone_on_with(store: PointStore, tmp_path: Path) -> None:
    """Its question had neither other keys nor a choice; its note no counts of them."""
    question = [store.collection, store.place, {}, {"text": "text", "title": "title"}, "tags", "2"]
    asked = hashlib.sha256(msgspec.json.encode(question)).hexdigest()
    note = {
        "asked": asked,
        "matching": 9,
        "tagged": 7,
        "empty": 0,
        "read": 2,
        "foreign": 0,
        "restarted_by": "",
    }
    (tmp_path / "transcripts.json").write_bytes(msgspec.json.encode(note))
    place = resolve_plain(str(tmp_path))
    found = read_transcripts(store, place, make_prompt(), filters={}, fields=FIELDS)
    assert (found.matching, found.read, found.set_aside) == (9, 2, 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tags": "a.b"}, "tags_field='a.b': must be a key of its own"),
        ({"tagging": ""}, "tagging_field=''"),
        ({"tags": "summary"}, "three different keys"),
        ({"text": "gist", "summary": "gist"}, "is where answers are written"),
    ],
)
def test_keys_that_cannot_be_written_are_refused(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Fields(**fields)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("one", "one"),
        (["one", " ", 2, "two"], "one\ntwo"),
        ([{"start": 0.0, "text": " one"}, {"start": 1.0, "words": []}, {"text": "two "}], "one\ntwo"),
        (
            [{"speaker": "Ann", "text": "one"}, {"speaker": " ", "text": "two"}, {"speaker": "Bo"}],
            "Ann: one\ntwo",
        ),
        ([{"start": 0.0}], None),
        (7, None),
        ({"text": "one"}, None),
    ],
)
def test_segments_are_text(value: Any, text: str | None) -> None:
    assert read_field({"a": {"b": value}}, "a.b") == text
