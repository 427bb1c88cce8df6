"""What Airflow costs per shard: worker processes and wall time, for shards that end at once.

    python -m bench.bench_airflow [--shards 20] [--rounds 3]

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
TRIES = 5
PATIENCE_S = 3600.0
"""With a run, on a machine that is busy with other things."""
_TAKEN_UP = re.compile(r"method=PATCH path=/execution/task-instances/[0-9a-f-]+/run .*status_code=200")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
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
            seconds: dict[str, list[float]] = {name: [] for name in (*OURS, PEER)}
            starts: Counter[str] = Counter()
            for number in range(rounds + 1):  # the first round warms up
                for name in seconds:
                    conf = {"folder": str(split)} if name == PEER else our_conf(folder, source, name)
                    took_s, started = run_once(airflow, name, conf)
                    if number:
                        seconds[name].append(took_s)
                        starts[name] += started
    report(starts, seconds, shards, rounds)


def run_once(airflow: LocalAirflow, name: str, conf: dict[str, object]) -> tuple[float, int]:
    """The seconds and the worker starts of a run that succeeds.

    The provider's triggers fire before the process that deferred is gone, and then Airflow may take the end of that one
    for the end of the task. Such a run counts for nobody.
    """
    airflow.wait_for_dag(name, timeout_s=PATIENCE_S)
    for _ in range(TRIES):
        before, began = count_starts(airflow), time.perf_counter()
        run = airflow.trigger(name, conf)
        state = airflow.wait(run, timeout_s=PATIENCE_S, every_s=0.25)
        took_s = time.perf_counter() - began
        if state == "success":
            return took_s, count_starts(airflow) - before
        bad = Counter(state for state in airflow.states(run).values() if state != "success")
        print(f"{name} {state} ({dict(bad)}) and is run once more.", flush=True)
    raise SystemExit(airflow.explain(run))


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


def report(starts: Counter[str], seconds: dict[str, list[float]], shards: int, rounds: int) -> None:
    peer_s = statistics.median(seconds[PEER])
    rows = []
    for name, took in seconds.items():
        median_s = statistics.median(took)
        rows.append(
            (
                name,
                f"{starts[name] / rounds:.0f}",
                f"{starts[name] / rounds / shards:.2f}",
                f"{median_s:.1f}",
                f"{median_s / shards:.2f}",
                f"{median_s / peer_s:.2f}",
            )
        )
    head = ("DAG", "worker starts", "per shard", "wall s", "s per shard", "to the provider's")
    print_table(f"{shards} shards that end at once, median of {rounds}", head, rows)


if __name__ == "__main__":
    main()
