"""What is asked of one run and what befalls it: drawn from a seed, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from chaos.evils import BATCH_EVILS, FOR_EVER, LATE, LINE_EVILS, LOST_REPLIES, NEEDS_SCHEMA, SCHEMA
from chaos.stage import QUEUED_MODEL
from fixtures.job import chat_line

DAGS = ("openai_batch", "openai_batch_one_task")
MODELS = ("gpt-4o-mini", "gpt-4.1-nano", "gpt-5-nano", QUEUED_MODEL)
MODES = ("batch", "batch", "auto")

AIMS = ("uploaded", "intent", "created", "ended", "landed")
"""Ledger events; the worker that wrote one is killed as soon as it is there."""

TURNS = (
    "twin run", "twin run", "key rotated", "key rotated", "clear", "clear", "mark failed", "mark failed",
    "mark success", "mark success", "fail run", None, None, None, None,
)  # fmt: skip
"""What else happens, besides kills and faults: as many as the runs of a usual storm, so that each comes up."""
DEEDS = frozenset({"clear", "mark failed", "mark success", "fail run"})
TURNS_AT = ("uploaded", "created", "created", "ended")

REALTIME_MOST = 10
"""``realtime_threshold``: with ``auto`` a shard of so many goes out request by request."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Something that a person, or another run, does when a ledger event appears."""

    what: str
    event: str
    shard: int
    again: bool
    """Afterwards a new run is started over the same output; otherwise what failed is cleared."""


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
    turn: Turn | None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"chaos-{self.seed}-{self.number}"

    @property
    def shards(self) -> int:
        return -(-self.requests // self.per_shard)

    @property
    def twin_dag(self) -> str | None:
        """The DAG of a second run over the same output at the same time."""
        if self.turn is None or self.turn.what != "twin run":
            return None
        return next(dag for dag in DAGS if dag != self.dag_id)

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
            if (
                evil == LATE
            ):  # all batches of the job, so that one of them is likely to be whose reply is lost
                yield "HTTP cut after", LOST_REPLIES
                yield evil, BATCH_EVILS[evil] | {"metadata": {"run_id": self.name}}
            else:
                yield evil, BATCH_EVILS[evil] | {"metadata": {"run_id": self.name, "shard": str(shard)}}
        for evil in sorted(set(self.line_evils.values())):
            yield evil, LINE_EVILS[evil] | {"contains": self.mark(evil)}

    @property
    def shows_late(self) -> bool:
        """Whether a batch may get a twin, since lists show it only after all patience with a lost reply."""
        return any(evil == LATE for evil, _ in self.batch_evils)

    @property
    def needs_person(self) -> bool:
        """Whether it may take a clear to go on: after what people did, never after faults and kills."""
        return self.turn is not None and self.turn.what not in ("twin run", "clear")

    def expects_ok(self, n: int) -> bool:
        return not self.line_evils.get(n, "").endswith(FOR_EVER)


def draw_scenario(seed: int, number: int) -> Scenario:
    """The scenario of a run."""
    draw = random.Random(f"{seed}/{number}")
    (mode,) = deal(f"{seed} modes", MODES, number)
    per_shard = draw.randint(REALTIME_MOST + 1, 18)
    if mode == "auto":  # the last shard goes out in real time
        shards, last = draw.randint(3, 4), draw.randint(3, REALTIME_MOST)
        batches = shards - 1
    else:
        shards, last = draw.randint(2, 3), draw.randint(3, per_shard)
        batches = shards
    requests = (shards - 1) * per_shard + last
    line_evils: dict[int, str] = {}
    for evil in deal(f"{seed} lines", sorted(LINE_EVILS), number, hand=3):
        line_evils |= dict.fromkeys(draw.sample(range(requests), draw.randint(1, 3)), evil)
    batch_evils = deal(f"{seed} batches", sorted(BATCH_EVILS), number, hand=2)
    (dag_id,) = deal(f"{seed} dags", DAGS, number)
    (what,) = deal(f"{seed} turns", TURNS, number)
    turn = None
    if what is not None:
        event, shard = draw.choice(TURNS_AT), draw.randrange(batches)
        turn = Turn(what=what, event=event, shard=shard, again=draw.random() < 0.5)
    return Scenario(
        seed=seed,
        number=number,
        dag_id=dag_id,
        model=draw.choice(MODELS),
        requests=requests,
        per_shard=per_shard,
        batch_evils=tuple(zip(batch_evils, draw.sample(range(batches), 2), strict=True)),
        line_evils=line_evils,
        aims=tuple((draw.choice(AIMS), draw.randrange(shards)) for _ in range(draw.randint(0, 2))),
        turn=turn,
        params={"poll_interval": 1, "max_failed_fraction": 1.0, "mode": mode},
    )


def deal(name: str, cards: Sequence[_T], number: int, *, hand: int = 1) -> tuple[_T, ...]:
    """The cards of a player at a table where all are dealt before the deck is shuffled anew: none is left out."""
    return tuple(_card(name, cards, at) for at in range(number * hand, (number + 1) * hand))


def _card(name: str, cards: Sequence[_T], at: int) -> _T:
    round_, place = divmod(at, len(cards))
    deck = list(cards)
    random.Random(f"{name} {round_}").shuffle(deck)
    return deck[place]
