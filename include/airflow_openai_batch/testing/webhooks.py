"""Signed events over real HTTP, when batches end.

As OpenAI sends them (https://platform.openai.com/docs/guides/webhooks): at least once, with the headers of Standard
Webhooks, and again with longer and longer pauses as long as the answer is no 2xx.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from airflow_openai_batch.testing.batches import TERMINAL, Batch

if TYPE_CHECKING:
    from airflow_openai_batch.testing.emulator import Emulator
    from airflow_openai_batch.testing.lifecycle import Lifecycle

LOOK_EVERY_S = 0.1
ANSWER_WITHIN_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
"""Before an event is sent again; OpenAI's own pauses are not documented."""
GIVE_UP_S = 72 * 3600.0


def sign_webhook(body: str, secret: str, *, webhook_id: str, timestamp: float) -> dict[str, str]:
    """The headers of an event.

    :param secret: ``whsec_`` and base64, or any other text.
    :param timestamp: Unix seconds of this delivery.
    """
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    signed = f"{webhook_id}.{int(timestamp)}.{body}".encode()
    return {
        "content-type": "application/json",
        "user-agent": "OpenAI/1.0 (emulator)",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(timestamp)),
        "webhook-signature": "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode(),
    }


@dataclass(order=True, slots=True)
class _Delivery:
    due_at: float
    """Of the monotonic clock, as is `until`."""
    webhook_id: str
    body: str = field(compare=False)
    until: float = field(compare=False)
    pause_s: float = field(default=FIRST_PAUSE_S, compare=False)


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What became of one delivery."""

    webhook_id: str
    batch_id: str
    status: int | None
    """``None`` where nobody answered."""


class WebhookSender:
    """Looks for batches that ended, in a thread of its own: nobody else may be asking for them."""

    def __init__(self, emulator: Emulator, lock: threading.RLock) -> None:
        self.answers: list[WebhookAnswer] = []
        self._emulator = emulator
        self._lock = lock
        self._stopping = threading.Event()
        self._of: Lifecycle | None = None
        self._since = 0.0
        self._seen = 0
        self._running: list[Batch] = []
        self._due: list[_Delivery] = []

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """Until `stop`."""
        self._stopping.clear()
        with httpx.Client(timeout=ANSWER_WITHIN_S, trust_env=False) as http:
            while not self._stopping.wait(LOOK_EVERY_S):
                url = self._emulator.settings.webhook_url
                if url is None:
                    self._of = None
                    continue
                for batch in self._take_ended():
                    self._plan(batch)
                while self._due and self._due[0].due_at <= time.monotonic() and not self._stopping.is_set():
                    self._deliver(http, url, heapq.heappop(self._due))

    def _take_ended(self) -> list[Batch]:
        """What has ended since the last look, or since there is a URL."""
        with self._lock:
            batches = self._emulator.batches
            batches.settle()
            if batches is not self._of:  # new, or after a reset
                self._of, self._since = batches, self._emulator.clock.now() - 1
                self._seen, self._running, self._due = 0, [], []
            new = list(itertools.islice(batches, self._seen, None))
            self._seen += len(new)
            looked = self._running + new
            self._running = [batch for batch in looked if batch.status not in TERMINAL]
        return [batch for batch in looked if batch.stamps.get(_end(batch), 0.0) >= self._since]

    def _plan(self, batch: Batch) -> None:
        settings, now = self._emulator.settings, time.monotonic()
        name = batch.id.removeprefix("batch_")
        event = {
            "id": f"evt_{name}",
            "object": "event",
            "created_at": int(batch.stamps[_end(batch)]),
            "type": f"batch.{batch.status}",
            "data": {"id": batch.id},
        }
        for _ in range(settings.webhook_copies):
            due_at = now + settings.webhook_delay_s
            heapq.heappush(self._due, _Delivery(due_at, f"wh_{name}", json.dumps(event), now + GIVE_UP_S))

    def _deliver(self, http: httpx.Client, url: str, delivery: _Delivery) -> None:
        secret = self._emulator.settings.webhook_secret
        headers = sign_webhook(delivery.body, secret, webhook_id=delivery.webhook_id, timestamp=time.time())
        try:
            status = http.post(url, content=delivery.body, headers=headers).status_code
        except httpx.HTTPError:
            status = None
        self.answers.append(
            WebhookAnswer(delivery.webhook_id, json.loads(delivery.body)["data"]["id"], status)
        )
        now = time.monotonic()
        if (status is None or not 200 <= status < 300) and now < delivery.until:
            delivery.due_at = now + delivery.pause_s
            delivery.pause_s = min(LONGEST_PAUSE_S, 2 * delivery.pause_s)
            heapq.heappush(self._due, delivery)


def _end(batch: Batch) -> str:
    return batch.status if batch.status in TERMINAL else ""
