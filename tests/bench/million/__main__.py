"""A million requests (1.1 GB) through a real scheduler, triggerer and PostgreSQL, against the emulator.

    python -m bench.million [--requests 100000] [--parallelism 4] [--only tier] [--folder PATH]

Once in shards of 50,000 requests that go out at once, and once in shards that pass one by one through the batch queue
of an account of tier 1, in five tasks a shard and in one. It takes 40 minutes and 6 GB of disk, which are free again
at its end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.bench_airflow import LOOK_S, count_starts, read_end
from bench.bench_split import write_requests
from bench.million.job_account import StepTime, find_faults, read_hand_times, read_times
from bench.million.process_watch import SUPERVISORS, ProcessWatch
from bench.million.stage import VARIANTS, Variant, set_stage
from bench.table import print_table
from demo.processes import exit_on_signals
from demo.progress import ProgressLine

POLL_S = 2
"""Between two looks at the batches, which end within seconds here."""
PATIENCE_S = 4 * 3600.0
TOLD_EVERY_S = 30.0


def main() -> int:
    options = read_options()
    with exit_on_signals(), tempfile.TemporaryDirectory(prefix="bench-million-", dir=options.folder) as name:
        folder = Path(name)
        source = folder / "requests.jsonl"
        say(f"Writing {options.requests:,} requests")
        write_requests(source, options.requests)
        faults = []
        for variant in VARIANTS:
            if options.only in variant.name:
                faults += measure(folder / variant.name.replace(" ", "-"), source, variant, options)
    for fault in faults:
        print(f"WRONG: {fault}", file=sys.stderr)
    return bool(faults)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--requests", type=int, default=1_000_000)
    add("--parallelism", type=int, default=4, help="tasks at once (default: %(default)s)")
    add("--only", default="", metavar="WORDS", help="the variants with these words in their name")
    add("--folder", type=Path, help="where everything lies; the folder for temporary files by default")
    return parser.parse_args()


def measure(folder: Path, source: Path, variant: Variant, options: argparse.Namespace) -> list[str]:
    """Run one job, print its tables, and return what is wrong with what it left."""
    folder.mkdir()
    say(f"Starting Airflow on PostgreSQL: {options.requests:,} requests, {variant.name}")
    with set_stage(folder, variant, parallelism=options.parallelism) as stage:
        airflow, job = stage.airflow, folder / "job"
        airflow.wait_for_dag(variant.dag, timeout_s=PATIENCE_S)
        conf = {
            "input_uri": str(source),
            "output_uri": f"file://{job}",
            "poll_interval": POLL_S,
            "mode": "batch",
        }
        starts = count_starts(airflow)
        with ProcessWatch() as watch:
            began = datetime.now(UTC)
            run = airflow.trigger(variant.dag, conf | dict(variant.conf))
            state = airflow.wait(run, timeout_s=PATIENCE_S, every_s=LOOK_S, watch=RareProgress(airflow, run))
        if state != "success":
            raise SystemExit(airflow.explain(run))
        tasks = {each["id"]: each["task_id"] for each in airflow.task_instances(run)}
        wall_s = (read_end(airflow, run.path) - began).total_seconds()
        starts = count_starts(airflow) - starts
        books = stage.emulator.books()
    times = read_times(watch.looks, tasks, read_hand_times(job))
    title = f"{options.requests:,} requests ({source.stat().st_size / 1e6:,.0f} MB), {variant.name}"
    print_times(f"{title}: where {wall_s:,.0f} s went", times)
    print_parts(title, watch, tasks)
    print_counts(title, starts, books)
    faults = find_faults(job, books, options.requests)
    shutil.rmtree(folder)
    return [f"{variant.name}: {fault}" for fault in faults]


class RareProgress(ProgressLine):
    """A line a while: to ask for hundreds of task instances every second would be work, too."""

    _next_at = 0.0

    def __call__(self) -> None:
        if (now := time.monotonic()) >= self._next_at:
            self._next_at = now + TOLD_EVERY_S
            super().__call__()


def print_times(title: str, times: Mapping[str, StepTime]) -> None:
    rows = [(step, f"{took.wall_s:.0f}", f"{took.worker_s:.0f}") for step, took in times.items()]
    print_table(title, ("", "wall s", "process s"), rows)


def print_parts(title: str, watch: ProcessWatch, tasks: Mapping[str, str]) -> None:
    """Memory and CPU of what is always there, and of the largest process of each kind of task."""
    largest: Counter[str] = Counter()
    for part, size_mb in watch.peak_mb.items():
        name = f"a task of {tasks[part].rpartition('.')[2]}" if part in tasks else part
        largest[name] = max(largest[name], size_mb)
    names = {name: "tasks and their supervisors" if name == SUPERVISORS else name for name in watch.cpu_s}
    cpu = {names[name]: spent for name, spent in watch.cpu_s.items()}
    largest["tasks and their supervisors"] = largest.pop(SUPERVISORS, 0)
    rows = [
        (name, f"{size_mb:.0f}", f"{cpu[name]:.0f}" if name in cpu else "")
        for name, size_mb in sorted(largest.items(), key=lambda item: -item[1])
    ]
    print_table(f"{title}: processes", ("", "peak MB", "CPU s"), rows)


def print_counts(title: str, starts: int, books: Mapping[str, Any]) -> None:
    found = {
        "worker starts": starts,
        "batches": len(books["batches"]),
        "batches refused": sum(books["refusals"].values()),
        "input tokens in the queue, at most": max(books["peak_enqueued"].values()),
        **dict(sorted(books["calls"].items())),
    }
    print_table(f"{title}: calls", ("", "number"), [(name, f"{count:,}") for name, count in found.items()])


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
