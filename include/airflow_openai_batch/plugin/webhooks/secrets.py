"""The secrets that webhooks are signed with, by connection: kept for a moment, and looked up within bounds.

A secrets backend may take longer to answer than OpenAI waits, may cost by the call, and anybody may ask. So which
connections receive webhooks is configuration: nothing is looked up for others, and a flood to invented ones costs a
genuine event nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from airflow.providers.common.compat.sdk import conf

KEPT_S = 30.0
DEFAULT_RECEIVERS = frozenset({"openai_default"})


def find_receivers() -> frozenset[str]:
    """The connections whose webhooks are taken: ``[openai_batch] webhook_conn_ids``, or the default one alone."""
    told = str(conf.get("openai_batch", "webhook_conn_ids", fallback="") or "")
    return frozenset(name.strip() for name in told.split(",") if name.strip()) or DEFAULT_RECEIVERS


class WebhookSecrets:
    """One look per connection in `KEPT_S`, whether it has a secret or not; ask for receivers only.

    :param read: finds the secret of a connection; ``None``: it has none, or is not there.
    """

    def __init__(
        self, read: Callable[[str], str | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str | None]] = {}

    def find(self, conn_id: str) -> str | None:
        """As it was at most `KEPT_S` ago."""
        now = self._clock()
        with self._lock:
            until, secret = self._known.get(conn_id, (0.0, None))
        if now < until:
            return secret
        found = self._read(conn_id)
        with self._lock:
            self._known[conn_id] = (now + KEPT_S, found)
        return found
