"""How far a long task has come, in its log."""

from __future__ import annotations

import time
from typing import Any

PROGRESS_EVERY_S = 10.0


class ProgressLog:
    """One line every ten seconds, however often it is told."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._last = time.monotonic()

    def __call__(self, progress: object) -> None:
        """:param progress: told as text, which is made only where there is a line to write."""
        if (now := time.monotonic()) - self._last >= PROGRESS_EVERY_S:
            self._last = now
            self._log.info("%s", progress)
