"""The secrets that webhooks are signed with, by connection: kept for a moment, and looked up within bounds.

A secrets backend may take longer to answer than OpenAI waits, may cost by the call, and anybody may ask.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

KEPT_S = 30.0
MOST_UNKNOWN = 1_000
"""Connections without a secret that are remembered."""
UNKNOWN_PER_MINUTE = 60
"""Looks for connections of which no secret is known; beyond that they are taken to have none."""


class WebhookSecrets:
    """
    :param read: finds the secret of a connection; ``None``: it has none, or is not there.
    """

    def __init__(
        self, read: Callable[[str], str | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str]] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._minute, self._looks = 0.0, 0

    def find(self, conn_id: str) -> str | None:
        """As it was at most `KEPT_S` ago."""
        now = self._clock()
        with self._lock:
            if conn_id in self._known:
                until, secret = self._known[conn_id]
                if now < until:
                    return secret
            elif now < self._unknown.get(conn_id, 0.0) or not self._may_look(now):
                return None
        found = self._read(conn_id)
        with self._lock:
            self._known.pop(conn_id, None)
            self._unknown.pop(conn_id, None)
            if found is not None:
                self._known[conn_id] = (now + KEPT_S, found)
                return found
            self._unknown[conn_id] = now + KEPT_S
            if len(self._unknown) > MOST_UNKNOWN:
                self._unknown.popitem(last=False)
        return None

    def _may_look(self, now: float) -> bool:
        if now >= self._minute + 60:
            self._minute, self._looks = now, 0
        self._looks += 1
        return self._looks <= UNKNOWN_PER_MINUTE
