"""What one task of a shard leaves for the next, so that this one can begin in the triggerer: an XCom, references and
numbers alone.

A mapping: ``given``, the parameters by name; ``reached``, the goals; ``result``, what the next task returns; ``wait``,
the arguments of the trigger that waits for the batch, where there is one; ``link``, to the batch.
"""

from __future__ import annotations

from typing import Any

KEY = "handover"
TRIGGER = "airflow_openai_batch.triggers.handover.OpenAIBatchHandoverTrigger"
"""Class path of what reads it."""
WAITS = "ENDED"
"""The goal of a task that waits for a batch; others that begin in the triggerer do not."""
PASSES_ON = "CREATED"
"""The goal of a task that hands on what it was handed: it comes between who created the batch and who waits for it."""
GIVEN = ("conn_id", "poll_interval", "finish_within_h", "on_deadline")
"""Parameters that both tasks must have alike; whoever named the connection was checked in the first one."""


def describe_given(holder: Any) -> dict[str, str]:
    """Of an operator or a trigger, as texts: Airflow renders templates to numbers here and to texts there."""
    return {name: str(getattr(holder, name)) for name in GIVEN}
