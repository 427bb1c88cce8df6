"""Hours of waiting in seconds: an asyncio loop whose clock jumps to the next thing that is due."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest import mock

START = 1_800_000_000.0
"""Unix seconds at which virtual time begins."""

_T = TypeVar("_T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing in it may wait for a thread or a socket: that takes no virtual time."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Skipping(self))

    def time(self) -> float:
        return self._now

    def skip(self, seconds: float) -> None:
        self._now += seconds

    def now(self) -> float:
        """Unix seconds, for what takes a clock (`testing.clock.Ticker`)."""
        return START + self._now


class _Skipping(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        events = super().select(0)
        if not events:
            self._loop.skip(timeout)
        return events


def run_virtual(loop: VirtualLoop, main: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end, with `time.time` on the loop's clock."""
    with mock.patch("time.time", loop.now):
        try:
            return loop.run_until_complete(main)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
