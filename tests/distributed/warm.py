"""What docs/many-machines.md tells workers to put into their local settings: each task costs a core-second less."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_init


@worker_init.connect(weak=False)  # type: ignore[untyped-decorator]
def warm_up(**_: Any) -> None:
    """Before the worker forks its pool."""
    from airflow_openai_batch.warm import warm_up

    warm_up("s3")
