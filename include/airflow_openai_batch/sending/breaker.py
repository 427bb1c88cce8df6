"""The breaker of a job: after one answer that is about the account, nothing new is sent.

A wrong key or an empty account refuses every shard alike. The first one that meets it writes it down where the
others look before they pay; each of them fails with the same words, and none uses up an attempt.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.errors import BreakerOpenError

if TYPE_CHECKING:
    from airflow_openai_batch.errors import FatalAccountError
    from airflow_openai_batch.storage.location import Location

OPEN_S = 600.0
"""After this long the next task tries again, whatever happened meanwhile."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``breaker.json``."""

    at: float
    """Unix seconds."""
    by: str
    """Who met the answer, see `Event.by`."""
    message: str
    code: str | None = None
    status_code: int | None = None


class Breaker:
    """One file in the job directory. Whoever clears the tasks of a finished run closes it."""

    def __init__(self, place: Location) -> None:
        self._place = place

    def open(self, error: FatalAccountError, *, by: str, now: float) -> None:
        """Write down the answer; a later one replaces it."""
        opened = Opened(at=now, by=by, message=str(error), code=error.code, status_code=error.status_code)
        self._place.write_bytes(msgspec.json.encode(opened))

    def check(self, *, since: float, now: float) -> None:
        """To be called before anything is paid for.

        :param since: start of the run as Airflow has it (Unix seconds), which clearing sets anew: what was met
            before counts as settled.
        :raises BreakerOpenError: if another task of the run has met the answer in the last ten minutes.
        """
        try:
            data = self._place.read_bytes()
        except FileNotFoundError:
            return
        try:
            opened = msgspec.json.decode(data, type=Opened)
        except msgspec.MsgspecError:
            return  # torn by a crash: whoever sends next meets the answer himself
        if opened.at < since or opened.at < now - OPEN_S:
            return
        moment = datetime.fromtimestamp(opened.at, UTC)
        raise BreakerOpenError(
            f"Nothing was sent, since {opened.by} met this at {moment:%H:%M:%S} UTC: {opened.message}",
            code=opened.code,
            status_code=opened.status_code,
        )
