"""Where a job of any size runs: Airflow on PostgreSQL and the emulator, each part a process of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from airflow_openai_batch.testing.process import EmulatorProcess
from demo.standalone import ROOT, LocalAirflow, allow_forms
from fixtures.postgres import run_postgres

MODEL = "gpt-4o-mini"
"""Of `bench.bench_split.write_requests`."""
TIER_1_TOKENS = 2_000_000
"""What tier 1 allows in the batch queue of that model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to send the same requests."""

    name: str
    dag: str = "openai_batch"
    conf: Mapping[str, object] = field(default_factory=dict)
    queue_tokens: int | None = None
    """What fits into the server's queue at once; the server then counts tokens as a split does."""


_TIER_1 = Variant(
    name="through a queue of tier 1",
    conf={"max_tokens_per_shard": TIER_1_TOKENS * 95 // 100, "enqueued_token_limit": TIER_1_TOKENS},
    queue_tokens=TIER_1_TOKENS,
)
VARIANTS = (
    Variant(name="by requests alone"),
    _TIER_1,
    replace(_TIER_1, name="through a queue of tier 1, one task a shard", dag="openai_batch_one_task"),
)


@dataclass(frozen=True, slots=True)
class MillionStage:
    """What runs."""

    airflow: LocalAirflow
    emulator: EmulatorProcess


@contextlib.contextmanager
def set_stage(folder: Path, variant: Variant, *, parallelism: int) -> Iterator[MillionStage]:
    """Everything started and healthy; gone with the block.

    :param folder: below the one that forms may name.
    :param parallelism: tasks at once.
    """
    dags = folder / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags" / f"{variant.dag}.py", dags)
    with contextlib.ExitStack() as stack:
        # Counters by request would grow with the requests; sums tell as well that each was answered once.
        arguments = ["--no-detail", "--data-dir", str(folder / "server")]
        if variant.queue_tokens is not None:
            arguments += ["--count-tokens", "exact", "--queue-limit", f"{MODEL}={variant.queue_tokens}"]
        emulator = stack.enter_context(EmulatorProcess(*arguments))
        database = stack.enter_context(run_postgres(max_connections=200))
        env = allow_forms(folder.parent) | {
            "AIRFLOW_CONN_OPENAI_DEFAULT": emulator.airflow_connection(),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow@{database}/airflow",
        }
        airflow = LocalAirflow(folder / "airflow", dags=dags, env=env, parallelism=parallelism)
        yield MillionStage(stack.enter_context(airflow), emulator)
