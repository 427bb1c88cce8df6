"""The clock that everything in the emulator goes by."""

from __future__ import annotations

import time
from typing import Protocol


class Ticker(Protocol):
    """What the logic needs of a clock: a harness may pass its own virtual one."""

    def now(self) -> float:
        """Unix seconds."""
        ...


class Clock:
    """Real time, faster time, or time that stands still until it is told to move.

    :param speed: emulator seconds per real second; 0 for a manual clock.
    :param start: Unix seconds to begin at; the present by default.
    """

    def __init__(self, speed: float = 1.0, start: float | None = None) -> None:
        self.speed = speed
        self._base = time.time() if start is None else start
        self._mark = time.monotonic()

    def now(self) -> float:
        return self._base + (time.monotonic() - self._mark) * self.speed

    def advance(self, seconds: float) -> float:
        """Jump ahead, whatever the speed, and return the new time."""
        self._base += seconds
        return self.now()

    def run(self, speed: float) -> None:
        """Go on from here at another speed; 0 stops the clock."""
        self._base = self.now()
        self._mark = time.monotonic()
        self.speed = speed
