"""Airflow's local settings under chaos: the waits that are minutes in earnest are seconds here.

Nothing but the length of waits is changed, and only in the processes of this Airflow.
"""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

RETRY_DELAY = timedelta(seconds=2)
MAX_RETRY_DELAY = timedelta(seconds=8)

POLICY_S = {
    "create_timeout_s": 5.0,
    "realtime_claim_s": 15.0,
    "queue_wait_s": 1.0,
    "queue_wait_max_s": 6.0,
    "grace_s": 5.0,  # after a batch's expiry, which the emulator sets to `stage.WINDOW_S`
}
WAITS_S: dict[str, dict[str, Any]] = {
    "airflow_openai_batch.sending.result_looks": {"LOOK_WAITS_S": (2.0,)},
    "airflow_openai_batch.sending.declined_calls": {"PUT_OFF_LEAST_S": 1.0, "PUT_OFF_LEAST_MAX_S": 4.0},
    "airflow_openai_batch.sending.machine": {"FILE_WAITS_S": (1.0, 1.0, 2.0, 2.0), "NEW_BATCH_LOOK_S": 2.0},
    "airflow_openai_batch.job.folding": {"FILE_WAITS_S": (1.0, 1.0, 2.0, 2.0)},
    "airflow_openai_batch.sending.queue.line": {"RESERVED_S": 15.0, "HEAD_WAIT_S": 20.0},
    "airflow_openai_batch.sending.queue.backpressure": {"MAX_WAIT_S": 8.0, "PROBE_S": 10.0},
    "airflow_openai_batch.sending.breaker": {"OPEN_S": 10.0},
    "airflow_openai_batch.sending.realtime.pacing": {"BACKOFF_MAX_S": 4.0},
    "airflow_openai_batch.triggers.stall": {"WAIT_MAX_S": 4.0},
}
"""Of modules that do not need Airflow, which is not ready while it reads its settings."""


def shorten_waits() -> None:
    """:raises AttributeError: if a wait has another name now."""
    for name, constants in WAITS_S.items():
        module = importlib.import_module(name)
        for constant, value in constants.items():
            getattr(module, constant)
            setattr(module, constant, value)


def shorten_patience() -> None:
    """Defaults of the policy, and the client's waits between tries."""
    from airflow_openai_batch.openai_api import retrying
    from airflow_openai_batch.sending.policy import Policy

    defaults = Policy.__init__.__kwdefaults__
    assert defaults.keys() >= POLICY_S.keys()
    defaults.update(POLICY_S)
    for each in (retrying.RETRY, retrying.DOWNLOAD_RETRY, retrying.DESCRIBE_RETRY):
        each.wait.max = 3.0


def task_policy(task: Any) -> None:
    """Called by Airflow for each task of each DAG it reads."""
    task.retry_delay = RETRY_DELAY
    task.max_retry_delay = MAX_RETRY_DELAY


shorten_waits()
shorten_patience()
