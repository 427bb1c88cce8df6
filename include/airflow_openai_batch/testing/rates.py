"""Limits of calls: batches created per hour, real-time requests and tokens per minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from airflow_openai_batch.testing.refusals import ApiError

HOUR_S = 3_600.0


class CreateLimit:
    """At most so many batches created in any hour."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def take(self, now: float, limit: int) -> None:
        """:raises ApiError: 429 with Retry-After."""
        while self._times and self._times[0] <= now - HOUR_S:
            self._times.popleft()
        if len(self._times) >= limit:
            wait = self._times[0] + HOUR_S - now if self._times else HOUR_S
            raise ApiError(
                429,
                f"Rate limit reached for batch creation: {limit:,} batches per hour. Please try again later.",
                code="rate_limit_exceeded",
                headers={"retry-after": str(max(1, round(wait)))},
            )
        self._times.append(now)


@dataclass(slots=True)
class Bucket:
    """Fills evenly, holds ``burst_s`` seconds of what a minute allows."""

    per_minute: int
    burst_s: float
    level: float
    at: float

    @classmethod
    def full(cls, per_minute: int, burst_s: float, now: float) -> Bucket:
        return cls(per_minute, burst_s, max(1.0, per_minute * burst_s / 60), now)

    @property
    def capacity(self) -> float:
        return max(1.0, self.per_minute * self.burst_s / 60)

    def wait_for(self, amount: float, now: float) -> float:
        """Seconds until so much is there; 0 if it is."""
        self.level = min(self.capacity, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        return max(0.0, (min(amount, self.capacity) - self.level) * 60 / self.per_minute)

    def reset_s(self) -> float:
        return (self.capacity - self.level) * 60 / self.per_minute


class EmulatedRates:
    """Requests and tokens per minute of one model, and the headers that tell of them."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def take(
        self,
        model: str,
        tokens: int,
        now: float,
        *,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        burst_s: float,
    ) -> dict[str, str]:
        """Take one request of so many tokens.

        :return: the x-ratelimit headers.
        :raises ApiError: 429 with Retry-After, if there is no room; nothing is taken then.
        """
        limits = (("requests", requests_per_minute, 1), ("tokens", tokens_per_minute, tokens))
        buckets: list[tuple[str, Bucket, int]] = []
        for kind, limit, amount in limits:
            if limit is None:
                continue
            bucket = self._buckets.get((model, kind))
            if bucket is None or bucket.per_minute != limit or bucket.burst_s != burst_s:
                bucket = self._buckets[model, kind] = Bucket.full(limit, burst_s, now)
            buckets.append((kind, bucket, amount))
        for kind, bucket, amount in buckets:
            wait_s = bucket.wait_for(amount, now)
            if wait_s > 1e-6:
                raise _refusal(model, kind, bucket, amount, wait_s, self._headers(buckets))
        for _, bucket, amount in buckets:
            bucket.level -= amount
        return self._headers(buckets)

    @staticmethod
    def _headers(buckets: list[tuple[str, Bucket, int]]) -> dict[str, str]:
        headers = {"x-ratelimit-limit-requests": "30000", "x-ratelimit-remaining-requests": "29999"}
        for kind, bucket, _ in buckets:
            headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
            headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level)))
            headers[f"x-ratelimit-reset-{kind}"] = format_wait(bucket.reset_s())
        return headers


def _refusal(
    model: str, kind: str, bucket: Bucket, amount: int, wait_s: float, headers: dict[str, str]
) -> ApiError:
    short = "RPM" if kind == "requests" else "TPM"
    used = bucket.per_minute - int(bucket.level)
    return ApiError(
        429,
        f"Rate limit reached for {model} in organization org-emulator on {kind} per min ({short}): "
        f"Limit {bucket.per_minute}, Used {used}, Requested {amount}. Please try again in "
        f"{format_wait(wait_s)}.",
        code="rate_limit_exceeded",
        type=kind,
        headers={
            **headers,
            "retry-after": str(max(1, -int(-wait_s // 1))),
            "retry-after-ms": str(int(wait_s * 1000) + 1),
        },
    )


def format_wait(seconds: float) -> str:
    """As OpenAI writes it: ``8.64s``, ``120ms``, ``6m0s``."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.0f}s" if minutes else f"{rest:.3g}s"
