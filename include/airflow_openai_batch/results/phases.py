"""How long a shard spent in which phase, from its ledger."""

from __future__ import annotations

import itertools
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.openai_api.batch import final_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_openai_batch.job.ledger import Event

PHASES = ("queued", "validating", "in_progress", "finalizing", "landing")
"""``queued``: from the first wish to send until the batch that was kept was created. ``landing``: from
the moment the end was seen until the rows were written, downloads included. The others are OpenAI's."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, over shards."""

    shards: int
    min_s: float
    median_s: float
    max_s: float


def measure_phases(events: Iterable[Event]) -> dict[str, float]:
    """Seconds by phase, summed over the sends of one shard; phases that cannot be told are left out."""
    seconds: dict[str, float] = {}
    wished_at: float | None = None
    ended_at: float | None = None
    for event in events:
        if event.kind in ("uploaded", "intent") and wished_at is None:
            wished_at = event.at
        elif event.kind == "ended":
            created_at = event.times.get("created_at")
            _add(seconds, "queued", wished_at, created_at)
            for phase, took_s in batch_phases(event.times).items():
                seconds[phase] = seconds.get(phase, 0.0) + took_s
            wished_at, ended_at = None, event.at
        elif (event.kind == "landed" and event.leftover) or event.kind == "done":
            _add(seconds, "landing", ended_at, event.at)
            ended_at = None
    return seconds


def batch_phases(times: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase of one batch, from OpenAI's own time stamps (Unix seconds)."""
    final = final_time(times)
    marks = [
        ("validating", times.get("created_at")),
        ("in_progress", times.get("in_progress_at")),
        ("finalizing", times.get("finalizing_at")),
        ("", final),
    ]
    known = [(phase, at) for phase, at in marks if at]
    return {phase: max(0.0, end - start) for (phase, start), (_, end) in itertools.pairwise(known) if phase}


def spread_phases(shards: Iterable[Mapping[str, float]]) -> dict[str, Spread]:
    """Minimum, median and maximum of each phase over the shards that know it."""
    found: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for seconds in shards:
        for phase, took_s in seconds.items():
            found.setdefault(phase, []).append(took_s)
    return {
        phase: Spread(shards=len(values), min_s=min(values), median_s=median(values), max_s=max(values))
        for phase, values in found.items()
        if values
    }


def _add(seconds: dict[str, float], phase: str, start: float | None, end: float | None) -> None:
    if start is not None and end is not None:
        seconds[phase] = seconds.get(phase, 0.0) + max(0.0, end - start)
