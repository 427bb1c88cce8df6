"""What grows with the number of shards: a job of 20,000, whose directory lies as far away as a bucket.

    python -m bench.bench_shards [--shards 20000] [--delay 0.005]

Each row is a process of its own. Requests and bytes are those that a bucket would bill; the seconds on the clock are
with so long a wait for each request.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.job.plan import Counts, Limits, Plan, Segment, Shard, Source
from airflow_openai_batch.job.plan_layout import encode_plan
from airflow_openai_batch.openai_api.endpoints import Endpoint
from airflow_openai_batch.results.landing_summary import LandingSummary, ShardSummary
from bench.bench_split import ROOT
from bench.table import print_table
from fixtures.distant_disk import DistantDisk

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

STORY = ("uploaded", "intent", "created", "ended", "landed", "done", "cleaned")
REQUESTS = 4
"""In a shard: what is measured grows with the shards, not with them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=20_000)
    parser.add_argument("--delay", type=float, default=0.005)
    parser.add_argument("--child", nargs=2, metavar=("WORK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, folder = options.child
        print(json.dumps(measure(WORKS[work], Path(folder), options.delay)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-shards-") as folder:
        write_job(Path(folder), options.shards)
        rows = [measure_apart(work, folder, options.delay) for work in WORKS]
    print_table(
        f"A job of {options.shards:,} shards, {options.delay * 1000:g} ms a request",
        ["", "s", "CPU s", "peak MB", "requests", "MB read", "MB out"],
        rows,
    )


def write_job(folder: Path, shards: int) -> None:
    """As it lies when all shards are done."""
    plan = make_plan(shards)
    (folder / directory.PLAN).write_bytes(encode_plan(plan))
    for name in (directory.STATE, directory.RESULTS, directory.SPENT):
        (folder / name).mkdir()
    for shard in plan.shards:
        number = shard.shard
        state = folder / directory.state_folder(number)
        state.mkdir()
        for place, kind in enumerate(STORY, 1):
            summary = summarize(number).to_dict() if kind == "done" else {}
            event = Event(kind=kind, send=1, at=1.8e9, plan=plan.name, summary=summary)  # type: ignore[arg-type]
            (state / f"{place:04d}-{kind}.json").write_bytes(msgspec.json.encode(event))
        positions = range(shard.first_position, shard.first_position + REQUESTS)
        rows = pa.table({"position": pa.array(positions, pa.int64()), "status": ["ok"] * REQUESTS})
        pq.write_table(rows, folder / directory.part(number))
        (folder / directory.SPENT / f"{number:05d}.1.paid.1234.{REQUESTS}.100.50.json").write_bytes(b"{}")


def make_plan(shards: int) -> Plan:
    requests = shards * REQUESTS
    return Plan(
        fingerprint="f" * 64,
        created_at=1.8e9,
        created_by="openai_batch/bench",
        sources=(Source(uri="s3://bucket/requests.jsonl", size=10**9, etag="e" * 32, lines=requests),),
        limits=Limits(max_requests=50_000, max_bytes=100_000_000, max_tokens=None),
        counts=Counts(positions=requests, requests=requests, rejected=0, blank=0),
        shards=tuple(make_shard(number) for number in range(shards)),
    )


def make_shard(number: int) -> Shard:
    first = number * REQUESTS
    segment = Segment(
        source=0,
        start=first * 200,
        end=(first + REQUESTS) * 200,
        first_line=first + 1,
        first_position=first,
        requests=REQUESTS,
    )
    return Shard(
        shard=number,
        model="gpt-4o-mini",
        endpoint=Endpoint.CHAT_COMPLETIONS,
        requests=REQUESTS,
        bytes=800,
        input_tokens=100,
        sha256=f"{number:064x}",
        first_position=first,
        segments=(segment,),
    )


def summarize(number: int) -> ShardSummary:
    landed = LandingSummary(
        requests=REQUESTS, rows={"ok": REQUESTS}, attempts={1: REQUESTS}, part_bytes=2_000
    )
    phases = {"queued": 1.0, "validating": 2.0, "in_progress": 60.0, "finalizing": 3.0, "landing": 4.0}
    return ShardSummary(shard=number, landed=landed, batch_ids=(f"batch_{number:032x}",), phases_s=phases)


def measure_apart(work: str, folder: str, delay_s: float) -> list[str]:
    command = [sys.executable, "-m", "bench.bench_shards", "--delay", str(delay_s), "--child", work, folder]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        work.replace("_", " "),
        f"{found['s']:.1f}",
        f"{found['cpu_s']:.1f}",
        f"{found['peak_mb']:.0f}",
        f"{found['requests']:,}",
        f"{found['bytes_read'] / 1e6:.2f}",
        f"{found['out'] / 1e6:.2f}",
    ]


def measure(work: Callable[[Location], bytes], folder: Path, delay_s: float) -> dict[str, float]:
    """In this process, after the imports."""
    for module in IMPORTS.get(work.__name__, ()):
        importlib.import_module(module)
    disk = DistantDisk(delay_s)
    cpu, wall = time.process_time(), time.perf_counter()
    out = len(work(disk.locate(folder)))
    return {
        "s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "requests": disk.requests,
        "bytes_read": disk.bytes_read,
        "out": out,
    }


def open_one_shard(output: Location) -> bytes:
    from airflow_openai_batch.sending.shard_files import LandingRules, open_shard

    return open_shard(output, 12_345 % REQUESTS, lambda uri: output, LandingRules()).key(1).encode()


def list_shards(output: Location) -> bytes:
    """What the split returns, and each task that is mapped over it takes one item of."""
    from airflow_openai_batch.costs.sample import choose_sample, make_refs

    plan = read_plan(output)
    return json.dumps(make_refs(plan, output.uri, choose_sample(plan, None))).encode()


def write_report(output: Location) -> bytes:
    from airflow_openai_batch.openai_api.batch_durations import UsualDurations
    from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES
    from airflow_openai_batch.operators.report import OpenAIBatchReportOperator, _read_summaries

    plan = read_plan(output)
    task = OpenAIBatchReportOperator(task_id="publish", job=output.uri)
    summaries = list(_read_summaries(output, plan))
    return task._write(
        output, plan, summaries, None, lambda uri: output, NO_OWN_PRICES, UsualDurations()
    ).to_json()


def look_for_page(output: Location) -> bytes:
    from airflow_openai_batch.report.snapshot import SnapshotReader

    return str(SnapshotReader(output).read().saving_usd()).encode()


def look_again_for_page(output: Location) -> bytes:
    from airflow_openai_batch.report.snapshot import SnapshotReader

    reader = SnapshotReader(output)
    reader.read()
    output.fs.requests = output.fs.bytes_read = 0
    return str(reader.read().saving_usd()).encode()


def find_unfinished_shards(output: Location) -> bytes:
    """As a join, a delivery and a drain look before they begin."""
    from airflow_openai_batch.results.landing_summary import find_unfinished

    return bytes(sum(1 for _ in find_unfinished(read_plan(output), output)))


def read_plan(output: Location) -> Any:
    return directory.read_plan(output)


WORKS: dict[str, Callable[[Location], bytes]] = {
    work.__name__: work
    for work in (
        open_one_shard, list_shards, write_report, find_unfinished_shards, look_for_page, look_again_for_page,
    )
}  # fmt: skip
IMPORTS = {
    "write_report": (
        "airflow_openai_batch.operators.report",
        "airflow_openai_batch.report.failed_requests",
        "airflow_openai_batch.report.row_check",
    )
}


if __name__ == "__main__":
    main()
