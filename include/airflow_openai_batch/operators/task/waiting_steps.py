"""Tasks that wait for the one before them cost Airflow's scheduler, which looks at each of them in each of its loops:
said where a job has many."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

MANY_SHARDS = 100
"""In five steps each: they take two fifths of a core of the scheduler for as long as they wait (``bench waiting``)."""


def describe_waiting_steps(split: BaseOperator, shards: int) -> str | None:
    """A warning where each of many shards is several tasks; ``None`` where it is one, or there are few."""
    if not split.has_dag():  # type: ignore[no-untyped-call] # a part of `OpenAIBatchJobOperator`
        return None
    steps = sum(task.get_closest_mapped_task_group() is not None for task in split.downstream_list)
    if shards < MANY_SHARDS or steps < 2:
        return None
    return (
        f"{shards:,} shards of {steps} tasks each: as long as tasks wait for the one before them, Airflow's scheduler "
        "looks at all of them about every second, which also makes other DAGs wait. For jobs of this size, take "
        "openai_batch_one_task, or OpenAIBatchShardOperator in a DAG of your own: the same with one task a shard, and "
        "an output_uri of its own, since this one is now this DAG's."
    )
