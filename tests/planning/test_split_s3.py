"""The same on an object store: globs, compressed input, ranges, restarts and changed objects."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.errors import InputChangedError, InputError, JobError
from airflow_openai_batch.job.inputs import list_sources
from airflow_openai_batch.job.open_plan import open_plan
from airflow_openai_batch.job.shard_reader import ShardReader
from airflow_openai_batch.storage.location import Location
from airflow_openai_batch.storage.sources import describe_file
from fixtures.split_input import read_shards, request_line, split

if TYPE_CHECKING:
    from fixtures.object_store import ObjectStore

LINES = [request_line(str(number), "x" * 1_000) for number in range(3_000)]


def joined(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture
def resolve(s3: ObjectStore) -> Callable[[str], Location]:
    fs = s3.filesystem()

    def resolve_in_bucket(uri: str) -> Location:
        return Location(fs, uri.removeprefix("s3://").partition("@")[2], uri)

    return resolve_in_bucket


def test_a_job_on_an_object_store(s3: ObjectStore, resolve: Callable[[str], Location]) -> None:
    s3.put("in/a.jsonl", joined(LINES[:2_000]))
    s3.put("in/b.jsonl.gz", gzip.compress(joined(LINES[2_000:])))
    output = resolve(s3.uri("job"))

    plan = split([s3.uri("in/*")], output, resolve=resolve, max_requests=1_500).plan

    assert [source.uri for source in plan.sources] == [s3.uri("in/a.jsonl"), s3.uri("in/b.jsonl.gz")]
    assert [shard.staged for shard in plan.shards] == [None, "staged/00001.jsonl"]
    assert s3.keys() == ["in/a.jsonl", "in/b.jsonl.gz", "job/plan.json", "job/staged/00001.jsonl"]
    shards = read_shards(plan, output, resolve)
    assert [line.line.decode() for shard in shards for line in shard] == LINES
    uploads = [
        ShardReader(plan.sources, shard, output, resolve).open_upload().read() for shard in plan.shards
    ]
    assert b"".join(uploads) == joined(LINES)
    assert not split([s3.uri("in/*")], output, resolve=resolve, max_requests=1_500).created

    s3.put("in/a.jsonl", joined(LINES[:2_000]).replace(b"x", b"y", 1))
    with pytest.raises(InputChangedError, match="SHA-256"):
        next(ShardReader(plan.sources, plan.shards[0], output, resolve).lines())
    with pytest.raises(InputChangedError, match="on_existing=restart"):
        split([s3.uri("in/*")], output, resolve=resolve)
    again = split([s3.uri("in/*")], output, resolve=resolve, on_existing="restart", run_key="dag/2").plan
    assert again.generation == 2
    assert "job/generations/0001/plan.json" in set(s3.keys())
    assert "job/generations/0001/staged/00001.jsonl" in set(s3.keys())


def test_a_plan_on_an_object_store_is_read_in_parts(
    s3: ObjectStore, resolve: Callable[[str], Location]
) -> None:
    s3.put("in.jsonl", joined(LINES))
    output = resolve(s3.uri("job"))
    plan = split([s3.uri("in.jsonl")], output, resolve=resolve, max_requests=10).plan
    found = open_plan(output)
    assert found is not None
    assert found.shards[299] == plan.shards[299]
    assert found.sources[0] == plan.sources[0]
    assert open_plan(resolve(s3.uri("nothing"))) is None
    s3.put("job/plan.json", b"")  # S3 knows no range of an empty object
    with pytest.raises(JobError, match="no plan of this package"):
        open_plan(output)


def test_a_store_that_does_not_answer_is_named_and_worth_another_try(s3: ObjectStore) -> None:
    import s3fs

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = {"endpoint_url": f"http://127.0.0.1:{closed.getsockname()[1]}", "region_name": "us-east-1"}
        fs = s3fs.S3FileSystem(
            key="k", secret="s", client_kwargs=client, config_kwargs={"retries": {"max_attempts": 1}}
        )
        place = Location(fs, "bucket/in.jsonl", "s3://bucket/in.jsonl")
        for read in (
            lambda: describe_file(place),
            lambda: list_sources("s3://bucket/*", place, lambda _: place),
        ):
            with pytest.raises(
                InputError, match=r"s3://bucket/.*cannot be read \(.*\)\. Check its address"
            ) as error:
                read()
            assert not error.value.permanent


def test_what_is_not_there_is_said_so(s3: ObjectStore, resolve: Callable[[str], Location]) -> None:
    s3.put("in/a.jsonl", joined(LINES[:1]))
    output = resolve(s3.uri("job"))
    with pytest.raises(InputError, match=r"s3://.*/in/b\.jsonl: there is no such file"):
        split([s3.uri("in/b.jsonl")], output, resolve=resolve)
    with pytest.raises(InputError, match="is a directory"):
        split([s3.uri("in")], output, resolve=resolve)
    with pytest.raises(InputError, match=r"s3://.*no-bucket"):
        split([s3.uri("in/a.jsonl").replace("bucket-", "no-bucket-")], output, resolve=resolve)
