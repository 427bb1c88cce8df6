"""Who a task instance is, for the ledger and the batch's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_openai_batch.sending.caller import Caller

if TYPE_CHECKING:
    from airflow.sdk import Context


def make_caller(context: Context) -> Caller:
    """Who this task instance is, for ledger and metadata."""
    ti = context["ti"]
    return Caller(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number or 0,
        run_started_at=_read_run_start(context),
    )


def _read_run_start(context: Context) -> float:
    """Clearing a finished run sets it anew; Unix seconds."""
    start = getattr(context.get("dag_run"), "start_date", None)
    return start.timestamp() if start else 0.0
