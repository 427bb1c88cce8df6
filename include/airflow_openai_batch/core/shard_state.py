"""What the ledger's events add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from airflow_openai_batch.core.ledger import Event

FILE_WAITS_S = (30.0, 60.0, 120.0, 300.0)
"""OpenAI's "Cannot find file" comes in bursts and passes; after these waits the file is uploaded again."""


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
    carried: int | None = None
    """A sample carried what was open of so many of the shard's first requests; ``None``: all that was open."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody said to be about to pay for a send: to create its batch, or to send it in real time."""

    at: float
    """Unix seconds."""
    by: str


class ShardState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shard stands. Made by `fold_events` alone.

    A struct, since each event copies it: a frozen dataclass of so many fields takes fifty times as long.
    """

    content: Content
    send: int = 1
    file_id: str | None = None
    file_sha256: str | None = None
    claims: tuple[Claim, ...] = ()
    """Of this send, oldest first; who holds it, `find_holder` says."""
    first_intent_at: float | None = None
    intents: int = 0
    """Of this send. Only where there were several can there be several batches."""
    duplicates: tuple[str, ...] = ()
    """Batches of this send that were cancelled in favour of another."""
    realtime: bool = False
    """The requests of this send go out one by one."""
    sampled: int | None = None
    """This send carries only what is open of so many of the shard's first requests."""
    queue_limits: dict[str, int] = {}
    """What refusals said, by unit: tokens, requests."""
    remote_files: tuple[str, ...] = ()
    """Files at OpenAI that the ledger knows of: uploads, and the results of what ended."""
    cleaned: bool = False
    batch_id: str | None = None
    created_at: float | None = None
    ended: tuple[Ended, ...] = ()
    """Of all sends, oldest first: what landing reads."""
    landed_send: int = 0
    queue_refusals: int = 0
    """In a row, without a batch that was admitted."""
    file_refusals: int = 0
    refused_at: float | None = None
    setbacks: tuple[str, ...] = ()
    """What went wrong since the last progress, for the error that stops the shard."""
    done: Event | None = None
    forgiven_through: int = 0
    """A repair asks again for whatever has no good answer from sends up to this one."""
    last_by: str = ""
    """Who wrote the newest event."""
    events: int = 0

    @property
    def last_batch_id(self) -> str | None:
        """Of the current send, else of the last one that ended."""
        return self.batch_id or next((e.batch_id for e in reversed(self.ended) if e.batch_id), None)


def find_holder(state: ShardState, lasts_s: float) -> Claim | None:
    """Whose the send is: the first who claimed it, until that is ``lasts_s`` old. Own claims renew it."""
    holder: Claim | None = None
    for claim in state.claims:
        if holder is None or claim.by == holder.by or claim.at >= holder.at + lasts_s:
            holder = claim
    return holder


def fold_events(content: Content, events: Iterable[Event]) -> ShardState:
    """The state after these events; ``content`` is that of the whole shard."""
    state = ShardState(content=content)
    count, last_by = 0, ""
    for event in events:
        state = _STEPS[event.kind](state, event)
        count, last_by = count + 1, event.by
    return replace(state, events=count, last_by=last_by)


def _sampled(state: ShardState, event: Event) -> ShardState:
    if (
        event.send != state.send or state.claims
    ):  # whoever claimed the send has looked at what it carried then
        return state
    first = event.first or event.leftover
    return replace(state, sampled=first, content=_read_leftover(event, event.send, first=first))


def _uploaded(state: ShardState, event: Event) -> ShardState:
    state = _add_files(state, event.file_id)
    return replace(state, file_id=event.file_id, file_sha256=event.file_sha256, file_refusals=0)


