"""How long batches take in an account, from its own list of them: by model and size, created to completed.

Both times are the server's, whose clock need not be ours.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from airflow_openai_batch.openai_api.batch import BatchStatus, BatchView
from airflow_openai_batch.openai_api.models import base_model

SIZES = (100, 1_000, 10_000, 50_000)
"""Requests up to which batches count as of one size."""
ANY_SIZE = 0
LEAST_SAMPLES = 5
"""Fewer batches than these say nothing."""
MOST_SAMPLES = 200
"""Of one model and size, the newest."""
MOST_MODELS = 100
"""An account may have batches of many; 70 KB each at most."""
LOOK_BACK_S = 7 * 86_400.0
MOST_LISTED = 1_000
"""Batches that are looked at to learn of the past: ten calls."""


class UsualDuration(msgspec.Struct, frozen=True, kw_only=True):
    """What batches of one model and size have taken. Seconds."""

    model: str
    up_to: int
    """Requests, one of `SIZES`, or `ANY_SIZE` where there were too few of one."""
    batches: int
    """That were measured."""
    median_s: float
    p95_s: float
    """Nineteen of twenty took no longer."""

    def estimate_left(self, age_s: float) -> float | None:
        """Seconds that a batch of this age still takes, as long as it says nothing itself; None: longer than usual.

        Who has taken longer than half of them is taken for one of the slow ones.
        """
        return next((each - age_s for each in (self.median_s, self.p95_s) if each > age_s), None)


@dataclass(frozen=True, slots=True)
class _Sample:
    created_at: float
    seconds: float
    size: int


class UsualDurations:
    """What was known at one moment; not changed afterwards."""

    def __init__(self, known: Mapping[tuple[str, int], UsualDuration] = MappingProxyType({})) -> None:
        self._known = known

    def find(self, model: str, requests: int) -> UsualDuration | None:
        """Of batches with about so many requests, or of all of the model where those are too few."""
        name = base_model(model)
        return self._known.get((name, _find_size(requests))) or self._known.get((name, ANY_SIZE))

    def list_model(self, model: str) -> list[UsualDuration]:
        """Of each size that was measured often enough, the smallest first."""
        name = base_model(model)
        return [self._known[name, size] for size in SIZES if (name, size) in self._known]


class BatchDurations:
    """Takes in batches as they are listed, each once; memory is bounded."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, _Sample]] = {}
        """By model, then by batch."""

    def add(self, batches: Iterable[BatchView]) -> bool:
        """Those that are completed; a batch that expired or was cancelled says less than how long it took.

        :return: whether any was new.
        """
        return sum(map(self._add, batches)) > 0

    def _add(self, batch: BatchView) -> bool:
        sample, model = _measure(batch), base_model(batch.model or "")
        if sample is None or (model not in self._samples and len(self._samples) >= MOST_MODELS):
            return False
        known = self._samples.setdefault(model, {})
        if batch.id in known:
            return False
        known[batch.id] = sample
        return _keep_newest(known, sample.size) != batch.id

    def sum_up(self) -> UsualDurations:
        """What they come to."""
        found = (self._sum_up(model, size) for model in self._samples for size in (*SIZES, ANY_SIZE))
        return UsualDurations({(usual.model, usual.up_to): usual for usual in found if usual is not None})

    def _sum_up(self, model: str, size: int) -> UsualDuration | None:
        samples = self._samples[model].values()
        seconds = [sample.seconds for sample in samples if size in (ANY_SIZE, sample.size)]
        if len(seconds) < LEAST_SAMPLES:
            return None
        return UsualDuration(
            model=model,
            up_to=size,
            batches=len(seconds),
            median_s=statistics.median(seconds),
            p95_s=statistics.quantiles(seconds, n=20, method="inclusive")[-1],
        )


def measure_past(newest_first: Iterable[BatchView]) -> UsualDurations:
    """Of the newest `MOST_LISTED` batches of a list."""
    durations = BatchDurations()
    durations.add(itertools.islice(newest_first, MOST_LISTED))
    return durations.sum_up()


def _measure(batch: BatchView) -> _Sample | None:
    ended_at = batch.times.get("completed_at")
    if batch.status is not BatchStatus.COMPLETED or not batch.model or not batch.total or ended_at is None:
        return None
    seconds = ended_at - batch.created_at
    if not 0 <= seconds < math.inf:
        return None
    return _Sample(batch.created_at, seconds, _find_size(batch.total))


def _find_size(requests: int) -> int:
    return next((size for size in SIZES if requests <= size), SIZES[-1])


def _keep_newest(known: dict[str, _Sample], size: int) -> str | None:
    """Which one had to go."""
    alike = [batch_id for batch_id, sample in known.items() if sample.size == size]
    if len(alike) <= MOST_SAMPLES:
        return None
    oldest = min(alike, key=lambda batch_id: known[batch_id].created_at)
    del known[oldest]
    return oldest
