"""The line of one that a task stands in which waits in a worker: the rules are those of the triggerer's line.

It does not know who else waits, in the triggerer or in other workers; that is as between two triggerers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_openai_batch.sending.queue.book import LOOK_BACK_S, QueueBook
from airflow_openai_batch.sending.queue.line import AdmissionQueue, Waiter

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.account_limits import QueueLimit
    from airflow_openai_batch.openai_api.batch import BatchView, QueueSnapshot
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.sending.queue.room import Need


@dataclass(slots=True)
class OwnLine:
    """Asked again and again while the task waits."""

    _line: AdmissionQueue = field(default_factory=AdmissionQueue)
    _book: QueueBook = field(default_factory=QueueBook)
    _waiter: Waiter | None = None

    def ask(
        self,
        client: BatchClient,
        need: Need,
        limit: QueueLimit,
        *,
        now: float,
        not_before: float,
        holder: str,
    ) -> tuple[bool, str]:
        """Look at the list of batches: whether the send may go now, and how the queue stands in words.

        The first look goes through all that may be in flight, later ones through what is new and what is still there.

        :param not_before: patience after a refusal, Unix seconds.
        :raises ListError: if the list cannot be read to its end.
        """
        waiter = self._stand(need, limit, now, not_before, holder)
        snapshot = look_at_queue(client, self._book, now)
        self._line.see(
            (*snapshot.batches, *snapshot.ended), created_last_hour=snapshot.created_last_hour, at=snapshot.at
        )
        self._line.admit(now)
        text = self._line.describe(waiter, now)
        if waiter.granted_at is None:
            return False, text
        self._line.leave(waiter, taken=True)
        self._waiter = None
        return True, text

    def _stand(self, need: Need, limit: QueueLimit, now: float, not_before: float, holder: str) -> Waiter:
        former = self._waiter
        if former is not None and (former.need, former.limit, former.not_before) == (need, limit, not_before):
            return former
        self._waiter = self._line.join(need, limit, now=now, not_before=not_before, holder=holder)
        if (
            former is not None
        ):  # not before: what was learnt of the queue is kept while somebody stands in line
            self._line.leave(former, taken=False)
        return self._waiter


def look_at_queue(client: BatchClient, book: QueueBook, now: float) -> QueueSnapshot:
    """All that is in flight, as the book then knows it.

    :raises ListError: if the list cannot be read to its end.
    """
    since, hoped = book.since(now), set(book.ids)
    views: list[BatchView] = []
    for view in client.iter_batches(now - LOOK_BACK_S):
        if view.created_at < since and not hoped:
            break
        views.append(view)
        hoped.discard(view.id)
    return book.take(views, now)
