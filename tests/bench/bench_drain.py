"""Draining many shards through a batch queue that holds a few, on a virtual clock.

    python -m bench.bench_drain [--shards 40] [--seeds 5]

Forty shards of mixed size, batches of about an hour, one of them ten times slower; the queue holds about six. The
real trigger, watcher and queue room wait, the emulator's logic without HTTP is OpenAI, and a task costs 5 s, an upload
10 s, a look 60 s. Beside it list scheduling in the same order, which knows everything at once and loses no second, and
one batch at a time, as gpt-batch-manager submits them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import json
import logging
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import BatchPage, BatchStatus, BatchView
from airflow_openai_batch.sending.queue.refusals import classify_refusal
from airflow_openai_batch.sending.queue.room import Need
from airflow_openai_batch.testing.emulator import Emulator
from airflow_openai_batch.testing.settings import Settings
from airflow_openai_batch.triggers.room import OpenAIBatchRoomTrigger
from airflow_openai_batch.triggers.watcher import BatchWatcher
from bench.table import print_table
from bench.virtual_time import VirtualLoop, run_virtual

MODEL = "gpt-4o-mini"
QUEUE = 2_000_000
TASK_S, UPLOAD_S, POLL_S, VALIDATING_S = 5.0, 10.0, 60.0, 20.0
START_S = 0.5
"""Between two tasks that the scheduler starts."""
RATIO_LIMIT = 1.1
REFUSALS_LIMIT = 0.1


@dataclass(frozen=True, slots=True)
class Shard:
    number: int
    tokens: int
    takes_s: float
    """In progress."""


@dataclass(slots=True)
class Drained:
    """What one way of draining came to."""

    hours: float
    refusals: int = 0
    calls: int = 0
    peak: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    alone = [compare(draw_shards(options.shards, seed), 0) for seed in range(options.seeds)]
    report(f"Draining {options.shards} shards, alone in the queue", alone, options.shards)
    beset = [compare(draw_shards(options.shards, seed), QUEUE // 2) for seed in range(options.seeds)]
    report(
        f"Draining {options.shards} shards, half of the queue taken by strangers nobody sees",
        beset,
        options.shards,
    )
    worst = max(ours.hours / best.hours for best, ours, _ in alone)
    refused = max(ours.refusals for _, ours, _ in alone) / options.shards
    print(f"\nworst ratio {worst:.3f} (limit {RATIO_LIMIT}), worst refusals per shard {refused:.3f}")
    sys.exit(worst > RATIO_LIMIT or refused >= REFUSALS_LIMIT)


def draw_shards(count: int, seed: int) -> list[Shard]:
    """Sizes from a tenth to three tenths of the queue, so that about six fit."""
    draw = random.Random(seed)
    slow = draw.randrange(count)
    return [
        Shard(
            number,
            draw.randrange(QUEUE // 40, QUEUE * 3 // 10),
            draw.uniform(2_400, 4_800) * (10 if number == slow else 1),
        )
        for number in range(count)
    ]


def compare(shards: list[Shard], strangers: int) -> tuple[Drained, Drained, Drained]:
    return (
        Drained(schedule(shards, QUEUE - strangers) / 3_600),
        drain(shards, strangers, one_at_a_time=False),
        drain(shards, strangers, one_at_a_time=True),
    )


def schedule(shards: list[Shard], room: int) -> float:
    """List scheduling: whenever there is room, the first in order that fits begins. Seconds until all are done."""
    waiting, running, now = list(shards), [], 0.0
    while waiting or running:
        for shard in list(waiting):
            if shard.tokens <= room:
                room -= shard.tokens
                waiting.remove(shard)
                heapq.heappush(running, (now + VALIDATING_S + shard.takes_s, shard.tokens))
        now, tokens = heapq.heappop(running)
        room += tokens
    return now


def drain(shards: list[Shard], strangers: int, *, one_at_a_time: bool) -> Drained:
    loop = VirtualLoop()
    openai = make_openai(loop, strangers)
    source = Source(openai)

    async def connect() -> Source:
        return source

    async def run() -> float:
        watcher = BatchWatcher(connect)
        with mock.patch("airflow_openai_batch.triggers.room.find_watcher", return_value=watcher):
            if one_at_a_time:
                for shard in shards:
                    await run_shard(shard, openai, watcher)
            else:
                async with asyncio.TaskGroup() as group:
                    for shard in shards:
                        group.create_task(run_shard(shard, openai, watcher))
                        await asyncio.sleep(START_S)
        return loop.time()

    seconds = run_virtual(loop, run())
    refusals = sum(openai.books.refusals.values())
    return Drained(seconds / 3_600, refusals, source.calls, openai.books.peak_enqueued[MODEL] - strangers)


def make_openai(loop: VirtualLoop, strangers: int) -> Emulator:
    settings = Settings(queue_limits={MODEL: QUEUE}, validating_s=VALIDATING_S, list_lag_s=3.0)
    openai = Emulator(settings=settings, clock=loop, count_tokens=read_tokens, detailed_books=False)
    openai.occupy_queue(MODEL, tokens=strangers)
    return openai


def read_tokens(body: dict, endpoint: str) -> int:  # type: ignore[type-arg]
    return int(body["messages"][0]["content"])


@dataclass
class Source:
    """The emulator as the watcher's client, a tenth of a second away."""

    openai: Emulator
    calls: int = 0

    async def list_page(self, after: str | None) -> BatchPage:
        await self._call()
        page = self.openai.list_batches(after=after, limit=100)
        return BatchPage([BatchView.from_dict(batch) for batch in page["data"]], page["has_more"])

    async def fetch(self, batch_id: str) -> BatchView:
        await self._call()
        return BatchView.from_dict(self.openai.get_batch(batch_id))

    async def cancel(self, batch_id: str) -> None:
        raise AssertionError("nothing is cancelled here")

    async def close(self) -> None: ...

    async def _call(self) -> None:
        self.calls += 1
        await asyncio.sleep(0.1)


