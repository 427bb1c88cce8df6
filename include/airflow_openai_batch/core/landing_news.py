"""What is new about a shard since it landed last, for counters: nothing is counted twice when it lands again."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_openai_batch.core.report import ShardSummary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_openai_batch.core.landed import Landed
    from airflow_openai_batch.core.ledger import Event


def count_rows(landed: Landed, former: Iterable[Event]) -> Counter[str]:
    """Rows by status that a finished shard has now and had not when it was finished before (a repair).

    :param former: the events of the shard before this landing.
    """
    return Counter(landed.rows) - Counter(() if (last := _find_last(former)) is None else last.rows)


def count_failures(landed: Landed, former: Iterable[Event]) -> Counter[str]:
    """The same by error code, of rows that are not ``ok``."""
    last = _find_last(former)
    before = Counter({problem.code: problem.count for problem in last.problems} if last is not None else {})
    return Counter({problem.code: problem.count for problem in landed.problems}) - before


def _find_last(events: Iterable[Event]) -> Landed | None:
    done = [event for event in events if event.kind == "done"]
    return ShardSummary.from_dict(done[-1].summary).landed if done else None
