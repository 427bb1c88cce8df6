"""The drill in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter

    from distributed.drill import Aftermath


def describe(aftermath: Aftermath) -> Iterator[str]:
    """Lines for the terminal."""
    from distributed.drill import PER_SHARD, SHARDS

    yield f"{SHARDS} shards, {SHARDS * PER_SHARD:,} requests in {aftermath.seconds:.0f} s"
    yield f"problems: {len(aftermath.problems) + len(aftermath.leaks)}"
    yield f"kills: {len(aftermath.losses)}"
    for loss in aftermath.losses:
        by = _list(loss.taken_over) or "nobody"
        yield f"  {loss.container} with {loss.held}: taken over by {by}, all within {loss.seconds:.0f} s"
    yield f"batches ended while in: {_list(aftermath.ended_with)}"
    yield f"results written by: {_list(aftermath.landed_on)}"


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
