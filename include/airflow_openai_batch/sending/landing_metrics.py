"""What is new about a shard since it landed last, for counters: nothing is counted twice when it lands again."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from airflow_openai_batch.costs.spending import to_micro
from airflow_openai_batch.results.landing_summary import ShardSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_openai_batch.job.ledger import Event
    from airflow_openai_batch.results.landing_summary import LandingSummary


def tell_landing(
    count: Callable[..., None], landed: LandingSummary, former: Iterable[Event], new_usd: float
) -> None:
    """Count what a finished shard has now and had not when it was finished before (a repair).

    To be called after the ledger says ``done``: who is killed in between leaves it uncounted.

    :param count: adds to a counter, by name, value and tags.
    :param former: the events of the shard before this landing.
    :param new_usd: what the landing has found to be paid for.
    """
    done = [event for event in former if event.kind == "done"]
    last = ShardSummary.from_dict(done[-1].summary).landed if done else None
    count("cost_micro_usd", to_micro(new_usd))
    for status, rows in (Counter(landed.rows) - Counter(last.rows if last else ())).items():
        count("rows", rows, status=status)
    for code, rows in (_count_problems(landed) - (_count_problems(last) if last else Counter())).items():
        count("failures", rows, error_code=code)


def _count_problems(landed: LandingSummary) -> Counter[str]:
    return Counter({problem.code: problem.count for problem in landed.problems})
