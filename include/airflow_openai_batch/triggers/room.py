"""The trigger that a shard waits on until the batch queue has room for it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from airflow.triggers.base import TriggerEvent

from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.sending.queue.line import AdmissionQueue, Waiter
from airflow_openai_batch.sending.queue.room import Need, never_fits
from airflow_openai_batch.triggers.connect import find_watcher
from airflow_openai_batch.triggers.gauges import show_waiting
from airflow_openai_batch.triggers.held import HeldTrigger, read_seconds

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.account_limits import LimitSource

log = logging.getLogger(__name__)

TELL_EVERY_S = 300.0
SCHEMA_VERSION = 1
"""Of the arguments stored in Airflow's database while a task is deferred."""

_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AdmissionQueue]] = WeakKeyDictionary()


def get_room(conn_id: str) -> AdmissionQueue:
    """The line of the running loop for this connection: one per triggerer."""
    return _rooms.setdefault(asyncio.get_running_loop(), {}).setdefault(conn_id, AdmissionQueue())


class OpenAIBatchRoomTrigger(HeldTrigger):
    """Fires once, with ``status``: ``room`` when the shard may go on, ``too_large`` when it was learnt that the
    queue never holds so much, ``timeout`` at the deadline. Its ``limit`` is what is known of the queue by now
    (`QueueLimit.from_dict`).

    :param conn_id: the connection whose queue it is.
    :param model: of the shard.
    :param tokens: input tokens the send needs.
    :param requests: requests the send needs.
    :param token_limit: what is known of the queue; ``None``: nothing.
    :param request_limit: the same in requests.
    :param token_limit_by: who said it: ``tier``, ``connection``, ``parameter`` or ``refusal``. What a refusal said
        counts for all that wait for the queue.
    :param request_limit_by: the same for requests.
    :param at_most: ``tokens`` is a bound or an estimate.
    :param job_key: of the send: when its batch turns up in a list, it is no longer counted as on its way.
    :param holder: names the shard, whichever send it is, so that nothing is kept for it twice.
    :param asked_at: Unix seconds at which the shard asked first; keeps its place in the line.
    :param not_before: Unix seconds until which to be patient after a refusal: strangers may be using the queue.
    :param poll_interval: seconds between two looks; shared by all that wait on the same connection.
    :param deadline: Unix seconds at which waiting ends whatever happens; it survives a restart. ``None``: no bound.
    :param unknown: what another version of this class has stored. It is kept and handed on.
    """

    def __init__(
        self,
        *,
        conn_id: str = "",
        model: str = "",
        tokens: int = 0,
        requests: int = 0,
        token_limit: int | None = None,
        request_limit: int | None = None,
        token_limit_by: LimitSource = "connection",  # noqa: S107 - no secret
        request_limit_by: LimitSource = "connection",
        at_most: bool = False,
        job_key: str = "",
        holder: str = "",
        asked_at: float | None = None,
        not_before: float = 0.0,
        poll_interval: float = 60.0,
        deadline: float | None = None,
        schema_version: int = SCHEMA_VERSION,
        **unknown: Any,
    ) -> None:
        # No check, no conversion, nothing required and nothing refused here: an exception kills the whole triggerer,
        # and while a cluster is upgraded, versions read what others wrote.
        super().__init__()
        self.conn_id = conn_id
        self.model = model
        self.tokens = tokens
        self.requests = requests
        self.token_limit = token_limit
        self.request_limit = request_limit
        self.token_limit_by = token_limit_by
        self.request_limit_by = request_limit_by
        self.at_most = at_most
        self.job_key = job_key
        self.holder = holder
        self.asked_at = asked_at
        self.not_before = not_before
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.schema_version = schema_version
        self.unknown = unknown

    @classmethod
    def for_need(cls, need: Need, limit: QueueLimit, **arguments: Any) -> Self:
        """From what the state machine says; ``arguments``: the others."""
        return cls(
            model=need.model,
            tokens=need.tokens,
            requests=need.requests,
            at_most=need.at_most,
            job_key=need.job_key,
            token_limit=limit.tokens,
            request_limit=limit.requests,
            token_limit_by=limit.tokens_by,
            request_limit_by=limit.requests_by,
            **arguments,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = (
            "conn_id", "model", "tokens", "requests", "token_limit", "request_limit", "token_limit_by",
            "request_limit_by", "at_most", "job_key", "holder", "asked_at", "not_before", "poll_interval", "deadline",
            "schema_version",
        )  # fmt: skip
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {**self.unknown, **{name: getattr(self, name) for name in names}},
        )

    def is_progress(self, event: TriggerEvent) -> bool:
        return bool(event.payload["status"] == "room")

    async def find_event(self) -> TriggerEvent:
        room = get_room(self.conn_id)
        waiter = room.join(
            Need(self.model, self.tokens, self.requests, self.job_key, at_most=self.at_most),
            QueueLimit(
                tokens=self.token_limit,
                requests=self.request_limit,
                tokens_by=self.token_limit_by,
                requests_by=self.request_limit_by,
            ),
            now=time.time(),
            asked_at=self.asked_at,
            not_before=self.not_before,
            holder=self.holder,
        )
        status = ""
        try:
            async with asyncio.timeout(
                None if self.deadline is None else max(0.0, self.deadline - time.time())
            ):
                status = await self._stand_in_line(room, waiter)
        except TimeoutError:
            status = "timeout"
        finally:
            room.leave(waiter, taken=status == "room")
            show_waiting(self.conn_id, room, (waiter.need.queue,))
        return self._event(status, room.find_room(waiter).limit)

    async def _stand_in_line(self, room: AdmissionQueue, waiter: Waiter) -> str:
        """As long as OpenAI cannot be reached no list comes, and nobody is let go on."""
        told, told_at = "", 0.0
        considered = False
        snapshots = find_watcher(self.conn_id).follow_queue(max(0.1, read_seconds(self.poll_interval)))
        try:
            async for snapshot in snapshots:
                now = time.time()
                new = room.see(
                    (*snapshot.batches, *snapshot.ended),
                    created_last_hour=snapshot.created_last_hour,
                    at=snapshot.at,
                )
                if new or not considered:  # the first to hear of a list decides for the whole line
                    room.admit(now)
                    considered = True
                    show_waiting(self.conn_id, room)
                if waiter.granted_at is not None:
                    log.info("Room in the batch queue of %s for %s tokens.", self.model, f"{self.tokens:,}")
                    return "room"
                if never_fits(waiter.need, room.find_room(waiter).limit):
                    return "too_large"
                text = room.describe(waiter, now)
                if text != told and now - told_at >= TELL_EVERY_S:
                    told, told_at = text, now
                    log.info("Waiting for room in the batch queue of %s: %s.", self.model, text)
        finally:
            await snapshots.aclose()  # type: ignore[attr-defined]  # an async generator
        raise AssertionError("the watcher ended without an answer")

    @staticmethod
    def _event(status: str, limit: QueueLimit) -> TriggerEvent:
        return TriggerEvent(  # type: ignore[no-untyped-call]
            {"status": status, "limit": limit.to_dict(), "schema_version": SCHEMA_VERSION}
        )
