"""The name of a mapped task instance in Airflow's UI, kept up while the task waits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_openai_batch.wording import BOUND_SIGNS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.job.plan import Shard

log = logging.getLogger(__name__)

MOST_CHARS = 250
"""Of a longer name PostgreSQL takes neither the name nor the state that comes with it: the task has failed then."""


def label_shard(shard: Shard, waits_for: str = "") -> str:
    """``shard 3 · 50,000 requests · 1,812,334 tokens``, and what it waits for.

    Before the tokens ``≈``: from a sample; ``≤``: not counted, but not more; ``≥``: something is unknown.
    """
    sign = "≈ " if shard.estimated_tokens is not None else BOUND_SIGNS[shard.tokens]
    tokens = f"{sign}{shard.expected_tokens:,} tokens"
    text = f"shard {shard.shard} · {shard.requests:,} requests · {tokens}"
    return (f"{text} · {waits_for}" if waits_for else text)[:MOST_CHARS]


def show_label(context: Context, label: str) -> None:
    """Tell the supervisor the instance's name now.

    Airflow renders ``map_index_template`` before a task runs and after it has ended, and not when it defers, which is
    when there is something to say. The call is one that Airflow makes itself at these two moments; where another
    version has no such call, the name stays as it was.
    """
    try:
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import SetRenderedMapIndex

        task_runner.SUPERVISOR_COMMS.send(msg=SetRenderedMapIndex(rendered_map_index=label[:MOST_CHARS]))
    except Exception as error:  # a name is not worth a failure
        log.debug("The instance's name could not be set: %s", type(error).__name__)
