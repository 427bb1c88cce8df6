"""Limits of real-time calls: what was set, and what the server says in the headers of its answers.

Headers as OpenAI documents them: ``x-ratelimit-limit-requests``, ``-remaining-requests`` and ``-reset-requests``
(``8.64s``, ``6m0s``; the time until all is free again), the same for ``tokens``, and ``retry-after``.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from airflow_openai_batch.errors import ConfigError

LONG_WINDOW_S = 90.0
"""A limit whose window is longer than this is no limit per minute: to small accounts OpenAI names the one per day."""

MOST_WAIT_S = 86_400.0
"""No server is taken to ask for a longer wait: what it says may be ``inf``, or a date in another age."""
ANSWER_S = 5.0
FLEX_ANSWER_S = 60.0
"""What an answer takes, where nothing is measured."""
_MAX_CONCURRENCY = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeLimits:
    """What a real-time send may do. Checks itself; what the server's headers say wins over it.

    :raises ConfigError: for a number that makes no sense.
    """

    concurrency: int = 5
    """Requests in the air at the same time."""
    concurrency_chosen: bool = False
    """Whether that is somebody's choice: then flex does not try more, either."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Input tokens and the most output tokens a request allows; None where only the server's headers limit."""
    max_retries: int = 3
    """Of one request, after its first try."""
    chosen: bool = False
    """Whether the rates are somebody's choice: then headers may lower them, and not raise them. Presets of a tier
    are guesses, and what the headers say holds."""

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= _MAX_CONCURRENCY:
            raise ConfigError(f"realtime_concurrency={self.concurrency}: must be 1 to {_MAX_CONCURRENCY:,}.")
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1; leave it empty for no limit.")
        if self.max_retries < 0:
            raise ConfigError(f"max_retries={self.max_retries}: must not be negative.")


def foresee_pace(limits: RealtimeLimits, *, flex: bool) -> float:
    """Requests a second that go out one by one, before any has: cautious, since a deadline is to be kept by it."""
    per_s = limits.concurrency / (FLEX_ANSWER_S if flex else ANSWER_S)
    return per_s if limits.requests_per_minute is None else min(per_s, limits.requests_per_minute / 60)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the server says of one limit, of requests or of tokens."""

    limit: int
    remaining: int
    reset_s: float
    """Seconds until all of the limit is free again."""

    @property
    def per_minute(self) -> int | None:
        """The limit, if it is one per minute; None where it is not or nothing can be told."""
        used = self.limit - self.remaining
        if used <= 0 or self.reset_s <= 0:
            return None
        return self.limit if self.reset_s * self.limit / used <= LONG_WINDOW_S else None

    def wait_for(self, amount: float) -> float:
        """Seconds until so much is free; 0 if it is."""
        short = min(amount, self.limit) - self.remaining
        used = self.limit - self.remaining
        return self.reset_s * short / used if short > 0 and used > 0 else 0.0


def read_allowance(headers: Mapping[str, str], kind: str) -> Allowance | None:
    """What the headers of an answer say; None where they say nothing, or nothing that can be read.

    :param kind: ``requests`` or ``tokens``.
    """
    try:
        limit = int(headers[f"x-ratelimit-limit-{kind}"])
        remaining = int(headers[f"x-ratelimit-remaining-{kind}"])
    except (KeyError, ValueError):
        return None
    reset_s = parse_duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
    if limit < 1 or reset_s is None:
        return None
    return Allowance(limit, min(max(0, remaining), limit), reset_s)


_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms]|$)")


def parse_duration(text: str) -> float | None:
    """Seconds of ``6m0s``, ``8.64s``, ``120ms``, a day at the most; None for anything else."""
    parts = _PART.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return _bound(sum(float(number) * _UNITS_S[unit] for number, unit in parts))


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    with contextlib.suppress(KeyError, ValueError):
        return _bound(float(headers["retry-after-ms"]) / 1000)
    value = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return _bound(float(value))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        at = parsedate_to_datetime(value)
        return _bound((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time())
    return None


def _bound(wait_s: float) -> float:
    return min(max(0.0, wait_s), MOST_WAIT_S)  # in this order: NaN is none
