"""The main job with input and job directory in an S3 store, through Airflow's connections."""

from __future__ import annotations

import gzip
import io
import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from fixtures.job import chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag
    from fixtures.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("openai_conn")


@pytest.mark.long
@pytest.mark.usefixtures("form_names_s3")
def test_a_glob_of_plain_and_compressed_objects_lands_in_order(
    run_dag: RunDag, openai_server: OpenAIServer, s3: ObjectStore
) -> None:
    lines = [chat_line(str(n)) for n in range(6)]
    s3.put("in/a.jsonl", "\n".join(lines[:3]).encode())  # lacks its last newline
    s3.put("in/b.jsonl.gz", gzip.compress(("\n".join(lines[3:]) + "\n").encode()))
    openai_server.script(batch="expired", done=1, total=4, shard=0)
    conf = {
        "input_uri": s3.uri("in/*.jsonl*"),
        "output_uri": s3.uri("jobs/one"),
        "max_requests_per_shard": 4,
        "poll_interval": 0.1,
        "mode": "batch",
    }
    assert run_dag("openai_batch", conf).state == "success"
    rows = []
    for shard in (0, 1):
        rows += pq.read_table(io.BytesIO(s3.get(f"jobs/one/results/part-{shard:05d}.parquet"))).to_pylist()
    assert [(row["custom_id"], row["status"]) for row in rows] == [(str(n), "ok") for n in range(6)]
    assert [row["line_number"] for row in rows] == [1, 2, 3, 1, 2, 3]
    assert json.loads(s3.get("jobs/one/report.json"))["counts"]["good"] == 6
    left = s3.keys()
    assert not [key for key in left if key.endswith(".tmp") or ".probe" in key]
    batches = len(openai_server.batches())
    assert run_dag("openai_batch", conf).state == "success"
    assert len(openai_server.batches()) == batches
    assert openai_server.books.billed["batch"] == 6


def test_the_ledger_is_exclusive_on_s3(s3: ObjectStore) -> None:
    from airflow_openai_batch.access.locations import resolve_location
    from airflow_openai_batch.job.ledger import Event, ShardLedger

    folder = resolve_location(s3.uri("job/state/00000"))
    place = folder.child("0001-intent.json")
    assert place.create_exclusive(b"first")
    assert not place.create_exclusive(b"second")
    assert place.read_bytes() == b"first"
    place.remove()
    writers = [ShardLedger(folder), ShardLedger(resolve_location(s3.uri("job/state/00000")))]
    for number in range(4):
        writers[number % 2].append(Event(kind="intent", send=1, at=float(number)))
    assert [event.at for event in writers[0].read()] == [0.0, 1.0, 2.0, 3.0]
