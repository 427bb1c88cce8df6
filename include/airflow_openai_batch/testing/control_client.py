"""The control API from another process: the same words as `OpenAIServer` has, over HTTP."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import msgspec

from airflow_openai_batch.testing.books import find_paid_twice
from airflow_openai_batch.testing.connection import airflow_connection

JSON = dict[str, Any]


class ControlClient:
    """Scripts and reads an emulator wherever it runs.

    :param url: root or base URL of the emulator, for instance ``http://127.0.0.1:8080/v1``.
    :param timeout_s: for each call.
    """

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeout_s = timeout_s

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given."""
        return f"{self.url}/v1"

    def airflow_connection(self, key: str = "sk-emulator", **extra: Any) -> str:
        """The value of an environment variable ``AIRFLOW_CONN_<ID>`` that leads here."""
        return airflow_connection(self.base_url, key, **extra)

    def script(self, **fault: Any) -> str:
        """:return: the rule's id. :raises ValueError: if the fields are no fault."""
        return str(self._call("POST", "script", fault)["id"])

    def unscript(self, rule_id: str | None = None) -> None:
        """Take back one rule, or all."""
        self._call("DELETE", "script" if rule_id is None else f"script?id={quote(rule_id)}")

    def rules(self) -> list[JSON]:
        """All rules, with ``hits``."""
        rules: list[JSON] = self._call("GET", "script")["rules"]
        return rules

    def hits(self, rule_id: str) -> int:
        """How often a rule has struck."""
        return next((int(rule["hits"]) for rule in self.rules() if rule["id"] == rule_id), 0)

    def configure(self, **changes: Any) -> JSON:
        """Change settings from now on; returns all of them."""
        return self._call("POST", "settings", changes)

    def now(self) -> float:
        """The emulator's time, in Unix seconds."""
        return float(self._call("GET", "clock")["now"])

    def advance(self, seconds: float) -> float:
        """Jump ahead, and return the new time."""
        return float(self._call("POST", "clock", {"advance_s": seconds})["now"])

    def run_clock(self, speed: float) -> None:
        """Go on at another speed; 0 stops the clock."""
        self._call("POST", "clock", {"speed": speed})

    def occupy_queue(self, model: str, tokens: int = 0, requests: int = 0) -> None:
        """Let strangers put so much into the queue; negative numbers take it out."""
        self._call("POST", "queue", {"model": model, "tokens": tokens, "requests": requests})

    def books(self) -> JSON:
        """What `Books.to_json` gives, with the status of each batch and the files alive."""
        return self._call("GET", "books")

    def good_by_custom_id(self, least: int = 1) -> dict[str, int]:
        """Good answers in batches, by custom_id; only those with at least so many."""
        return dict(self._stream(f"books/custom_ids?min={least}"))

    def good_by_body(self, least: int = 1) -> dict[int, int]:
        """Good answers in batches and real time, by `books.body_key`."""
        return dict(self._stream(f"books/bodies?min={least}"))

    def paid_twice(self, lines: Iterable[bytes] | Path) -> Iterator[tuple[str, int, int]]:
        """See `Books.paid_twice`."""
        return find_paid_twice(lines, self.good_by_body(least=2))

    def kept_batches(self, job_key: str) -> list[str]:
        """Batches of a job_key that were neither refused nor cancelled."""
        return list(self._call("GET", f"kept/{quote(job_key, safe='')}")["batches"])

    def reset(self) -> None:
        """Start anew: files, batches, script, books, settings."""
        self._call("POST", "reset")

    def _call(self, method: str, path: str, fields: JSON | None = None) -> JSON:
        data = None if fields is None else msgspec.json.encode(fields)
        request = urllib.request.Request(f"{self.url}/emulator/{path}", data=data, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:  # noqa: S310
                return msgspec.json.decode(reply.read(), type=JSON)
        except HTTPError as error:
            with error:
                raise ValueError(msgspec.json.decode(error.read())["error"]) from None

    def _stream(self, path: str) -> Iterator[Any]:
        url = f"{self.url}/emulator/{path}"
        with urllib.request.urlopen(url, timeout=self._timeout_s) as reply:  # noqa: S310
            yield from (msgspec.json.decode(line) for line in reply)
