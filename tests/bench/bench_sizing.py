"""What grows with the number of requests: memory of the splitter, the plan, the files of a job, the rows.

    python -m bench.bench_sizing [--million 0.5 1] [--landings 8] [--answers 20000]

The inputs of the table in docs/many-machines.md, which calculates on from here; and several shards that land at once on
one machine, with a limit and without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from airflow_openai_batch.job.directory import PLAN
from bench.bench_landing import CHAT, land, preload, write_chat_answers, write_requests
from bench.bench_split import ROOT, watch
from bench.table import print_table

LIMITS = {"limit of 2": 2, "no limit": 1_000}
"""Landings at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", type=float, nargs="*", default=[0.5, 1])
    parser.add_argument("--landings", type=int, default=8)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "NAME", "LIMIT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, name, limit = options.child
        land_one(Path(folder), name, options.answers, int(limit))
        return
    with tempfile.TemporaryDirectory(prefix="bench-sizing-") as name:
        folder = Path(name)
        show_landings(folder, options.landings, options.answers)
        show_splits(folder, options.million)


def show_splits(folder: Path, millions: list[float]) -> None:
    """Short requests, since what grows is what is kept of each line."""
    rows = []
    for million in millions:
        source, output = folder / f"{million}.jsonl", folder / f"job-{million}"
        with source.open("w") as file:
            for number in range(int(million * 1e6)):
                body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Good? {number}"}]}
                line = {"custom_id": f"review/{number}", "method": "POST", "url": CHAT, "body": body}
                file.write(json.dumps(line) + "\n")
        run = watch(
            [sys.executable, "-m", "bench.split_once", str(source), str(output), "auto", "0"],
            ROOT,
        )
        plan = (output / PLAN).read_bytes()
        shards = len(json.loads(plan)["shards"])
        rows.append(
            [
                f"{million:g}",
                f"{shards}",
                f"{run.wall_s:.1f}",
                f"{run.peak_mb:.0f}",
                f"{len(plan) / shards:.0f}",
            ]
        )
        source.unlink()
    print_table(
        "Splitting short requests, tokens not counted",
        ["millions", "shards", "s", "peak MB", "plan bytes a shard"],
        rows,
    )


def show_landings(folder: Path, landings: int, answers: int) -> None:
    write_requests(folder, answers, CHAT, {"messages": [{"role": "user", "content": "Say something. " * 20}]})
    write_chat_answers(folder, answers)
    rows = []
    for title, limit in LIMITS.items():
        seconds, peak_mb = land_at_once(folder, landings, answers, limit)
        rows.append([title, f"{seconds:.1f}", f"{peak_mb:,.0f}"])
    print_table(
        f"{landings} shards of {answers:,} answers landing at once on {os.cpu_count()} cores",
        ["", "s", "peak MB, all processes (PSS)"],
        rows,
    )
    part = folder / "0" / "part-00000.parquet"
    raw = folder / "output.jsonl"
    print(
        f"\na row: {raw.stat().st_size / answers:,.0f} bytes in raw/, {part.stat().st_size / answers:,.0f} in Parquet"
    )


def land_at_once(folder: Path, landings: int, answers: int, limit: int) -> tuple[float, float]:
    """Seconds, and the peak of the sum of all processes in MB."""
    (folder / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bench.bench_sizing", "--answers", str(answers), "--child", str(folder)]
    began, peak = time.perf_counter(), 0
    processes = [
        subprocess.Popen(
            [*command, str(number), str(limit)], env={**os.environ, "TMPDIR": str(folder / "tmp")}
        )
        for number in range(landings)
    ]
    while any(process.poll() is None for process in processes):
        peak = max(peak, sum(read_pss(process.pid) for process in processes))
        time.sleep(0.2)
    if any(process.returncode for process in processes):
        raise SystemExit("a landing failed")
    return time.perf_counter() - began, peak / 1e6


def read_pss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0


def land_one(folder: Path, name: str, answers: int, limit: int) -> None:
    from airflow_openai_batch.results.landing_slots import take_landing_slot

    preload("landing")
    own = folder / name
    own.mkdir(exist_ok=True)
    for file in ("requests.jsonl", "output.jsonl"):
        if not (own / file).exists():
            (own / file).symlink_to(folder / file)
    with take_landing_slot(limit, lambda: None):
        land(own, answers, "")


if __name__ == "__main__":
    main()