@dataclass(slots=True)
class Sends:
    """What the ledger of a shard remembers of its refusals."""

    number: int = 1
    refusals: int = 0
    refused_at: float = 0.0
    limit: QueueLimit = field(default_factory=lambda: QueueLimit(tokens=QUEUE))

    def patience(self, key: str) -> float:
        """As `sending.machine` has it."""
        if not self.refusals:
            return 0.0
        wait_s = min(60.0 * 2 ** min(self.refusals - 1, 10), 900.0)
        return self.refused_at + wait_s * (0.75 + 0.5 * hashlib.sha256(key.encode()).digest()[0] / 255)


async def run_shard(shard: Shard, openai: Emulator, watcher: BatchWatcher) -> None:
    """What the tasks of one shard do, with what they cost."""
    asked_at, sends, file_id = time.time(), Sends(), ""
    while True:
        key = f"{shard.number}.{sends.number}"
        await asyncio.sleep(TASK_S)
        await wait_for_room(shard, key, sends, asked_at)
        await asyncio.sleep(TASK_S)
        if not file_id:
            await asyncio.sleep(UPLOAD_S)
            file_id = openai.upload(make_file(shard))["id"]
        openai.script.add({"batch": "completed", "takes_s": shard.takes_s})
        metadata = {"job_key": key, "input_tokens": str(shard.tokens), "model": MODEL}
        batch = openai.create_batch(
            {
                "input_file_id": file_id,
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "metadata": metadata,
            }
        )
        ended = await wait_for_end(watcher, batch["id"])
        if ended.status is BatchStatus.COMPLETED:
            return
        sends.number, sends.refusals, sends.refused_at = sends.number + 1, sends.refusals + 1, time.time()
        sends.limit = sends.limit.overridden_by(classify_refusal(ended.errors).queue_limit)


async def wait_for_room(shard: Shard, key: str, sends: Sends, asked_at: float) -> None:
    trigger = OpenAIBatchRoomTrigger.for_need(
        Need(MODEL, shard.tokens, 1, key),
        sends.limit,
        conn_id="bench",
        poll_interval=POLL_S,
        holder=str(shard.number),
        asked_at=asked_at,
        not_before=sends.patience(key),
    )
    async for event in trigger.run():
        assert event.payload["status"] == "room"


async def wait_for_end(watcher: BatchWatcher, batch_id: str) -> BatchView:
    sightings = watcher.follow(batch_id, POLL_S)
    try:
        async for sighting in sightings:
            if sighting.batch.status.is_final:
                return sighting.batch
    finally:
        await sightings.aclose()
    raise AssertionError


def make_file(shard: Shard) -> bytes:
    body = {"model": MODEL, "messages": [{"role": "user", "content": str(shard.tokens)}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode()


def report(title: str, runs: list[tuple[Drained, Drained, Drained]], shards: int) -> None:
    best = [run[0] for run in runs]
    rows = [list(_row(name, [run[at] for run in runs], best, shards)) for at, name in enumerate(WAYS)]
    head = [
        "",
        "hours",
        "times list scheduling",
        "worst",
        "refusals per shard",
        "most of the queue",
        "calls an hour",
    ]
    print_table(f"{title}, median of {len(runs)}", head, rows)


WAYS = ("list scheduling, no latency", "this package", "one batch at a time")


def _row(name: str, runs: list[Drained], best: list[Drained], shards: int) -> Iterator[str]:
    ratios = [run.hours / bound.hours for run, bound in zip(runs, best, strict=True)]
    yield name
    yield f"{statistics.median(run.hours for run in runs):.1f}"
    yield f"{statistics.median(ratios):.3f}"
    yield f"{max(ratios):.3f}"
    if name == WAYS[0]:
        yield from ("", "", "")
        return
    yield f"{statistics.mean(run.refusals for run in runs) / shards:.3f}"
    yield f"{max(run.peak for run in runs) / QUEUE:.0%}"
    yield f"{statistics.median(run.calls / run.hours for run in runs):.0f}"


if __name__ == "__main__":
    main()
