"""One way of watching, in a process of its own; imports nothing of this package unless it is the one to be measured."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil

BEAT_S = 0.005


def preload(way: str) -> None:
    """Imports are paid once per process, whatever the number of batches; a triggerer has its own already."""
    import airflow.jobs.triggerer_job_runner  # noqa: F401

    if way == "ours":
        import openai.resources.batches

        import airflow_openai_batch.hooks.openai_batch
        import airflow_openai_batch.triggers.batch  # noqa: F401
    elif way == "provider":
        import openai.resources.batches
    else:
        import openai.resources.batches  # noqa: F401


def make_ours(batch_id: str, poll_interval_s: float) -> AsyncIterator[Any]:
    from airflow_openai_batch.triggers.batch import OpenAIBatchEndTrigger

    trigger = OpenAIBatchEndTrigger(
        conn_id="openai_default", batch_id=batch_id, poll_interval=poll_interval_s
    )
    return trigger.run()


def make_provider(batch_id: str, poll_interval_s: float) -> AsyncIterator[Any]:
    from airflow.providers.openai.triggers.openai import OpenAIBatchTrigger

    trigger = OpenAIBatchTrigger(
        conn_id="openai_default", batch_id=batch_id, poll_interval=poll_interval_s, timeout=86_400.0
    )
    return trigger.run()


def make_common_ai(batch_id: str, poll_interval_s: float) -> AsyncIterator[Any]:
    from airflow.providers.common.ai.triggers.llm_batch import LLMBatchTrigger

    trigger = LLMBatchTrigger(
        llm_conn_id="pydanticai_default",
        adapter="openai",
        batch_id=batch_id,
        poll_interval=int(poll_interval_s),
        end_time=time.time() + 86_400,
        cancel_on_kill=False,
        cancel_on_timeout=False,
    )
    return trigger.run()


WAYS: dict[str, Callable[[str, float], AsyncIterator[Any]]] = {
    "ours": make_ours,
    "provider": make_provider,
    "common-ai": make_common_ai,
}


class Watchdog(threading.Thread):
    """Looks at the loop from outside: a loop that is stalled cannot say so, nor end in time."""

    def __init__(self, task: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.task = task
        self.worst_s = self.worst_cpu_s = 0.0
        self.last_beat = time.perf_counter()
        self.process = psutil.Process()
        self.base_mb = self._memory_mb()

    def _memory_mb(self) -> float:
        return float(self.process.memory_full_info().uss) / 1e6

    def read_calls(self) -> dict[str, int]:
        with urllib.request.urlopen(self.task["calls_url"]) as answer:
            calls: dict[str, int] = json.load(answer)["calls"]
        return calls

    def run(self) -> None:
        began, first = time.perf_counter(), count_looks(self.read_calls())
        peak_mb, all_polled_s, a_cycle, looks = 0.0, 0.0, 0.0, first
        while (passed_s := time.perf_counter() - began) < self.task["seconds"]:
            time.sleep(0.5)
            peak_mb = max(peak_mb, self._memory_mb())
            looks = count_looks(self.read_calls())
            if not all_polled_s and self.polled(looks, first) >= len(self.task["ids"]):
                all_polled_s, a_cycle = passed_s + 0.5, float(sum(looks) - sum(first))
        stall_s = max(self.worst_s, time.perf_counter() - self.last_beat - BEAT_S)
        found = {
            "calls": sum(looks) - sum(first),
            "calls_a_cycle": a_cycle,
            "watched_s": passed_s,
            "stall_ms": stall_s * 1000,
            "stall_cpu_ms": self.worst_cpu_s * 1000,
            "added_mb": peak_mb - self.base_mb,
            "polled": min(self.polled(looks, first), len(self.task["ids"])),
            "all_polled_s": all_polled_s,
        }
        print(json.dumps(found), flush=True)
        os._exit(0)

    def polled(self, looks: tuple[int, int], first: tuple[int, int]) -> int:
        """Batches that were seen, from the calls: a page has a hundred."""
        pages, gets = (now - before for now, before in zip(looks, first, strict=True))
        return pages * 100 + gets

    async def beat(self) -> None:
        while True:
            self.last_beat, cpu_s = time.perf_counter(), time.thread_time()
            await asyncio.sleep(BEAT_S)
            self.worst_s = max(self.worst_s, time.perf_counter() - self.last_beat - BEAT_S)
            self.worst_cpu_s = max(self.worst_cpu_s, time.thread_time() - cpu_s)


def count_looks(calls: dict[str, int]) -> tuple[int, int]:
    """Pages and single batches that were asked for."""
    pages = sum(count for name, count in calls.items() if name.rpartition(" ")[0] == "GET /v1/batches")
    gets = sum(count for name, count in calls.items() if name.startswith("GET /v1/batches/"))
    return pages, gets


async def watch(task: dict[str, Any]) -> None:
    make = WAYS[task["way"]]
    preload(task["way"])
    # Else the collector walks once through all that Airflow has imported, for 0.15 s, in whichever way allocates then.
    gc.collect()
    gc.freeze()
    dog = Watchdog(task)
    dog.start()
    asyncio.create_task(dog.beat())  # noqa: RUF006 - ends with the process
    await asyncio.sleep(0.2)

    async def run(batch_id: str) -> None:
        async for event in make(batch_id, task["poll_interval_s"]):
            print(f"{batch_id} ended: {event}", file=sys.stderr)

    # as a triggerer starts them: one after another, with a turn for the others between
    runs = []
    for batch_id in task["ids"]:
        runs.append(asyncio.create_task(run(batch_id)))
        await asyncio.sleep(0)
    await asyncio.gather(*runs)


if __name__ == "__main__":
    asyncio.run(watch(json.load(sys.stdin)))
