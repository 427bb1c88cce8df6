"""A storm in one table: runs, faults by kind, kills by component, clears, the longest run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.storm import Aftermath


def describe(aftermath: Aftermath) -> Iterator[str]:
    """Lines for the terminal."""
    outcomes = list(aftermath.outcomes.values())
    bad = [outcome.scenario.number for outcome in outcomes if outcome.problems]
    shards = sum(outcome.scenario.shards for outcome in outcomes)
    requests = sum(outcome.scenario.requests for outcome in outcomes)
    clears = [len(outcome.clears) for outcome in outcomes]
    seconds = sorted(outcome.seconds for outcome in outcomes)
    yield f"seed {aftermath.seed}: {len(outcomes)} runs, {shards} shards, {requests} requests"
    yield f"runs with problems: {len(bad)} {bad or ''}"
    yield f"clears needed: {sum(clears)} in {sum(map(bool, clears))} runs"
    yield f"second batches of a send, noticed and cancelled: {sum(outcome.twins for outcome in outcomes)}"
    paid_again = sum((outcome.paid_again for outcome in outcomes), Counter[str]())
    yield f"good answers paid for again, where a reply or a worker was lost: {dict(paid_again) or 0}"
    yield f"time of a run: median {seconds[len(seconds) // 2]:.0f} s, longest {seconds[-1]:.0f} s"
    yield from _table("faults that struck", aftermath.struck)
    yield from _table("kills", aftermath.kills)
    yield from _table("done by people", sum((outcome.turns for outcome in outcomes), Counter[str]()))


def _table(title: str, counts: Counter[str]) -> Iterator[str]:
    yield f"{title}: {counts.total()}"
    for name, count in sorted(counts.items()):
        yield f"  {count:5d}  {name}"
