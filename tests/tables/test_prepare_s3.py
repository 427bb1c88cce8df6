"""Preparing on an object store: tables, images by their prefix, and a second try."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from PIL import Image

from airflow_openai_batch.storage.location import Location
from airflow_openai_batch.tables.preparation import Preparation, Prepared, prepare_requests
from airflow_openai_batch.tables.preparation.source_note import check_files, note_files
from airflow_openai_batch.tables.reading import find_row_files, open_row_files
from fixtures.prepared import ask

if TYPE_CHECKING:
    from airflow_openai_batch.tables.prompts import PromptSpec
    from fixtures.object_store import ObjectStore


@pytest.fixture
def resolve(s3: ObjectStore) -> Callable[[str], Location]:
    fs = s3.filesystem()

    def resolve_in_bucket(uri: str) -> Location:
        return Location(fs, uri.removeprefix("s3://").partition("@")[2], uri)

    return resolve_in_bucket


def prepare(source: str, output: str, spec: PromptSpec, resolve: Callable[[str], Location]) -> Prepared:
    found = find_row_files([source], resolve(output), resolve, objects_as="files")
    what = Preparation(
        spec=spec,
        open_table=lambda: open_row_files(found),
        note=note_files(found, [source]),
        now=1_700_000_000.0,
        images_root=found.prefix,
        check_source=lambda: check_files(found),
    )
    return prepare_requests(what, resolve(output))


def test_a_table_in_a_bucket(s3: ObjectStore, resolve: Callable[[str], Location]) -> None:
    content = io.StringIO()
    csv.writer(content).writerows([["text"], *([f"text {n}"] for n in range(3_000))])
    s3.put("in/a.csv", content.getvalue().encode())
    first = prepare(s3.uri("in/*.csv"), s3.uri("out"), ask(), resolve)
    stored = s3.keys()
    assert [key for key in stored if key.startswith("out/")] == [
        "out/manifest.json",
        "out/rejected.jsonl",
        "out/requests-00000.jsonl",
        "out/rows/part-00000.parquet",
    ]
    assert len(s3.get("out/requests-00000.jsonl").splitlines()) == 3_000
    assert pq.read_table(io.BytesIO(s3.get("out/rows/part-00000.parquet"))).num_rows == 3_000
    assert prepare(s3.uri("in/*.csv"), s3.uri("out"), ask(), resolve) == Prepared(
        first.manifest, created=False
    )


def test_photographs_below_a_prefix(s3: ObjectStore, resolve: Callable[[str], Location]) -> None:
    target = io.BytesIO()
    Image.new("RGB", (40, 30), "blue").save(target, "JPEG")
    for number in range(6):
        s3.put(f"in/covers/{number:02d}.jpg", target.getvalue())
    s3.put("in/covers/bad.jpg", target.getvalue()[:50])
    spec = ask(user="What is it?", images=[{"column": "uri"}])
    made = prepare(s3.uri("in/covers/"), s3.uri("out"), spec, resolve)
    assert (made.manifest.counts.requests, made.manifest.counts.rejected) == (6, 1)
    requests = [json.loads(line) for line in s3.get("out/requests-00000.jsonl").splitlines()]
    assert [line["custom_id"] for line in requests] == [f"row-{number}" for number in range(6)]
