"""What is in flight in the whole account, kept from one cycle to the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from airflow_openai_batch.openai_api.batch import BatchView, QueueSnapshot

LOOK_BACK_S = 26 * 3600.0
"""A batch older than this has ended: 24 hours, an hour of validating and cancelling, and one to spare."""
LAG_S = 120.0
"""A list may show a batch only after those that were created later."""


class QueueBook:
    """All batches that are not final, those of strangers too."""

    def __init__(self) -> None:
        self._live: dict[str, BatchView] = {}
        self._created: dict[str, float] = {}
        self._through: float | None = None

    @property
    def ids(self) -> Collection[str]:
        return self._live.keys()

    def since(self, now: float) -> float:
        """How far back the list has to be gone through (Unix seconds of OpenAI's clock)."""
        if self._through is None:
            return now - LOOK_BACK_S
        return max(now - LOOK_BACK_S, self._through - LAG_S)

    def take(self, views: Iterable[BatchView], now: float) -> QueueSnapshot:
        """Take in all that a whole cycle showed. Batches it did not show any more are gone."""
        live: dict[str, BatchView] = {}
        ended: list[BatchView] = []
        for view in views:
            self._created[view.id] = view.created_at
            if not view.status.is_final:
                live[view.id] = view
            elif view.created_at > now - 3600.0:
                ended.append(view)
        self._live = live
        self._through = max(self._created.values(), default=None)
        self._created = {
            batch_id: at for batch_id, at in self._created.items() if at > now - 3600.0 or at == self._through
        }
        return QueueSnapshot(
            at=now,
            batches=tuple(sorted(live.values(), key=lambda view: view.created_at, reverse=True)),
            created_last_hour=sum(at > now - 3600.0 for at in self._created.values()),
            ended=tuple(ended),
        )
