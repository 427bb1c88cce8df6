"""Airflow's scheduler with what tasks need imported beforehand.

The local executor forks a process for each task, and each would spend two seconds on importing the OpenAI client and
Arrow and on looking which storages the installed providers bring; what the scheduler has, its forks have too.
"""

from __future__ import annotations

import sys

import openai.resources.batches
import openai.resources.chat.completions
import openai.resources.files
import pyarrow.parquet  # noqa: F401
from airflow.__main__ import main
from airflow.sdk.io.fs import has_fs

import airflow_openai_batch.hook
import airflow_openai_batch.operators.download
import airflow_openai_batch.operators.report
import airflow_openai_batch.operators.split
import airflow_openai_batch.realtime
import airflow_openai_batch.sensors.batch
import airflow_openai_batch.triggers.batch
import airflow_openai_batch.triggers.room  # noqa: F401


def warm_up() -> None:
    """What importing alone does not do."""
    has_fs("file")  # reads what all providers say of themselves
    openai.OpenAI(api_key="none").close()  # imports what the first client needs


if __name__ == "__main__":
    warm_up()
    sys.argv = ["airflow", "scheduler", *sys.argv[1:]]
    main()  # type: ignore[no-untyped-call]
