"""Where a shard stands: what the ledger's events add up to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from airflow_openai_batch.job.ledger import Event
    from airflow_openai_batch.job.plan import Shard

FILE_WAITS_S = (30.0, 60.0, 120.0, 300.0)
"""OpenAI's "Cannot find file" comes in bursts and passes; after these waits the file is uploaded again."""
PASSING_REFUSALS = frozenset({"queue_full", "file_missing"})
"""Kinds of refusals of a batch after which its requests are sent again by themselves."""
PASSING_DECLINES = frozenset({"file_missing", "busy", "unsure"})
"""The same of calls that were declined."""
WHATEVER_DEADLINE = math.inf
"""The cancelling took so long that the shard was stopped: whoever clears its task sets a new deadline, and would only
see the same again."""
CUT_SHORT = "cancelled"
"""How a send one by one ends that leaves its rest to another way: a request without a line did not run, as in a batch.
"""


class Goal(IntEnum):
    """How far a shard is to be brought; each task of the DAG has one."""

    UPLOADED = 1
    CREATED = 2
    ENDED = 3
    LANDED = 4
    DONE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What the current send carries: the whole shard, or what former sends left over."""

    leftover_send: int = 0
    """Number in the name of the leftover file; 0 for the whole shard. Not always that of the current send:
    one that is refused hands its content to the next."""
    sha256: str
    bytes: int
    requests: int
    input_tokens: int
    first: int | None = None
    """A sample: what was open of so many of the shard's first requests."""

    @classmethod
    def of(cls, shard: Shard) -> Content:
        """What the first send carries: the whole shard."""
        return cls(
            sha256=shard.sha256,
            bytes=shard.bytes,
            requests=shard.requests,
            input_tokens=shard.expected_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A send that is over and may have paid answers."""

    send: int
    batch_id: str | None
    """``None`` for a send in real time."""
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    times: dict[str, float] = field(default_factory=dict)
    completed: int = 0
    failed: int = 0
    total: int = 0
    """What the batch's counts promise; zeros where it has none."""
    gone: tuple[str, ...] = ()
    """Result files that the server did not have any more: ``output``, ``error``."""
    carried: int | None = None
    """A sample carried what was open of so many of the shard's first requests; ``None``: all that was open."""
    content: Content | None = None
    """What it carried."""
    sent_as: str = "batch"
    """How the last of it went out."""
    is_hurried: bool = False
    """It went out one by one because of a deadline."""

    @property
    def is_cut_short(self) -> bool:
        """One by one, and given up before all of it was asked."""
        return self.batch_id is None and self.status == CUT_SHORT


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody said to be about to pay for a send: to create its batch, or to send it in real time."""

    at: float
    """Unix seconds."""
    by: str


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shard stands. Made by `folding.fold_events` alone.

    A struct, since each event copies it: a frozen dataclass of so many fields takes fifty times as long.
    """

    content: Content
    send: int = 1
    file_id: str | None = None
    file_sha256: str | None = None
    file_created_at: float | None = None
    """By the server's clock, Unix seconds."""
    claims: tuple[Claim, ...] = ()
    """Of this send, oldest first; who holds it, `find_holder` says."""
    first_intent_at: float | None = None
    first_file_at: float | None = None
    """When the file of the first intent was created, by the server's clock: no batch of this send is older."""
    sent_files: tuple[str, ...] = ()
    """Files that a batch of this send may carry."""
    former_batches: tuple[str, ...] = ()
    """Batches of the sends before."""
    declines: int = 0
    """Times that the server put this send off, in a row."""
    not_before: float = 0.0
    """When the server wants to be asked again, Unix seconds."""
    intents: int = 0
    """Of this send. Only where there were several can there be several batches."""
    duplicates: tuple[str, ...] = ()
    """Batches of this send that were cancelled in favour of another."""
    realtime: bool = False
    """The requests of this send go out one by one."""
    flex: bool = False
    """The last of them went out through flex."""
    flex_closed: bool = False
    """Flex has had no room for this send for minutes: the rest of it goes another way."""
    is_hurried: bool = False
    """A deadline has made it go out one by one, or no longer through flex."""
    flex_closed_for: float = 0.0
    """It was too slow to keep this deadline (Unix seconds); 0: closed whatever the deadline."""
    sampled: int | None = None
    """This send carries only what is open of so many of the shard's first requests."""
    queue_limits: dict[str, int] = {}
    """What refusals said, by unit: tokens, requests."""
    remote_files: tuple[str, ...] = ()
    """Files at OpenAI that the ledger knows of: uploads, and the results of what ended."""
    cleaned: bool = False
    batch_id: str | None = None
    created_at: float | None = None
    cancel_asked_at: float = 0.0
    """The batch of this send was asked to be cancelled."""
    hurried_for: float = 0.0
    """A batch was cancelled for this deadline (Unix seconds): what is left is not sent as a batch again."""
    stopped_at: float = 0.0
    """The shard was stopped the last time; whoever cleared its task wants it tried anew."""
    ended: tuple[Ended, ...] = ()
    """Of all sends, oldest first: what landing reads."""
    landed_send: int = 0
    queue_refusals: int = 0
    """In a row, without a batch that was admitted."""
    file_refusals: int = 0
    refused_at: float | None = None
    doubts: dict[str, int] = {}
    """Looks at the results of this send that found them wanting, by code, since somebody cleared the task."""
    doubted_at: float = 0.0
    """When the last of them was, Unix seconds."""
    doubt: str = ""
    """What it found wanting."""
    doubt_code: str = ""
    """One of `results_check`'s."""
    doubt_is_final: bool = False
    """The shard was stopped for it; a repair takes what is there."""
    takes_all: bool = False
    """A repair has said to go on with what is there of the results of this send."""
    setbacks: tuple[str, ...] = ()
    """What went wrong since the last progress, for the error that stops the shard."""
    done: Event | None = None
    forgiven_through: int = 0
    """A repair asks again for whatever has no good answer from sends up to this one."""
    last_by: str = ""
    """Who wrote the newest event."""
    events: int = 0

    @property
    def waited(self) -> Waited:
        """For `judge_batch`."""
        return Waited(
            created_at=self.created_at or 0.0,
            cancel_asked_at=self.cancel_asked_at,
            stopped_at=self.stopped_at,
        )

    @property
    def last_batch_id(self) -> str | None:
        """Of the current send, else of the last one that ended."""
        return self.batch_id or next((e.batch_id for e in reversed(self.ended) if e.batch_id), None)


def is_reached(state: ShardState, goal: Goal) -> bool:
    """Whether the shard has come that far. A goal before ``DONE`` is reached by any send."""
    if state.done is not None:
        return True
    reached = {
        Goal.UPLOADED: state.file_id is not None or state.batch_id is not None or bool(state.ended),
        Goal.CREATED: state.batch_id is not None or bool(state.ended),
        Goal.ENDED: bool(state.ended),
        Goal.LANDED: state.landed_send > 0,
    }
    return reached.get(goal, False)


def has_sample(state: ShardState, first: int) -> bool:
    """Whether so many of the shard's first requests have been sent and have landed; a larger sample wants more."""
    landed = (ended for ended in state.ended if ended.send <= state.landed_send and not ended.is_cut_short)
    return state.done is not None or any(ended.carried is None or ended.carried >= first for ended in landed)


def find_holder(state: ShardState, lasts_s: float) -> Claim | None:
    """Whose the send is: the first who claimed it, until that is ``lasts_s`` old. Own claims renew it."""
    holder: Claim | None = None
    for claim in state.claims:
        if holder is None or claim.by == holder.by or claim.at >= holder.at + lasts_s:
            holder = claim
    return holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """How long there has been patience with a batch, besides what it says itself. Unix seconds; 0: not so."""

    created_at: float = 0.0
    """By the ledger."""
    cancel_asked_at: float = 0.0
    """It was asked to be cancelled."""
    stopped_at: float = 0.0
    """The shard was stopped, and whoever cleared its task wants to wait as long again."""
    rest_s: float = 0.0
    """Seconds that all of what the batch carries would take one by one; 0: nobody is going to send it so."""
