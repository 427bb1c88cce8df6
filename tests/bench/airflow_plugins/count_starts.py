"""Counts worker processes: Airflow tells a listener each time one takes a task up, resumed ones too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


class StartCounter:
    """Adds a line to the file named by BENCH_STARTS for each worker process."""

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        with Path(os.environ["BENCH_STARTS"]).open("a") as file:
            file.write(f"{task_instance.dag_id} {task_instance.run_id} {task_instance.task_id}\n")


class StartCounterPlugin(AirflowPlugin):
    """Hands the listener to Airflow."""

    name = "bench_start_counter"
    listeners = [StartCounter()]  # noqa: RUF012 - the attribute Airflow reads
