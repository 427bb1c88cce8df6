"""What a send learns of flex: how much it has room for, and how long it has had none."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import NoCapacityError
from airflow_openai_batch.openai_api.flex import FLEX_TIMEOUT_S
from airflow_openai_batch.wording import describe_duration

if TYPE_CHECKING:
    from airflow_openai_batch.sending.realtime.width import Width

FLEX_PATIENCE_S = 300.0
"""So long a worker goes on asking while nothing is answered and all is refused; then the send takes another way, or
waits without a worker."""


class FlexCapacity:
    """Of one send.

    :param falls_back: who waits for the answers would rather pay the full price than wait as long again.
    """

    def __init__(self, width: Width, *, falls_back: bool) -> None:
        self.width = width
        self._falls_back = falls_back
        self._refused_since: float | None = None

    def answer(self) -> None:
        """A request was answered."""
        self._refused_since = None
        self.width.grow()

    def refuse(self, wait_s: float) -> None:
        """There was no room.

        :param wait_s: until it is asked again.
        :raises NoCapacityError: if there has been none for `FLEX_PATIENCE_S`, or would be by then.
        """
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        if (waited_s := now - self._refused_since + wait_s) > FLEX_PATIENCE_S:
            raise NoCapacityError(
                f"flex has had no capacity for {describe_duration(waited_s)}",
                status_code=429,
                retry_after_s=wait_s,
            ) from None

    def time_out(self) -> None:
        """A request was taken and not answered in time.

        :raises NoCapacityError: where that was too long; otherwise it was a try like others.
        """
        if self._falls_back:
            raise NoCapacityError(f"flex gave no answer within {describe_duration(FLEX_TIMEOUT_S)}") from None
