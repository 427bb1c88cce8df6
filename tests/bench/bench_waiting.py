"""What shards that wait cost Airflow's scheduler and triggerer, while OpenAI works and nothing else is to be done.

    python -m bench.bench_waiting [--shards 40 120] [--seconds 20]

The scheduler looks in each of its loops at every task instance that waits for another one, and not at those that wait
in the triggerer; so it matters how many tasks each shard has. Same Airflow as in `bench_airflow`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_openai_batch.testing.server import OpenAIServer
from bench.bench_airflow import OURS, PATIENCE_S, PEER, make_conf, open_airflow, write_input
from bench.table import print_table
from demo.api import FINAL_STATES

if TYPE_CHECKING:
    from demo.standalone import LocalAirflow

PARTS = ("scheduler", "triggerer")
SETTLES_S = 4.0
"""After the last shard has begun to wait."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=(40, 120))
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-waiting-") as folder:
        measure(Path(folder), sorted(options.shards), options.seconds)


def measure(folder: Path, sizes: Sequence[int], seconds: float) -> None:
    for shards in sizes:
        write_input(folder / f"{shards}", shards)
    rows = []
    with OpenAIServer(in_progress_s=1e6) as server, open_airflow(folder, server, (*OURS, PEER)) as airflow:
        for name in (*OURS, PEER):
            for shards in sizes:
                conf = make_conf(folder, folder / f"{shards}", name)
                rows.append((name, f"{shards}", *rest_once(airflow, name, conf, shards, seconds)))
    print_table(
        f"Shards that wait for their batches, over {seconds:.0f} s",
        ("DAG", "shards", "tasks that wait for others", *(f"{part}, % of a core" for part in PARTS)),
        rows,
    )


def rest_once(
    airflow: LocalAirflow, name: str, conf: dict[str, object], shards: int, seconds: float
) -> list[str]:
    """Tasks that wait for others, and what each component used meanwhile; the run is given up then."""
    airflow.wait_for_dag(name, timeout_s=PATIENCE_S)
    run = airflow.trigger(name, conf)
    wanted = 1 if name == "whole_job" else shards
    while (states := list(airflow.states(run).values())).count("deferred") < wanted:
        if airflow.state(run) in FINAL_STATES:
            raise SystemExit(airflow.explain(run))
        time.sleep(1)
    time.sleep(SETTLES_S)
    before = [read_cpu_s(airflow, part) for part in PARTS]
    time.sleep(seconds)
    used = [read_cpu_s(airflow, part) - began for part, began in zip(PARTS, before, strict=True)]
    airflow.mark_run(run, "failed")
    time.sleep(SETTLES_S)
    return [f"{states.count('none'):,}", *(f"{cpu_s / seconds:.0%}".rstrip("%") for cpu_s in used)]


def read_cpu_s(airflow: LocalAirflow, name: str) -> float:
    """Of all its processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in airflow.component(name).family())


if __name__ == "__main__":
    main()
