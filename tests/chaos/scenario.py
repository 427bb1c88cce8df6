"""What is asked of one run and what befalls it: drawn from a seed, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chaos.stage import QUEUED_MODEL
from fixtures.job import chat_line

DAGS = ("openai_batch", "openai_batch", "openai_batch_one_task")
MODELS = ("gpt-4o-mini", "gpt-4.1-nano", "gpt-5-nano", QUEUED_MODEL)

LINE_EVILS: dict[str, dict[str, Any]] = {
    "line 0 once": {"line": 0},
    "line 429 once": {"line": 429},
    "line 500 twice": {"line": 500, "times": 2},
    "line 503 once": {"line": 503},
    "line request_timeout once": {"line": "request_timeout"},
    "line missing once": {"line": "missing"},
    "line duplicate": {"line": "duplicate"},
    "line string_body": {"line": "string_body"},
    "line bad_schema once": {"line": "bad_schema"},
    "line not_json once": {"line": "not_json"},
    "line 500 for ever": {"line": 500, "times": None},
    "line 400 for ever": {"line": 400, "times": None},
    "line refusal for ever": {"line": "refusal", "times": None},
    "line cut off for ever": {"line": "length", "times": None},
    "line filtered for ever": {"line": "content_filter", "times": None},
}
FOR_EVER = " for ever"

BATCH_EVILS: dict[str, dict[str, Any]] = {
    "batch refused: no room": {
        "batch": "failed",
        "code": "token_limit_exceeded",
        "limit": 90_000,
        "times": 2,
    },
    "batch refused: file not visible": {"batch": "failed", "code": "invalid_request"},
    "batch expired, partly": {"batch": "expired", "done": 7, "total": 10},
    "batch expired, rest missing": {"batch": "expired", "done": 5, "total": 10, "unfinished": "missing"},
    "batch cancelled by others": {"batch": "cancelled", "done": 4, "total": 10},
    "batch stuck in progress": {"batch": "in_progress"},
    "batch stuck finalizing": {"batch": "finalizing"},
    "batch's files lag": {"batch": "completed", "file_lag": 2},
    "batch says little": {"batch": "completed", "omit": ["request_counts", "usage", "model"]},
    "batch with an empty error file id": {"batch": "completed", "empty_error_file_id": True},
    "batch shows late in lists": {"batch": "completed", "takes_s": 12, "list_lag_s": 4},
    "batch takes its time": {"batch": "completed", "takes_s": 12},
}

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "label",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"label": {"type": "string"}, "score": {"type": "integer"}},
            "required": ["label", "score"],
            "additionalProperties": False,
        },
    },
}
NEEDS_SCHEMA = frozenset({"line bad_schema once", "line not_json once"})

AIMS = ("uploaded", "intent", "created", "ended", "landed")
"""Ledger events; the worker that wrote one is killed as soon as it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run.

    ``seed/number`` says all: `draw_scenario` makes the same one again.
    """

    seed: int
    number: int
    dag_id: str
    model: str
    requests: int
    per_shard: int
    batch_evils: tuple[tuple[str, int], ...]
    """Name and shard."""
    line_evils: dict[int, str]
    """Request to what is wrong with it."""
    aims: tuple[tuple[str, int], ...]
    """Ledger event and shard at which the worker is killed."""
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"chaos-{self.seed}-{self.number}"

    @property
    def shards(self) -> int:
        return -(-self.requests // self.per_shard)

    def lines(self) -> Iterator[str]:
        """The input. Ids and texts occur in no other run, so that the books tell runs apart."""
        for n in range(self.requests):
            evil = self.line_evils.get(n, "none")
            body = {"response_format": SCHEMA} if evil in NEEDS_SCHEMA or n % 7 == 0 else {}
            text = f"{self.mark(evil)} number {n}: Positive, Negative or Neutral?"
            yield chat_line(f"{self.name}/{n}", text, model=self.model, **body)

    def mark(self, evil: str) -> str:
        """What stands in the text of every request that an evil befalls, and in no other."""
        return f"{{{self.name} {evil}}}"

    def faults(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and what the emulator's ``script`` is told."""
        for evil, shard in self.batch_evils:
            yield evil, BATCH_EVILS[evil] | {"metadata": {"run_id": self.name, "shard": str(shard)}}
        for evil in sorted(set(self.line_evils.values())):
            yield evil, LINE_EVILS[evil] | {"contains": self.mark(evil)}

    def expects_ok(self, n: int) -> bool:
        return not self.line_evils.get(n, "").endswith(FOR_EVER)


def draw_scenario(seed: int, number: int) -> Scenario:
    """The scenario of a run."""
    draw = random.Random(f"{seed}/{number}")
    shards = draw.randint(2, 8)
    requests = max(20, shards * draw.randint(4, 25))
    per_shard = -(-requests // shards)
    line_evils: dict[int, str] = {}
    for evil in draw.sample(sorted(LINE_EVILS), draw.randint(1, 5)):
        line_evils |= dict.fromkeys(draw.sample(range(requests), draw.randint(1, 3)), evil)
    batch_evils = draw.sample(sorted(BATCH_EVILS), draw.randint(1, 3))
    return Scenario(
        seed=seed,
        number=number,
        dag_id=draw.choice(DAGS),
        model=draw.choice(MODELS),
        requests=requests,
        per_shard=per_shard,
        batch_evils=tuple((evil, draw.randrange(shards)) for evil in batch_evils),
        line_evils=line_evils,
        aims=tuple((draw.choice(AIMS), draw.randrange(shards)) for _ in range(draw.randint(0, 2))),
        params={
            "poll_interval": 1,
            "max_failed_fraction": 1.0,
            "mode": draw.choice(("batch", "batch", "auto")),
        },
    )
