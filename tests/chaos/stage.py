"""Where it happens: Airflow on PostgreSQL with two triggerers, and the emulator beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_openai_batch.testing.process import EmulatorProcess
from chaos.warm_airflow import WarmAirflow
from demo.standalone import ROOT, LocalAirflow, allow_forms
from fixtures.postgres import run_postgres

KEY = "sk-chaos-Zb4qR9"
"""Must never stand in a log."""
WINDOW_S = 32.0
"""Of every batch, in place of OpenAI's 24 hours; usual batches take a few seconds."""
QUEUED_MODEL = "gpt-4.1-mini"
QUEUE_LIMIT = 2_500
"""Enqueued tokens of that model: a part of the shards that want in."""

SLOWNESS = min(2.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
"""On a machine that is busy with other things all takes longer, and what is slow must not be taken for dead."""


def make_settings() -> dict[str, int | float]:
    """Airflow's, so that a task without its worker and a trigger without its triggerer go on after seconds."""
    missed_s = round(10 * SLOWNESS)
    return {
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": missed_s + 5,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": 3,
        "SCHEDULER__TASK_QUEUED_TIMEOUT": 4 * missed_s,
        "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": 10,
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 8,
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": missed_s,
        "SCHEDULER__JOB_HEARTBEAT_SEC": 2,
        "SCHEDULER__PARSING_CLEANUP_INTERVAL": 600,
        "TRIGGERER__JOB_HEARTBEAT_SEC": 2,
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": missed_s,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 300,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 300,
    }


def _copy_dags(folder: Path) -> Path:
    """The two that are played; every other one would be read anew after each restart."""
    folder.mkdir()
    for name in ("openai_batch.py", "openai_batch_one_task.py"):
        shutil.copy(ROOT / "dags" / name, folder)
    return folder


@dataclass(frozen=True, slots=True)
class Stage:
    """One Airflow and one OpenAI for all runs."""

    folder: Path
    airflow: LocalAirflow
    emulator: EmulatorProcess


@contextlib.contextmanager
def set_stage(folder: Path, seed: int) -> Iterator[Stage]:
    """Everything started and healthy; gone with the block."""
    home = folder / "airflow"
    (home / "config").mkdir(parents=True)
    (home / "config" / "airflow_local_settings.py").write_text(
        "from chaos.local_settings import task_policy  # noqa: F401\n"
    )
    arguments = ["--seed", str(seed), "--validating", "0.5", "--duration", "3", "--finalizing", "0.5"]
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(EmulatorProcess(*arguments))
        emulator.configure(
            window_s=WINDOW_S, cancelling_s=1.0, queue_limits={QUEUED_MODEL: QUEUE_LIMIT}, api_keys=[KEY]
        )
        # The workers of a killed scheduler hold its database sockets open, and with them its locks.
        options = {"idle_in_transaction_session_timeout": "6s", "max_connections": 200}
        database = stack.enter_context(run_postgres(**options))
        env = {f"AIRFLOW__{name}": str(value) for name, value in make_settings().items()}
        own = (f"openai-chaos-{seed}-{number}" for number in range(500))  # of runs whose key is rotated
        env |= allow_forms(folder) | {
            "AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS": ", ".join(["openai_default", *own]),
            # Either DAG may go on with the job of the other, so that two of them can be at it at once.
            "AIRFLOW__OPENAI_BATCH__RENAMED_DAGS": (
                "openai_batch=openai_batch_one_task, openai_batch_one_task=openai_batch"
            ),
            "AIRFLOW_CONN_OPENAI_DEFAULT": emulator.airflow_connection(KEY),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow@{database}/airflow",
            "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'tests'}",
            # No certificate is needed on 127.0.0.1, and to read them all takes each task 50 ms.
            "SSL_CERT_FILE": "",
            "SSL_CERT_DIR": str(home / "config"),
        }
        airflow = WarmAirflow(home, dags=_copy_dags(folder / "dags"), env=env, parallelism=8, triggerers=2)
        stack.enter_context(airflow)
        yield Stage(folder, airflow, emulator)
