"""How fast a real-time send may go: a pace per limit, and one gate that all its workers pass.

The pace keeps a send below its limits, so that the gate is rarely needed: for accounts that others use, too.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

from airflow_openai_batch.openai_api.rate_limits import read_allowance, read_retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits

log = logging.getLogger(__name__)

BURST_S = 0.2
"""So much of a minute's limit may go out at once. Servers take more (OpenAI documents that limits may be enforced
over shorter times), but how much more is not known, and nothing is gained by it."""
BACKOFF_S = 1.0
BACKOFF_MAX_S = 60.0
"""Where the server does not say how long to wait: 1, 2, 4 ... 60 seconds, plus up to as much again by chance."""
SHARE_MIN = 0.1
RECOVERY_S = 5.0
"""A tenth more of the limit is tried after so long without a refusal."""
LOGGED_S = 1.0
"""Shorter waits are not worth a line."""


def draw_back_off_s(nth: int) -> float:
    """Seconds before the ``nth`` try again, from 1; drawn, so that those who failed together part."""
    return min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(nth - 1, 16)) * random.uniform(0.5, 1.5)  # noqa: S311


class Pace:
    """Keeps to so many a minute, of requests or of tokens, evenly; with no limit known it holds nobody.

    After a refusal it takes a smaller share of the limit, and slowly more again: others use it, too.
    """

    def __init__(self, per_minute: int | None) -> None:
        self.per_minute: int | None = None
        self._limiter: AsyncLimiter | None = None
        self._share = 1.0
        self._changed_at = 0.0
        if per_minute is not None:
            self.set_limit(per_minute)

    def set_limit(self, per_minute: int) -> None:
        """From now on; whoever waits already goes on at the old pace."""
        if per_minute != self.per_minute:
            self.per_minute = per_minute
            self._renew()

    def slow_down(self) -> None:
        self._set_share(max(SHARE_MIN, self._share * 0.7))

    def speed_up(self) -> None:
        """A little, where the last change was a while ago."""
        if self._share < 1.0 and time.monotonic() - self._changed_at >= RECOVERY_S:
            self._set_share(min(1.0, self._share * 1.1))

    def _set_share(self, share: float) -> None:
        self._share = share
        self._changed_at = time.monotonic()
        self._renew()

    def _renew(self) -> None:
        if self.per_minute is not None:
            per_s = self.per_minute * self._share / 60
            # Whoever was refused gives up bursts, too: a server may count by the second, or by less.
            burst = max(1.0, per_s * (BURST_S if self._share == 1.0 else BURST_S / 10))
            self._limiter = AsyncLimiter(burst, burst / per_s)

    async def take(self, amount: int) -> None:
        """Wait until so many may go; more than a burst is waited for in parts."""
        if (limiter := self._limiter) is None:
            return
        left = float(amount)
        while left > 0:
            part = min(left, limiter.max_rate)
            await limiter.acquire(part)
            left -= part


class Gate:
    """Closed for all workers while the server says stop. After that one goes first, and the others follow when
    it was let through: five who find out together that it is too early are four refusals too many."""

    def __init__(self) -> None:
        self._opens_at = 0.0
        self._stalls = 0
        """Refusals in a row; a refusal of what went out before the gate closed is the same one."""
        self._trying = False
        self._changed = asyncio.Event()
        self._epoch = 0

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @property
    def closed_s(self) -> float:
        """Seconds until it opens; 0 if it is open."""
        return max(0.0, self._opens_at - self._now())

    async def enter(self) -> int:
        """Wait until one may go. Who enters leaves by `leave` or `refuse`, with the ticket this returns."""
        while True:
            if (wait_s := self.closed_s) > 0:
                await asyncio.sleep(wait_s)
            elif self._trying:
                await self._changed.wait()
            else:
                self._trying = self._stalls > 0
                return self._epoch

    def is_current(self, ticket: int) -> bool:
        """Whether nobody was refused since this ticket was given."""
        return ticket == self._epoch

    def is_open(self, ticket: int) -> bool:
        """Whether it is still open to who entered with this ticket."""
        return self.is_current(ticket) and self._opens_at <= self._now()

    def leave(self, ticket: int, *, served: bool) -> None:
        """The server took the request, or (not ``served``) nothing was learned of the limits."""
        if ticket == self._epoch:
            if served:
                self._stalls = 0
            self._let_next_try()

    def refuse(self, ticket: int, retry_after_s: float | None, why: str = "Rate limit reached") -> None:
        """The server said stop."""
        if ticket == self._epoch:
            self._stalls += 1
            self._epoch += 1
            wait_s = draw_back_off_s(self._stalls) if retry_after_s is None else retry_after_s
            log.info("%s, waiting %s s.", why, f"{wait_s:.3g}")
            self._opens_at = max(self._opens_at, self._now() + wait_s)
            self._let_next_try()
        elif retry_after_s is not None:
            self._opens_at = max(self._opens_at, self._now() + retry_after_s)

    def hold(self, wait_s: float) -> None:
        """The server said that nothing more is free for so long; nobody was refused."""
        if wait_s > 0:
            if wait_s >= LOGGED_S and self._opens_at <= self._now():
                log.info("Rate limit reached, waiting %s s.", f"{wait_s:.3g}")
            self._opens_at = max(self._opens_at, self._now() + wait_s)

    def _let_next_try(self) -> None:
        self._trying = False
        self._changed.set()
        self._changed = asyncio.Event()


class Throttle:
    """The gate and both paces of a send, taught by the headers of each answer."""

    def __init__(self, limits: RealtimeLimits) -> None:
        self.gate = Gate()
        self._limits = limits
        self._requests = Pace(limits.requests_per_minute)
        self._tokens = Pace(limits.tokens_per_minute)

    @property
    def requests_per_minute(self) -> int | None:
        """As far as it is known now."""
        return self._requests.per_minute

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens a request has."""
        return self._tokens.per_minute is not None

    async def enter(self, tokens: int) -> int:
        """Wait until a request of so many tokens may go; returns the gate's ticket."""
        while True:
            ticket = await self.gate.enter()
            try:
                await self._requests.take(1)
                await self._tokens.take(tokens)
            except BaseException:
                self.gate.leave(ticket, served=False)
                raise
            if self.gate.is_open(ticket):
                return ticket
            self.gate.leave(ticket, served=False)  # somebody was refused meanwhile

    def leave(self, ticket: int, *, served: bool) -> None:
        """See `Gate.leave`."""
        self.gate.leave(ticket, served=served)
        if served:
            self._requests.speed_up()
            self._tokens.speed_up()

    def refuse(self, ticket: int, headers: Mapping[str, str]) -> None:
        """The server said stop."""
        if self.gate.is_current(ticket):
            self._requests.slow_down()
            self._tokens.slow_down()
        self.gate.refuse(ticket, read_retry_after(headers))
        self.learn(headers, 0)

    def learn(self, headers: Mapping[str, str], tokens: int) -> None:
        """Take over what an answer's headers say of the limits.

        :param tokens: of the request that was answered; the next one is taken to be as large.
        """
        for kind, pace, preset, amount in (
            ("requests", self._requests, self._limits.requests_per_minute, 1),
            ("tokens", self._tokens, self._limits.tokens_per_minute, tokens),
        ):
            allowance = read_allowance(headers, kind)
            if allowance is None:
                continue
            if (per_minute := allowance.per_minute) is not None:
                most = preset if self._limits.chosen and preset is not None else per_minute
                pace.set_limit(min(per_minute, most))
            self.gate.hold(allowance.wait_for(amount))
