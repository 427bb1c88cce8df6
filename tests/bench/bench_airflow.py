"""What Airflow costs per shard: worker processes and wall time, for shards that end at once.

    python -m bench.bench_airflow [--shards 20] [--rounds 5]

Real scheduler, triggerer, DAG processor and API server on SQLite with four worker slots; the emulator answers.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_openai_batch.testing.server import OpenAIServer
from bench.table import print_table
from demo.openai_side import OpenAISide
from demo.standalone import ROOT, LocalAirflow, allow_forms
from fixtures.job import chat_line

HERE = Path(__file__).parent
OURS = ("openai_batch", "openai_batch_one_task", "whole_job")
PEER = "provider_batches"
PLACES = (ROOT / "dags", HERE / "airflow_dags")
PER_SHARD = 10
PATIENCE_S = 3600.0
"""With a run, on a machine that is busy with other things."""
_TAKEN_UP = re.compile(r"method=PATCH path=/execution/task-instances/[0-9a-f-]+/run .*status_code=200")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a DAG took."""

    wall_s: float
    starts: int
    """Of workers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-airflow-") as folder:
        measure(Path(folder), options.shards, options.rounds)


def measure(folder: Path, shards: int, rounds: int) -> None:
    lines = [chat_line(str(number)) for number in range(shards * PER_SHARD)]
    source = folder / "requests.jsonl"
    source.write_text("".join(f"{line}\n" for line in lines))
    split = folder / "split"
    split.mkdir()
    for shard in range(shards):
        part = lines[shard * PER_SHARD : (shard + 1) * PER_SHARD]
        (split / f"{shard:05d}.jsonl").write_text("".join(f"{line}\n" for line in part))
    dags = folder / "dags"
    dags.mkdir()
    for name in (*OURS, PEER):
        shutil.copy(next(path for place in PLACES if (path := place / f"{name}.py").exists()), dags)
    with OpenAIServer() as server:
        side = OpenAISide(server.base_url, "sk-bench", emulated=True)
        env = side.connection() | allow_forms(folder)
        airflow = LocalAirflow(folder / "airflow", dags=dags, env=env)
        with contextlib.ExitStack() as stack:
            stack.callback(airflow.stop)
            airflow.start(timeout_s=math.inf)  # it says what it waits for
            runs: dict[str, list[Run | None]] = {name: [] for name in (*OURS, PEER)}
            for _ in range(rounds + 1):
                for name, found in runs.items():
                    conf = {"folder": str(split)} if name == PEER else our_conf(folder, source, name)
                    found.append(run_once(airflow, name, conf))
    report({name: found[1:] for name, found in runs.items()}, shards)  # the first round warms up


def run_once(airflow: LocalAirflow, name: str, conf: dict[str, object]) -> Run | None:
    """What a run took that succeeded.

    Not each of the provider's does: its triggers may fire before the process that deferred is gone, and Airflow takes
    the end of that one for the end of the task.
    """
    airflow.wait_for_dag(name, timeout_s=PATIENCE_S)
    before, began = count_starts(airflow), time.perf_counter()
    run = airflow.trigger(name, conf)
    state = airflow.wait(run, timeout_s=PATIENCE_S, every_s=0.25)
    took_s = time.perf_counter() - began
    if state == "success":
        return Run(took_s, count_starts(airflow) - before)
    bad = Counter(state for state in airflow.states(run).values() if state != "success")
    print(f"{name} {state}: {dict(bad)}", flush=True)
    return None


def our_conf(folder: Path, source: Path, name: str) -> dict[str, object]:
    return {
        "input_uri": str(source),
        "output_uri": f"file://{folder}/jobs/{name}-{{run_id}}",
        "max_requests_per_shard": PER_SHARD,
        "poll_interval": 1,
        "mode": "batch",
    }


def count_starts(airflow: LocalAirflow) -> int:
    """Worker processes so far: each one tells the API server that it takes a task up, also one that is resumed.

    A listener would count them too, but where there is one, Airflow's triggerer ends no task for us.
    """
    log = airflow.home / "components" / "api-server.log"
    return len(_TAKEN_UP.findall(log.read_text(errors="replace")))


def report(runs: Mapping[str, Sequence[Run | None]], shards: int) -> None:
    """Of the runs that succeeded."""
    good = {name: [run for run in found if run is not None] for name, found in runs.items()}
    seconds = {name: statistics.median(run.wall_s for run in each) for name, each in good.items() if each}
    rows = [
        (
            name,
            f"{statistics.mean(run.starts for run in each):.0f}",
            f"{statistics.mean(run.starts for run in each) / shards:.2f}",
            f"{seconds[name]:.1f}",
            f"{seconds[name] / shards:.2f}",
            f"{seconds[name] / seconds[PEER]:.2f}" if PEER in seconds else "-",
            f"{len(runs[name]) - len(each)} of {len(runs[name])}",
        )
        for name, each in good.items()
        if each
    ]
    head = (
        "DAG",
        "worker starts",
        "per shard",
        "wall s",
        "s per shard",
        "to the provider's",
        "runs that failed",
    )
    print_table(f"{shards} shards that end at once, median of the runs", head, rows)


if __name__ == "__main__":
    main()
