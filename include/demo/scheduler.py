"""Airflow's scheduler with what tasks need imported beforehand: the local executor forks a process for each task."""

from __future__ import annotations

import sys

from airflow.__main__ import main

from airflow_openai_batch.warm import warm_up

if __name__ == "__main__":
    warm_up()
    sys.argv = ["airflow", "scheduler", *sys.argv[1:]]
    main()  # type: ignore[no-untyped-call]
