"""What the task of one shard reads of ``plan.json``: a part that does not grow with the number of shards."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from airflow_openai_batch.errors import JobError, NewerReleaseError
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.open_plan import OpenPlan, open_plan
from airflow_openai_batch.job.plan import Plan, PlanHead, Segment
from airflow_openai_batch.job.plan_layout import BEGIN_BYTES, BLOCK_BYTES, encode_plan
from airflow_openai_batch.sending.shard_files import LandingRules, open_shard
from fixtures.counted_store import CountedStore
from fixtures.split_input import request_line, split

JOB = "counted://job"
PLAN = "job/plan.json"
SHARDS = 400
NO_SUCH_SOURCE = Segment(source=SHARDS, start=0, end=1, first_line=1, first_position=0, requests=1)


class PlannedJob:
    """A job whose shards have one request each."""

    def __init__(self, shards: int, files: int = 1) -> None:
        self.store = CountedStore()
        self.output = self.store.resolve(JOB)
        lines = [request_line(str(number)).encode() + b"\n" for number in range(shards)]
        each = shards // files
        for number in range(files):
            self.store.pipe_file(
                f"/in/{number:05d}.jsonl", b"".join(lines[number * each : (number + 1) * each])
            )
        inputs = "counted://in/*.jsonl"
        self.plan = split(inputs, self.output, resolve=self.store.resolve, max_requests=1).plan
        self.count_anew()

    def count_anew(self) -> None:
        self.store.reads.clear()
        self.store.bytes_read.clear()

    def open(self) -> OpenPlan:
        found = open_plan(self.output)
        assert found is not None
        return found

    def write(self, content: bytes) -> None:
        self.store.pipe_file(f"/{PLAN}", content)

    def write_as_older_releases(self) -> None:
        self.write(msgspec.json.format(msgspec.json.encode(self.plan), indent=1))

    def change(self, old: bytes, new: bytes) -> None:
        """Something of the same length."""
        content = self.store.cat_file(f"/{PLAN}")
        assert old in content
        assert len(old) == len(new)
        self.write(content.replace(old, new, 1))


@pytest.fixture(scope="module")
def large() -> PlannedJob:
    """Each shard of a file of its own."""
    return PlannedJob(SHARDS, files=SHARDS)


@pytest.fixture
def job(large: PlannedJob) -> PlannedJob:
    large.write(encode_plan(large.plan))
    large.count_anew()
    return large


@pytest.mark.parametrize("number", [0, 1, 199, SHARDS - 2, SHARDS - 1])
def test_a_task_reads_its_part_of_a_large_plan(job: PlannedJob, number: int) -> None:
    files = open_shard(job.output, number, job.store.resolve, LandingRules())
    (line,) = files.reader.lines()
    assert json.loads(line.line)["custom_id"] == str(number)
    assert files.shard == job.plan.shards[number]
    assert line.source_uri.endswith(f"in/{number:05d}.jsonl")
    assert len(files.plan.shards) == SHARDS
    assert job.store.reads[PLAN] <= 3  # the head, a block of shards, a block of sources
    assert job.store.bytes_read[PLAN] <= BEGIN_BYTES + 2 * (BLOCK_BYTES + 1_000)
    assert len(encode_plan(job.plan)) > 100_000


def test_a_small_plan_is_read_at_once() -> None:
    job = PlannedJob(50)
    files = open_shard(job.output, 49, job.store.resolve, LandingRules())
    assert len(list(files.reader.lines())) == 1
    assert job.store.reads[PLAN] == 1


def test_what_is_said_of_the_whole_job_is_said_by_the_head(job: PlannedJob) -> None:
    found = job.open()
    for name in PlanHead.__struct_fields__:
        assert getattr(found.head, name) == getattr(job.plan, name)
    assert found.head.name == job.plan.name
    assert job.store.bytes_read[PLAN] == BEGIN_BYTES


def test_all_rows_come_with_one_read(job: PlannedJob) -> None:
    found = job.open()
    assert tuple(found.shards) == job.plan.shards
    assert tuple(found.sources) == job.plan.sources
    assert job.store.reads[PLAN] == 3


def test_a_head_that_is_longer_than_the_first_read_is_read_to_its_end() -> None:
    job = PlannedJob(100)
    (bound,) = job.plan.outputs
    many = tuple(msgspec.structs.replace(bound, model=f"model-{number}") for number in range(1_000))
    plan = msgspec.structs.replace(job.plan, outputs=many)
    job.write(encode_plan(plan))
    assert job.open().head.outputs == many
    assert job.open().shards[99] == plan.shards[99]


def test_other_releases_read_it_and_theirs_is_read(job: PlannedJob) -> None:
    """A cluster is upgraded machine by machine: both write plans, and both read them."""
    assert Plan.from_json(encode_plan(job.plan)) == job.plan
    assert directory.read_plan(job.output) == job.plan
    job.write_as_older_releases()
    found = job.open()
    assert found.shards[300] == job.plan.shards[300]
    assert len(found.sources) == SHARDS
    assert open_shard(job.output, 3, job.store.resolve, LandingRules()).key(1) == open_key(job, 3)


def open_key(job: PlannedJob, shard: int) -> str:
    job.write(encode_plan(job.plan))
    return open_shard(job.output, shard, job.store.resolve, LandingRules()).key(1)


def test_what_another_tool_has_written_anew_is_read_whole(job: PlannedJob) -> None:
    """``jq . plan.json`` moves the rows."""
    content = json.loads(encode_plan(job.plan))
    for text in (json.dumps(content), json.dumps(content, indent=2), msgspec.json.encode(content).decode()):
        job.write(text.encode())
        assert job.open().shards[300] == job.plan.shards[300]


def test_a_plan_of_nothing(job: PlannedJob) -> None:
    empty = msgspec.structs.replace(job.plan, sources=(), shards=())
    assert Plan.from_json(encode_plan(empty)) == empty
    assert open_plan(job.store.resolve("counted://nowhere")) is None


def test_a_plan_that_was_replaced_while_it_was_read_is_not_mixed(job: PlannedJob) -> None:
    """A restart of the same number of requests puts a plan of the same shape there."""
    found = job.open()
    sha256 = job.plan.shards[300].sha256.encode()
    job.change(sha256, sha256[::-1])
    with pytest.raises(JobError, match=r"plan\.json: is damaged, or another run .* Clear the task"):
        found.shards[300]
    assert found.shards[0] == job.plan.shards[0]


def rewrite(job: PlannedJob, number: int, **fields: Any) -> None:
    """As we would lay it out."""
    shards = list(job.plan.shards)
    shards[number] = msgspec.structs.replace(shards[number], **fields)
    job.write(encode_plan(msgspec.structs.replace(job.plan, shards=tuple(shards))))


@pytest.mark.parametrize(
    "fields",
    [
        {"endpoint": "https://evil.example/v1"},
        {"shard": 200},
        {"staged": "../../victim/requests.jsonl"},
        {"segments_file": "../x.json"},
        {"segments": (NO_SUCH_SOURCE,)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_row_with_what_we_never_write_is_refused(job: PlannedJob, fields: dict[str, Any]) -> None:
    rewrite(job, 300, **fields)
    with pytest.raises(JobError, match=r"plan\.json: is there but is no plan of this package"):
        open_shard(job.output, 300, job.store.resolve, LandingRules())


def find_shards(head: dict[str, Any]) -> dict[str, Any]:
    return head["contents"]["shards"]  # type: ignore[no-any-return]


HEADS = {
    "blocks that go back": lambda head: find_shards(head).update(blocks=[[0, 900, 0], [200, 30, 0]]),
    "a block before the head": lambda head: find_shards(head).update(blocks=[[0, -1, 0]]),
    "rows before the first block": lambda head: find_shards(head).update(blocks=[[1, 20, 0]]),
    "fewer rows than its blocks": lambda head: find_shards(head).update(rows=3),
    "no blocks": lambda head: find_shards(head).update(blocks=[]),
    "an end in the middle": lambda head: find_shards(head).update(end=10),
    "a generation that is none": lambda head: head.update(generation=0),
    "no contents": lambda head: head.pop("contents"),
}


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS)
def test_a_head_with_what_we_never_write_is_refused(job: PlannedJob, change: Any) -> None:
    rewrite_head(job, change)
    with pytest.raises(JobError, match=r"plan\.json: is there but is no plan of this package"):
        job.open()


def test_a_newer_schema_is_refused_by_its_head(job: PlannedJob) -> None:
    rewrite_head(job, lambda head: head.update(schema_version=2))
    with pytest.raises(NewerReleaseError, match="Upgrade"):
        job.open()


def rewrite_head(job: PlannedJob, change: Any) -> None:
    """The same number of bytes follows it."""
    content = encode_plan(job.plan)
    size = json.loads(content)["head_bytes"]
    head = json.loads(content[:size] + b"}")
    change(head)
    del head["head_bytes"]
    text = json.dumps(head).encode()[1:-1]
    job.write(b'{"head_bytes":%10d,' % (len(text) + 25) + text + content[size:])
