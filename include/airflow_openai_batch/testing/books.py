"""The books: what was answered how often, what was billed, how full the queue ever was.

They are what a test reads to prove that nothing was lost and nothing was paid twice. With a million
lines they take about 200 MB (two counters, one by custom_id and one by request body); ``detail=False``
keeps only the sums.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from airflow_openai_batch.testing.requests import canonical, digest_of

JSON = dict[str, Any]


def body_key(body: Any) -> int:
    """What a request body is counted under: the same for equal bodies, however written."""
    return key_of(digest_of(canonical(body)))


def key_of(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def find_paid_twice(
    lines: Iterable[bytes] | Path, good_by_body: Mapping[int, int]
) -> Iterator[tuple[str, int, int]]:
    """See `Books.paid_twice`; for another process, with what the control client's ``good_by_body`` gave."""
    if isinstance(lines, Path):
        with lines.open("rb") as file:
            yield from find_paid_twice(file, good_by_body)
        return
    asked: Counter[int] = Counter()
    first: dict[int, str] = {}
    for line in lines:
        request = msgspec.json.decode(line)
        key = body_key(request["body"])
        asked[key] += 1
        first.setdefault(key, request["custom_id"])
    for key, lines_with_it in asked.items():
        if good_by_body.get(key, 0) > lines_with_it:
            yield first[key], good_by_body[key], lines_with_it


class Books:
    """Counted since the start or the last reset.

    A *billed* answer is one with status 200. A *good* one is billed and was not spoiled by the script
    (refusal, content filter, cut off, breaking its schema).
    """

    def __init__(self, *, detail: bool = True) -> None:
        self.detail = detail
        self.calls: Counter[str] = Counter()
        """By method, route and status: ``"GET /v1/batches/* 200"``."""
        self.good_by_custom_id: Counter[str] = Counter()
        """Good answers given in batches."""
        self.good_by_body: Counter[int] = Counter()
        """Good answers given in batches and in real time, by `body_key`."""
        self.billed: Counter[str] = Counter()
        """Billed answers, by ``batch``, ``realtime`` and ``flex``."""
        self.good: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Requests that ran and got no 200, by ``batch``, ``realtime`` and ``flex``."""
        self.tokens: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """By ``batch gpt-6-luna``: ``input`` and ``output``."""
        self.enqueued: Counter[str] = Counter()
        """Input tokens in the queue now, by model; strangers' included."""
        self.enqueued_requests: Counter[str] = Counter()
        self.peak_enqueued: Counter[str] = Counter()
        self.peak_enqueued_requests: Counter[str] = Counter()
        self.batches_by_job_key: defaultdict[str, list[str]] = defaultdict(list)
        self.outcomes: Counter[str] = Counter()
        """Batches by the status they ended in."""
        self.refusals: Counter[str] = Counter()
        """Batches that failed, by error code."""

    def record_call(self, route: str, status: int | str) -> None:
        self.calls[f"{route} {status}"] += 1

    def calls_of(self, route: str) -> int:
        """Calls of one route, whatever came of them: ``calls_of("POST /v1/batches")``."""
        return sum(count for name, count in self.calls.items() if name.rpartition(" ")[0] == route)

    def record_answer(
        self,
        mode: str,
        model: str,
        digest: bytes,
        tokens: tuple[int, int],
        *,
        good: bool,
        custom_id: str | None,
    ) -> None:
        self.billed[mode] += 1
        spent = self.tokens[f"{mode} {model}"]
        spent["input"] += tokens[0]
        spent["output"] += tokens[1]
        if not good:
            return
        self.good[mode] += 1
        if self.detail:
            self.good_by_body[key_of(digest)] += 1
            if custom_id is not None:
                self.good_by_custom_id[custom_id] += 1

    def enqueue(self, model: str, tokens: int, requests: int) -> None:
        self.enqueued[model] += tokens
        self.enqueued_requests[model] += requests
        self.peak_enqueued[model] = max(self.peak_enqueued[model], self.enqueued[model])
        self.peak_enqueued_requests[model] = max(
            self.peak_enqueued_requests[model], self.enqueued_requests[model]
        )

    def release(self, model: str, tokens: int, requests: int) -> None:
        self.enqueued[model] -= tokens
        self.enqueued_requests[model] -= requests

    def paid_twice(self, lines: Iterable[bytes] | Path) -> Iterator[tuple[str, int, int]]:
        """Requests of an input whose body got more good answers than the input has lines with it.

        :param lines: of the input, in the Batch API's format, or the file that has them.
        :return: custom_id of the first such line, good answers given, lines that asked.
        """
        return find_paid_twice(lines, self.good_by_body)

    def to_json(self) -> JSON:
        """All but the counters by request, of which only the sizes and the most are given."""
        return {
            "calls": dict(self.calls),
            "billed": dict(self.billed),
            "good": dict(self.good),
            "refused": dict(self.refused),
            "tokens": {name: dict(spent) for name, spent in self.tokens.items()},
            "enqueued": dict(self.enqueued),
            "enqueued_requests": dict(self.enqueued_requests),
            "peak_enqueued": dict(self.peak_enqueued),
            "peak_enqueued_requests": dict(self.peak_enqueued_requests),
            "batches_by_job_key": {key: list(ids) for key, ids in self.batches_by_job_key.items()},
            "outcomes": dict(self.outcomes),
            "refusals": dict(self.refusals),
            "custom_ids": len(self.good_by_custom_id),
            "bodies": len(self.good_by_body),
            "most_for_one_custom_id": max(self.good_by_custom_id.values(), default=0),
            "most_for_one_body": max(self.good_by_body.values(), default=0),
        }
