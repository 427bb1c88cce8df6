"""The trigger of a task that has nothing to do before a certain moment."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_openai_batch.triggers.held import HeldTrigger

SCHEMA_VERSION = 1
"""Of the arguments stored in Airflow's database while a task is deferred."""
LONGEST_SLEEP_S = 60.0
"""The loop's clock stands still in a sleeping machine."""


class OpenAIBatchPauseTrigger(HeldTrigger):
    """Fires once, with ``status`` ``paused``, at a moment, and not within ``poll_interval`` of its beginning.

    :param until: Unix seconds.
    :param poll_interval: seconds; a task is sent back to a worker no more often.
    :param unknown: what another version of this class has stored. It is kept and handed on.
    """

    def __init__(
        self,
        *,
        until: float = 0.0,
        poll_interval: float = 60.0,
        schema_version: int = SCHEMA_VERSION,
        **unknown: Any,
    ) -> None:
        # No check and no conversion here: an exception kills the whole triggerer.
        super().__init__()
        self.until = until
        self.poll_interval = poll_interval
        self.schema_version = schema_version
        self.unknown = unknown

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("until", "poll_interval", "schema_version")
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**self.unknown, **{name: getattr(self, name) for name in names}},
        )

    async def find_event(self) -> TriggerEvent:
        while (left_s := self.until - time.time()) > 0:  # noqa: ASYNC110 - for a moment, not for something
            await asyncio.sleep(min(left_s, LONGEST_SLEEP_S))
        return TriggerEvent({"status": "paused", "schema_version": SCHEMA_VERSION})  # type: ignore[no-untyped-call]
