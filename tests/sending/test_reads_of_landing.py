"""What landing reads: input, answers and leftovers go over the network once each, however much is left over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.job import directory
from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.job.shard_state import Content, ShardState
from airflow_openai_batch.planning.split import split_job
from airflow_openai_batch.sending.shard_files import LandingRules, ShardFiles, open_shard
from fixtures.counted_store import CountedStore
from fixtures.job import chat_line
from fixtures.shard_on_disk import answer, chat_body, refused

if TYPE_CHECKING:
    import pytest

JOB = "counted://job"


class LandedShard:
    """One shard of a job, whose batches have ended."""

    def __init__(self, lines: list[str]) -> None:
        self.store = CountedStore()
        self.events: list[Event] = []
        self.store.pipe_file("/in.jsonl", "".join(f"{line}\n" for line in lines).encode())
        output = self.store.resolve(JOB)
        split_job("counted://in.jsonl", output, resolve=self.store.resolve, limits=ShardLimits(), now=1.0)
        self.files: ShardFiles = open_shard(output, 0, self.store.resolve, LandingRules())

    @property
    def state(self) -> ShardState:
        return fold_events(Content.of(self.files.shard), self.events)

    def add(self, kind: Any, **fields: Any) -> None:
        self.events.append(Event(kind=kind, send=self.state.send, at=2.0, **fields))

    def end(self, *answers: bytes) -> None:
        """A batch with these lines in its output file."""
        batch_id = f"batch_{self.state.send}"
        place = self.files.output.child(directory.raw_output(0, self.state.send))
        place.write_bytes(b"".join(line + b"\n" for line in answers))
        self.add("created", batch_id=batch_id)
        self.add("ended", batch_id=batch_id, status="completed", output_file_id="file-1")

    def land(self) -> dict[str, int]:
        """How often each object was read."""
        self.store.reads.clear()
        outcome = self.files.land(self.state)
        self.leftover = outcome.leftover
        reads = dict(self.store.reads)
        self.add("landed", **({} if self.leftover is None else self.leftover.to_event()))
        return reads


def test_a_shard_with_leftovers_reads_input_and_answers_once() -> None:
    shard = LandedShard([chat_line(str(number)) for number in range(4)])
    shard.end(
        answer("0", chat_body("a")),
        refused("1", 500, "server_error"),
        refused("2", 429, "rate_limit_exceeded"),
    )
    assert shard.land() == {"in.jsonl": 1, "job/raw/00000.1.output.jsonl": 1}
    assert shard.leftover is not None
    assert shard.leftover.requests == 3
    lines = shard.files.output.child(directory.leftover(0, 2)).read_bytes().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["1", "2", "3"]


def test_what_embeddings_were_sent_again_is_read_once_and_believed_by_its_hash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shard = embed_in_part()
    shard.end(answer("0", vector("a", 0)))
    leftover = "job/leftover/00000.2.jsonl"
    assert shard.land() == {
        "in.jsonl": 1,
        leftover: 1,
        "job/raw/00000.1.output.jsonl": 1,
        "job/raw/00000.2.output.jsonl": 1,
    }
    assert shard.leftover is None

    changed = embed_in_part()
    content = changed.store.cat_file(f"/{leftover}")
    changed.store.pipe_file(f"/{leftover}", content.replace(b'["a"]', b'["b"]'))
    changed.end(answer("0", vector("a", 0)))
    assert changed.land()[leftover] == 1
    assert changed.leftover is not None
    assert f"counted://{leftover} is not what was sent any more" in caplog.text


def embed_in_part() -> LandedShard:
    """Of two texts the first has no vector, and is sent again."""
    body = {"model": "text-embedding-3-small", "input": ["a", "b"]}
    shard = LandedShard(
        [json.dumps({"custom_id": "0", "method": "POST", "url": "/v1/embeddings", "body": body})]
    )
    shard.end(answer("0", vector("b", 1)))
    shard.land()
    assert shard.leftover is not None
    return shard


def vector(text: str, index: int) -> dict[str, Any]:
    return {
        "object": "list",
        "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": index, "embedding": [1.0, float(ord(text))]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
