"""Watching 1,000 batches in one triggerer loop, beside the triggers of others.

    python -m bench.bench_watch [--batches 1000] [--seconds 60] [--peer PYTHON]

Each way runs in a process of its own: an event loop with a trigger per batch, as a triggerer has it, against an
emulator whose every call takes 0.2 s. ``OpenAIBatchTrigger`` is the one of apache-airflow-providers-openai 2.2,
``LLMBatchTrigger`` that of apache-airflow-providers-common-ai 1.0, which gets an environment of its own in ``.run``.
A stall is the longest time in which the loop served nobody, with the part in which its thread computed (on a busy
machine the rest is other programs' time); memory is what was added after the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from airflow_openai_batch.testing.process import EmulatorProcess
from bench.table import print_table

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("watch_once.py")
PEER = ("apache-airflow==3.3.2", "apache-airflow-providers-common-ai[openai]==1.0.0", "psutil")
POLL_INTERVAL_S = 10.0
LATENCY_S = 0.2
MAX_CALLS, MAX_STALL_MS, MAX_MEMORY_MB = 12, 50.0, 50.0
OURS = "this package"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--peer", help="a Python with apache-airflow-providers-common-ai")
    parser.add_argument("--without-peer", action="store_true", help="leave LLMBatchTrigger out")
    options = parser.parse_args()
    ways = {OURS: ("ours", sys.executable), "OpenAIBatchTrigger": ("provider", sys.executable)}
    if not options.without_peer and (peer := options.peer or install_peer()):
        ways["LLMBatchTrigger"] = ("common-ai", peer)
    rows = []
    for title, (way, python) in ways.items():
        found = measure(way, python, options.batches, options.seconds)
        rows.append([title, *describe(found, options.batches, options.seconds)])
        if title == OURS:
            verdict = judge(found)
    head = [
        "",
        "calls a cycle",
        "calls a minute",
        "longest stall ms",
        "of it on the CPU",
        "added MB",
        "s until all were polled",
    ]
    print_table(f"Watching {options.batches:,} batches, a look every {POLL_INTERVAL_S:g} s", head, rows)
    print(
        f"\nat most {MAX_CALLS} calls a cycle, no stall over {MAX_STALL_MS:g} ms, "
        f"under {MAX_MEMORY_MB:g} MB: {verdict}"
    )


def measure(way: str, python: str, batches: int, seconds: float) -> dict[str, float]:
    with EmulatorProcess("--duration", "86400") as emulator:
        emulator.configure(creates_per_hour=1_000_000)
        ids = create_batches(emulator.base_url, batches)
        emulator.configure(latency_s=LATENCY_S)
        env = os.environ | {
            "AIRFLOW_CONN_OPENAI_DEFAULT": emulator.airflow_connection(),
            "AIRFLOW_CONN_PYDANTICAI_DEFAULT": json.dumps(
                {"conn_type": "pydanticai", "password": "sk-emulator", "host": emulator.base_url}
            ),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_HOME": str(ROOT / ".run" / "bench-watch"),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "include"), str(ROOT / "tests"))),
        }
        task = {
            "way": way,
            "ids": ids,
            "seconds": seconds,
            "poll_interval_s": POLL_INTERVAL_S,
            "calls_url": f"{emulator.url}/emulator/books",
        }
        done = subprocess.run(
            [python, str(CHILD)], input=json.dumps(task), env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{way}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def create_batches(base_url: str, count: int) -> list[str]:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    headers = {"Authorization": "Bearer sk-emulator"}
    with httpx.Client(base_url=base_url, headers=headers, trust_env=False, timeout=60) as client:
        files = {"file": ("f.jsonl", json.dumps(line).encode())}
        file_id = client.post("/files", data={"purpose": "batch"}, files=files).json()["id"]

        def create(number: int) -> str:
            metadata = {"job_key": f"{number:064x}", "shard": str(number), "input_tokens": "1900000"}
            params = {
                "input_file_id": file_id,
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "metadata": metadata,
            }
            return str(client.post("/batches", json=params).raise_for_status().json()["id"])

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(create, range(count)))


def describe(found: dict[str, float], batches: int, seconds: float) -> Sequence[str]:
    polled = found["polled"]
    all_polled = (
        f"{found['all_polled_s']:.1f}" if polled >= batches else f"> {seconds:.0f} ({polled:,.0f} of them)"
    )
    return [
        f"{found['calls_a_cycle']:,.0f}" if polled >= batches else f"{batches:,}",
        f"{found['calls'] / found['watched_s'] * 60:,.0f}",
        f"{found['stall_ms']:,.0f}",
        f"{found['stall_cpu_ms']:,.0f}",
        f"{found['added_mb']:,.0f}",
        all_polled,
    ]


def judge(found: dict[str, float]) -> str:
    good = (
        found["calls_a_cycle"] <= MAX_CALLS
        and found["stall_ms"] <= MAX_STALL_MS
        and found["added_mb"] <= MAX_MEMORY_MB
    )
    return "yes" if good else "NO"


def install_peer() -> str | None:
    """A Python with the peer and an Airflow of its own; takes minutes the first time."""
    home = ROOT / ".run" / "bench-watch-peer"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        began = time.monotonic()
        venv.create(home, with_pip=True)
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], check=False)
        if done.returncode:
            print(f"LLMBatchTrigger is left out: {' '.join(PEER)} could not be installed.")
            return None
        (home / "ready").touch()
        print(f"Installed {PEER[1]} in {time.monotonic() - began:.0f} s.")
    return str(python)


if __name__ == "__main__":
    main()
