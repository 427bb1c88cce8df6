"""Sending in real time under a rate limit, beside the client's own retries.

    python -m bench.bench_realtime [--requests 500] [--per-minute 3000]

The emulator takes 0.2 s for an answer and counts by the second: a bucket of one second's requests that fills evenly,
which is how OpenAI says its limits may be enforced. The naive way starts everything at once, as tutorials do, and
leaves the rest to the two retries of the ``openai`` client.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import openai

from airflow_openai_batch.testing.process import EmulatorProcess
from bench.table import print_table
from fixtures.realtime import KEY, make_requests, send

if TYPE_CHECKING:
    from airflow_openai_batch.job.request_line import RequestLine

LATENCY_S = 0.2
CONCURRENCY = 20
"""Of our send: twice what the limit needs at this latency."""
MAX_RATIO = 1.2
OURS = "this package"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--per-minute", type=int, default=3_000)
    options = parser.parse_args()
    requests = make_requests(options.requests)
    ideal_s = options.requests / options.per_minute * 60
    rows = []
    verdict = "NO"
    for title, run in {OURS: send_ours, "gather, the client's retries": send_naively}.items():
        answered, took_s, refused = measure(run, requests, options.per_minute)
        ratio = f"{took_s / ideal_s:.2f}" if answered == len(requests) else "-"
        lost = len(requests) - answered
        rows.append([title, f"{took_s:.1f}", ratio, f"{answered:,}", f"{lost:,}", f"{refused:,}"])
        if title == OURS and not lost and not refused and took_s <= MAX_RATIO * ideal_s:
            verdict = "yes"
    head = ["", "s", "to the limit's time", "answered", "without an answer", "over the limit (429)"]
    title = (
        f"{len(requests):,} requests in real time, {options.per_minute:,} a minute allowed: {ideal_s:.1f} s"
    )
    print_table(title, head, rows)
    print(f"\nwithin {MAX_RATIO} times the limit's time, nothing over the limit: {verdict}")


def measure(
    run: Callable[[str, list[RequestLine], int], int], requests: list[RequestLine], per_minute: int
) -> tuple[int, float, int]:
    """Answers, seconds and refusals, the latter from the server's books."""
    with EmulatorProcess() as emulator:
        emulator.configure(requests_per_minute=per_minute, burst_s=1.0, realtime_latency_s=LATENCY_S)
        began = time.perf_counter()
        answered = run(emulator.base_url, requests, per_minute)
        took_s = time.perf_counter() - began
        calls = Counter(emulator.books()["calls"])
    return answered, took_s, calls["POST /v1/chat/completions 429"]


def send_ours(base_url: str, requests: list[RequestLine], per_minute: int) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-realtime-") as folder:
        limits = {"concurrency": CONCURRENCY, "requests_per_minute": per_minute}
        return send(base_url, Path(folder), requests, **limits).answered


def send_naively(base_url: str, requests: list[RequestLine], per_minute: int) -> int:
    bodies: list[dict[str, Any]] = [msgspec.json.decode(request.line)["body"] for request in requests]

    async def ask_all() -> int:
        async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as client:
            asked = (client.chat.completions.create(**body) for body in bodies)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        return sum(not isinstance(answer, BaseException) for answer in answers)

    return asyncio.run(ask_all())


if __name__ == "__main__":
    main()