def _intent(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    first = state.first_intent_at if state.first_intent_at is not None else event.at
    return replace(_claim(state, event), first_intent_at=first, intents=state.intents + 1)


def _claim(state: ShardState, event: Event) -> ShardState:
    return replace(state, claims=(*state.claims, Claim(event.at, event.by)))


def _declined(state: ShardState, event: Event) -> ShardState:
    """Whoever comes next need not be patient with the intent."""
    if event.send != state.send:
        return state
    return replace(state, claims=tuple(claim for claim in state.claims if claim.by != event.by))


def _created(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    state = _add_files(state, event.file_id)
    return replace(state, batch_id=event.batch_id, created_at=event.at)


def _duplicate(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send or event.batch_id is None:
        return state
    return replace(state, duplicates=(*state.duplicates, event.batch_id))


def _refused(state: ShardState, event: Event) -> ShardState:
    """The next send carries the same requests, and the file that is there."""
    if event.send != state.send:
        return state
    refused = _next_send(state)
    if event.limit is not None:
        refused = replace(refused, queue_limits={**state.queue_limits, event.unit: event.limit})
    if event.status == "file_missing":
        again = state.file_refusals + 1
        if again > len(FILE_WAITS_S):  # waiting did not help: upload anew
            return replace(refused, file_id=None, file_sha256=None, file_refusals=0)
        return replace(refused, file_refusals=again, refused_at=event.at)
    if event.status == "queue_full":
        return replace(refused, queue_refusals=state.queue_refusals + 1, refused_at=event.at)
    return refused  # the task failed with the reason; whoever clears it wants it tried again at once


def _lost(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    setbacks = (*state.setbacks, f"send {event.send}: {event.message}")
    return replace(state, file_id=None, file_sha256=None, setbacks=setbacks)


def _realtime(state: ShardState, event: Event) -> ShardState:
    return state if event.send != state.send else replace(_claim(state, event), realtime=True)


def _ended(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    ended = Ended(
        send=event.send,
        batch_id=event.batch_id,
        status=event.status or "",
        output_file_id=event.output_file_id,
        error_file_id=event.error_file_id,
        times=event.times,
        carried=state.sampled,
    )
    state = _add_files(state, event.output_file_id, event.error_file_id)
    others = tuple(former for former in state.ended if former.send != event.send)
    return replace(state, ended=(*others, ended), queue_refusals=0, file_refusals=0)


def _landed(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    state = replace(state, landed_send=event.send)
    if not event.leftover:
        return replace(state, setbacks=())
    # Requests that a sample did not carry are left over by nature, and the account's trouble is not the shard's.
    # A repair finds more left over than the last send carried.
    progress = (
        event.leftover < state.content.requests
        or state.sampled is not None
        or event.account_errors
        or event.send <= state.forgiven_through
    )
    setback = f"send {event.send}: {event.leftover:,} of {state.content.requests:,} requests left over"
    after = replace(_next_send(state), sampled=None)
    content = _read_leftover(event, event.send + 1)
    return replace(after, content=content, setbacks=() if progress else (*state.setbacks, setback))


def _read_leftover(event: Event, leftover_send: int, *, first: int | None = None) -> Content:
    return Content(
        first=first,
        leftover_send=leftover_send,
        sha256=event.leftover_sha256 or "",
        bytes=event.leftover_bytes,
        requests=event.leftover,
        input_tokens=event.leftover_tokens,
    )


def _stopped(state: ShardState, event: Event) -> ShardState:
    return replace(state, setbacks=())


def _done(state: ShardState, event: Event) -> ShardState:
    return replace(state, done=event)


def _cleaned(state: ShardState, event: Event) -> ShardState:
    return replace(state, cleaned=True)


def _reopened(state: ShardState, event: Event) -> ShardState:
    if state.done is None:  # another run was first
        return state
    last = max((ended.send for ended in state.ended), default=0)
    return replace(
        state,
        done=None,
        cleaned=False,
        remote_files=() if state.cleaned else state.remote_files,
        file_id=None,  # it is deleted by now, and what is sent next may be the same once more
        file_sha256=None,
        forgiven_through=last,
        setbacks=(),
    )


def _add_files(state: ShardState, *file_ids: str | None) -> ShardState:
    new = tuple(each for each in file_ids if each and each not in state.remote_files)
    return replace(state, remote_files=(*state.remote_files, *new)) if new else state


def _next_send(state: ShardState) -> ShardState:
    return replace(
        state,
        send=state.send + 1,
        claims=(),
        first_intent_at=None,
        intents=0,
        duplicates=(),
        realtime=False,
        batch_id=None,
        created_at=None,
        refused_at=None,
    )


_STEPS = {
    "sampled": _sampled,
    "uploaded": _uploaded,
    "intent": _intent,
    "declined": _declined,
    "created": _created,
    "duplicate": _duplicate,
    "refused": _refused,
    "lost": _lost,
    "realtime": _realtime,
    "ended": _ended,
    "landed": _landed,
    "stopped": _stopped,
    "done": _done,
    "cleaned": _cleaned,
    "reopened": _reopened,
}
