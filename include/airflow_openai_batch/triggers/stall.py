"""A time in which OpenAI cannot be asked: how long to wait, and what to say of it."""

from __future__ import annotations

import random

from airflow_openai_batch.wording import describe_duration

WAIT_MAX_S = 120.0
"""Longest wait between two tries of our own choice; there is no bound on how often."""
RETRY_AFTER_MAX_S = 3600.0
"""A server that asks for more than this is asked again all the same."""
SAY_EVERY_S = 300.0


class Stall:
    """One stall, from the first fault to the first answer. Times are seconds of a clock that never jumps."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._said: float | None = None
        self._faults = 0

    def meet(self, error: Exception, now: float) -> str | None:
        """Count a fault; what to log of it: at first, and every few minutes with for how long."""
        self._faults += 1
        if self._said is not None and now - self._said < SAY_EVERY_S:
            return None
        self._said = now
        if self._faults == 1:
            return f"Cannot look at the batches, waiting on: {error}"
        lasting = describe_duration(now - self._began)
        return f"Cannot look at the batches for {lasting} now ({self._faults} faults), waiting on: {error}"

    def end(self, now: float) -> str:
        lasting = describe_duration(now - self._began)
        return f"The batches can be looked at again, after {lasting} and {self._faults} faults."

    def wait_s(self, retry_after_s: float | None) -> float:
        """Seconds until the next try: what the server asked for, else longer and longer; never less than asked."""
        if retry_after_s is not None and retry_after_s >= 0:
            return min(retry_after_s, RETRY_AFTER_MAX_S) * random.uniform(1.0, 1.1)  # noqa: S311 - jitter, no secret
        return float(min(2.0 ** min(self._faults, 10), WAIT_MAX_S) * random.uniform(0.75, 1.25))  # noqa: S311
