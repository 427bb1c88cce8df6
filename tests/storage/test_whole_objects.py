"""An object of a bucket appears whole or not at all, and is written once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from airflow_openai_batch.errors import GivenUpError
from airflow_openai_batch.storage.location import WRITE_BLOCK_BYTES, Location, resolve_plain

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.object_store import ObjectStore

SIZES = [0, 1_000, WRITE_BLOCK_BYTES + 1_000]
"""Bytes: nothing, less than a part of an upload, and more."""


@pytest.fixture
def client(s3: ObjectStore) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )


@pytest.fixture
def place(s3: ObjectStore) -> Location:
    return Location(s3.filesystem(), f"{s3.bucket}/part.jsonl", s3.uri("part.jsonl"))


@pytest.mark.parametrize("size", SIZES)
def test_a_bucket_that_keeps_versions_keeps_one(
    s3: ObjectStore, client: Any, place: Location, size: int
) -> None:
    """Of a temporary object it would keep every byte, and the mark that it was deleted."""
    client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    with place.open_write() as file:
        file.write(b"a" * size)
    found = client.list_object_versions(Bucket=s3.bucket)
    assert [(version["Key"], version["Size"]) for version in found["Versions"]] == [("part.jsonl", size)]
    assert "DeleteMarkers" not in found


@pytest.mark.parametrize("size", SIZES)
def test_what_fails_leaves_what_was_there_and_no_upload_that_is_billed(
    s3: ObjectStore, client: Any, place: Location, size: int
) -> None:
    with place.open_write() as file:
        file.write(b"before")

    def write_and_fail() -> None:
        with place.open_write() as file:
            file.write(b"a" * size)
            assert s3.get("part.jsonl") == b"before"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert s3.keys() == ["part.jsonl"]
    assert s3.get("part.jsonl") == b"before"
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3.bucket)


def test_a_file_that_nobody_waits_for_any_more_takes_nothing(tmp_path: Path) -> None:
    given_up = threading.Event()
    place = resolve_plain(f"{tmp_path}/answers.jsonl").until(given_up)

    def write_on() -> None:
        with place.open_write() as file:
            file.write(b"wanted")
            given_up.set()
            file.write(b"more")

    for write in (
        write_on,
        lambda: place.write_bytes(b"x"),
        lambda: place.create_exclusive(b"x"),
        place.remove,
    ):
        with pytest.raises(GivenUpError):
            write()
    assert list(tmp_path.iterdir()) == []
