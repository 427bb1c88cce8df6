"""Airflow's scheduler with the package imported beforehand.

The local executor forks a process for each task, and each would spend a second or more on importing the
OpenAI client and Arrow; what the scheduler has imported, its forks have too.
"""

from __future__ import annotations

import sys

import pyarrow.parquet  # noqa: F401
from airflow.__main__ import main

import airflow_openai_batch.operators.download
import airflow_openai_batch.operators.report
import airflow_openai_batch.operators.split
import airflow_openai_batch.sensors.batch  # noqa: F401

if __name__ == "__main__":
    sys.argv = ["airflow", "scheduler", *sys.argv[1:]]
    main()  # type: ignore[no-untyped-call]
