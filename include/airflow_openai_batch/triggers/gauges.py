"""What a triggerer shows of its connections: batches and tokens in flight, and who waits for room."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from airflow_openai_batch.hooks import metrics
from airflow_openai_batch.openai_api.models import base_model
from airflow_openai_batch.sending.queue.room import sum_held

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.sending.queue.line import AdmissionQueue

HOSTNAME = socket.gethostname()
"""A gauge of two triggerers must not be one: whoever wants the sum adds them up."""


class InFlight:
    """The batches that the deferred tasks of one connection wait for, once a cycle."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._seen: dict[str, BatchView] = {}
        self._shown: set[str] = set()

    def show(self, views: Mapping[str, BatchView], watched: Collection[str], now: float) -> None:
        """Costs a pass over what is watched; what is sent goes out in another thread.

        :param views: what this cycle has seen; of the others the last sight counts.
        :param watched: the ids of batches that are waited for.
        :param now: Unix seconds.
        """
        if not (self._conn_id and metrics.is_on()):
            return
        known = {**self._seen, **views}
        self._seen = {batch_id: known[batch_id] for batch_id in watched if batch_id in known}
        queues: defaultdict[str, list[BatchView]] = defaultdict(list)
        for batch in self._seen.values():
            if not batch.status.is_final:
                queues[base_model(batch.model or "unknown")].append(batch)
        for queue in sorted(queues.keys() | self._shown):
            running = queues.get(queue, [])
            tokens = sum(held.tokens for held in sum_held(running).values())
            self._gauge("batches_in_flight", len(running), queue)
            self._gauge("tokens_in_flight", tokens, queue)
            oldest_at = min((batch.created_at for batch in running), default=now)
            self._gauge("oldest_batch_age_s", max(0, round(now - oldest_at)), queue)  # clocks differ
        self._shown = set(queues)

    def _gauge(self, name: str, value: float, queue: str) -> None:
        metrics.soon(metrics.gauge, name, value, conn_id=self._conn_id, model=queue, hostname=HOSTNAME)


def show_waiting(conn_id: str, room: AdmissionQueue, queues: Iterable[str] = ()) -> None:
    """How many shards wait for room in each queue.

    :param queues: shown also where nobody waits any more.
    """
    if not metrics.is_on():
        return
    waiting = room.count_waiting()
    for queue in {*waiting, *queues}:
        metrics.soon(
            metrics.gauge,
            "shards_waiting_for_room",
            waiting[queue],
            conn_id=conn_id,
            model=queue,
            hostname=HOSTNAME,
        )
