"""Faults of the connection between Airflow and OpenAI, for all runs alike, one after another while the storm lasts."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_openai_batch.testing.control_client import ControlClient

ROUTES = (
    "POST /v1/files",
    "POST /v1/batches",
    "GET /v1/batches",
    "GET /v1/batches/*",
    "GET /v1/files/*/content",
    "POST /v1/batches/*/cancel",
    "DELETE /v1/files/*",
    "POST /v1/chat/completions",
)
KINDS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "502": {"status": 502},
    "503": {"status": 503, "retry_after_s": 1},
    "429": {"status": 429, "retry_after_s": 1},
    "cut before": {"drop": "before"},
    "cut after": {"drop": "after"},
    "slow": {"delay_s": 1.5},
}
ONLY_OF_ONE: dict[str, dict[str, Any]] = {"404": {"status": 404}}
ONLY_CONTENT: dict[str, dict[str, Any]] = {
    "cut within": {"truncate_bytes": 700},
    "cut in good order": {"keep_lines": 2},
    "a login page": {"page": "<html>Please log in.</html>"},
}
ONLY_CREATE: dict[str, dict[str, Any]] = {
    "file not visible": {"status": 400, "message": "Cannot find file file-x, or you may not see it."},
    "later": {"status": 429, "retry_after_s": 3},
}
EVERY_S = 2.0
SHARE = 0.35
"""Of the calls of its route that a fault strikes while it stands: some routes are called seldom."""
STALE_S = 25.0
"""A fault that found nothing to strike for so long is taken back."""
OUTAGE_EVERY = 24
OUTAGE_S = (3.0, 7.0)


class Weather:
    """Scripts the emulator from a thread, and counts what struck."""

    def __init__(self, emulator: ControlClient, seed: int) -> None:
        self._emulator = emulator
        self._draw = random.Random(f"weather {seed}")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weather", daemon=True)
        self._names: dict[str, str] = {}
        self._struck: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Clear skies; the counts stay."""
        self._ended.set()
        self._thread.join()
        self._take_back(list(self._names))

    def struck(self) -> Counter[str]:
        """Faults that struck, by kind; complete after `stop`."""
        return self._struck

    def _run(self) -> None:
        standing: list[tuple[float, str]] = []
        turn, clock = 0, 0.0
        try:
            while not self._ended.wait(EVERY_S):
                turn, clock = turn + 1, clock + EVERY_S
                if turn % OUTAGE_EVERY == 0:
                    self._cut_all()
                    continue
                standing.append((clock, self._brew()))
                stale = [rule for since, rule in standing if since < clock - STALE_S]
                standing = [(since, rule) for since, rule in standing if since >= clock - STALE_S]
                self._take_back(stale)
        except BaseException as error:
            self.failure = error
            raise

    def _brew(self) -> str:
        route = self._draw.choice(ROUTES)
        kinds = KINDS | (ONLY_OF_ONE if route.startswith("GET") and "*" in route else {})
        kinds |= ONLY_CONTENT if route.endswith("content") else {}
        kinds |= ONLY_CREATE if route == "POST /v1/batches" else {}
        kind = self._draw.choice(sorted(kinds))
        return self._script(
            f"{kind}", http=route, share=SHARE, times=self._draw.choice((1, 1, 1, 2)), **kinds[kind]
        )

    def _cut_all(self) -> None:
        """OpenAI refuses every connection for some seconds."""
        rule = self._script("outage", http="/v1/**", drop="before", times=None)
        self._ended.wait(self._draw.uniform(*OUTAGE_S))
        self._take_back([rule])

    def _script(self, name: str, **fault: Any) -> str:
        rule = self._emulator.script(**fault)
        self._names[rule] = f"HTTP {name}"
        return rule

    def _take_back(self, rules: list[str]) -> None:
        hits = {rule["id"]: rule["hits"] for rule in self._emulator.rules()}
        for rule in rules:
            self._struck[self._names.pop(rule)] += hits.get(rule, 0)
            self._emulator.unscript(rule)
