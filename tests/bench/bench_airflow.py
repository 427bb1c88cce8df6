"""What Airflow costs per shard: worker processes and wall time, for shards that end at once.

    python -m bench.bench_airflow [--shards 20 40] [--rounds 3]

Jobs of two sizes, since a small one waits: for Airflow's loops, whose steps of a second come one after another, and for
what is done once a job. What a shard costs is what the further ones of the larger job take.

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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from airflow_openai_batch.testing.server import OpenAIServer
from bench.table import print_table
from demo.openai_side import OpenAISide
from demo.processes import exit_on_signals
from demo.standalone import ROOT, LocalAirflow, allow_forms
from fixtures.job import chat_line

HERE = Path(__file__).parent
OURS = ("openai_batch", "openai_batch_one_task", "whole_job")
PEER = "provider_batches"
PLACES = (ROOT / "dags", HERE / "airflow_dags")
PER_SHARD = 10
PATIENCE_S = 3600.0
"""With a run, on a machine that is busy with other things."""
LOOK_S = 2.0
"""Airflow's API reads all task instances of a run to tell its state, which is not to be what is measured."""
_TAKEN_UP = re.compile(r"method=PATCH path=/execution/task-instances/[0-9a-f-]+/run .*status_code=200")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a DAG took."""

    wall_s: float
    starts: int
    """Of workers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs=2, default=(20, 40), metavar=("SMALL", "LARGE"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-airflow-") as folder:
        measure(Path(folder), sorted(options.shards), options.rounds)


def write_input(folder: Path, shards: int) -> None:
    """The same requests as one file, and split by somebody else."""
    lines = [chat_line(str(number)) for number in range(shards * PER_SHARD)]
    split = folder / "split"
    split.mkdir(parents=True)
    (folder / "requests.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for shard in range(shards):
        part = lines[shard * PER_SHARD : (shard + 1) * PER_SHARD]
        (split / f"{shard:05d}.jsonl").write_text("".join(f"{line}\n" for line in part))


def measure(folder: Path, sizes: Sequence[int], rounds: int) -> None:
    inputs = {shards: folder / f"{shards}" for shards in sizes}
    for shards, place in inputs.items():
        write_input(place, shards)
    with OpenAIServer() as server, open_airflow(folder, server, (*OURS, PEER)) as airflow:
        runs: dict[tuple[str, int], list[Run | None]] = {
            (name, shards): [] for name in (*OURS, PEER) for shards in sizes
        }
        for _ in range(rounds + 1):
            for (name, shards), found in runs.items():
                found.append(run_once(airflow, name, make_conf(folder, inputs[shards], name)))
    report({key: found[1:] for key, found in runs.items()}, sizes)  # the first round warms up


@contextlib.contextmanager
def open_airflow(folder: Path, server: OpenAIServer, dag_ids: Sequence[str]) -> Iterator[LocalAirflow]:
    """An Airflow with these DAGs, healthy, for the block."""
    dags = folder / "dags"
    dags.mkdir()
    for dag_id in dag_ids:
        shutil.copy(next(path for place in PLACES if (path := place / f"{dag_id}.py").exists()), dags)
    side = OpenAISide(server.base_url, "sk-bench", emulated=True)
    airflow = LocalAirflow(folder / "airflow", dags=dags, env=side.connection() | allow_forms(folder))
    with exit_on_signals(), contextlib.ExitStack() as stack:
        stack.callback(airflow.stop)
        airflow.start(timeout_s=math.inf)  # it says what it waits for
        yield airflow


def run_once(airflow: LocalAirflow, name: str, conf: dict[str, object]) -> Run | None:
    """What a run took that succeeded.

    Not each of the provider's does: its triggers may fire before the process that deferred is gone, and Airflow takes
    the end of that one for the end of the task.
    """
    airflow.wait_for_dag(name, timeout_s=PATIENCE_S)
    before, began = count_starts(airflow), datetime.now(UTC)
    run = airflow.trigger(name, conf)
    state = airflow.wait(run, timeout_s=PATIENCE_S, every_s=LOOK_S)
    if state == "success":
        return Run((read_end(airflow, run.path) - began).total_seconds(), count_starts(airflow) - before)
    bad = Counter(state for state in airflow.states(run).values() if state != "success")
    print(f"{name} {state}: {dict(bad)}", flush=True)
    return None


def read_end(airflow: LocalAirflow, run_path: str) -> datetime:
    """Of a run that has ended, as Airflow says."""
    return datetime.fromisoformat(airflow.get(run_path)["end_date"])


def make_conf(folder: Path, place: Path, name: str) -> dict[str, object]:
    if name == PEER:
        return {"folder": str(place / "split")}
    return {
        "input_uri": str(place / "requests.jsonl"),
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


def report(runs: Mapping[tuple[str, int], Sequence[Run | None]], sizes: Sequence[int]) -> None:
    """Of the runs that succeeded."""
    small, large = sizes
    good = {key: [run for run in found if run is not None] for key, found in runs.items()}
    wall_s = {key: statistics.median(run.wall_s for run in each) for key, each in good.items() if each}
    further_s = {
        name: (wall_s[name, large] - wall_s[name, small]) / (large - small)
        for name in (*OURS, PEER)
        if (name, small) in wall_s and (name, large) in wall_s
    }
    rows = [
        (
            name,
            f"{statistics.mean(run.starts for run in good[name, large]) / large:.2f}",
            *(
                f"{wall_s[name, size]:.1f} ({wall_s[name, size] / wall_s[PEER, size]:.2f})"
                for size in sizes
                if (PEER, size) in wall_s
            ),
            f"{seconds:.2f} ({seconds / further_s[PEER]:.2f})" if PEER in further_s else f"{seconds:.2f}",
            f"{sum(run is None for size in sizes for run in runs[name, size])} of "
            f"{sum(len(runs[name, size]) for size in sizes)}",
        )
        for name, seconds in further_s.items()
    ]
    head = (
        "DAG",
        "worker starts a shard",
        *(f"wall s, {size} shards" for size in sizes),
        "s for each further shard",
        "runs that failed",
    )
    print_table("Shards that end at once, medians; in brackets: to the provider's", head, rows)


if __name__ == "__main__":
    main()
