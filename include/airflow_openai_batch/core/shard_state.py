"""What the ledger's events add up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from airflow_openai_batch.core.judging import Waited

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
    completed: int = 0
    failed: int = 0
    total: int = 0
    """What the batch's counts promise; zeros where it has none."""
    gone: tuple[str, ...] = ()
    """Result files that the server did not have any more: ``output``, ``error``."""
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
    """Calls for this send that the server put off, in a row."""
    not_before: float = 0.0
    """When the server wants to be asked again, Unix seconds."""
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
    cancel_asked_at: float = 0.0
    """The batch of this send was asked to be cancelled."""
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
    return replace(
        state,
        file_id=event.file_id,
        file_sha256=event.file_sha256,
        file_created_at=event.times.get("created_at"),
        sent_files=_with(state.sent_files, event.file_id),
        file_refusals=0,
    )


def _intent(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    claimed = replace(
        _claim(state, event), intents=state.intents + 1, sent_files=_with(state.sent_files, state.file_id)
    )
    if state.first_intent_at is not None:
        return claimed
    return replace(claimed, first_intent_at=event.at, first_file_at=state.file_created_at)


def _claim(state: ShardState, event: Event) -> ShardState:
    return replace(state, claims=(*state.claims, Claim(event.at, event.by)))


def _declined(state: ShardState, event: Event) -> ShardState:
    """Whoever comes next need not be patient with the intent."""
    if event.send != state.send:
        return state
    if event.status != "unsure":
        state = replace(state, claims=tuple(claim for claim in state.claims if claim.by != event.by))
    if event.status == "file_missing":
        return _await_file(state, state.file_refusals, event)
    if not event.until:
        return state
    return replace(state, declines=state.declines + 1, not_before=event.until)


def _created(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    state = _add_files(state, event.file_id)
    return replace(
        state, batch_id=event.batch_id, created_at=event.at, declines=0, not_before=0.0, cancel_asked_at=0.0
    )


def _duplicate(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send or event.batch_id is None:
        return state
    return replace(state, duplicates=(*state.duplicates, event.batch_id))


def _cancelling(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send or event.batch_id != state.batch_id:
        return state
    return replace(state, cancel_asked_at=event.at)


def _refused(state: ShardState, event: Event) -> ShardState:
    """The next send carries the same requests, and the file that is there."""
    if event.send != state.send:
        return state
    refused = _next_send(state)
    if event.limit is not None:
        refused = replace(refused, queue_limits={**state.queue_limits, event.unit: event.limit})
    if event.status == "file_missing":
        return _await_file(refused, state.file_refusals, event)
    if event.status == "queue_full":
        return replace(refused, queue_refusals=state.queue_refusals + 1, refused_at=event.at)
    return refused  # the task failed with the reason; whoever clears it wants it tried again at once


def _await_file(state: ShardState, waited: int, event: Event) -> ShardState:
    """The same file again after a while; in the end it is uploaded anew, which is no progress.

    :param waited: refusals for this file before.
    """
    if waited < len(FILE_WAITS_S):
        return replace(state, file_refusals=waited + 1, refused_at=event.at)
    setback = f"send {event.send}: the server did not find {state.file_id} within nine minutes"
    return replace(
        state, file_id=None, file_sha256=None, file_refusals=0, setbacks=(*state.setbacks, setback)
    )


def _lost(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    setbacks = (*state.setbacks, f"send {event.send}: {event.message}")
    return replace(state, file_id=None, file_sha256=None, setbacks=setbacks)


def _realtime(state: ShardState, event: Event) -> ShardState:
    return state if event.send != state.send else replace(_claim(state, event), realtime=True)


def _ended(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return _lose_files(state, event) if event.gone else state
    ended = Ended(
        send=event.send,
        batch_id=event.batch_id,
        status=event.status or "",
        output_file_id=event.output_file_id,
        error_file_id=event.error_file_id,
        times=event.times,
        completed=event.completed,
        failed=event.failed,
        total=event.total,
        gone=tuple(event.gone),
        carried=state.sampled,
    )
    state = _add_files(state, event.output_file_id, event.error_file_id)
    others = tuple(former for former in state.ended if former.send != event.send)
    return replace(state, ended=(*others, ended), queue_refusals=0, file_refusals=0)


def _lose_files(state: ShardState, event: Event) -> ShardState:
    """Of a former send, whose files are wanted once more."""
    ended = (
        dataclasses.replace(
            former,
            output_file_id=event.output_file_id,
            error_file_id=event.error_file_id,
            gone=tuple(event.gone),
        )
        if former.send == event.send
        else former
        for former in state.ended
    )
    return replace(state, ended=tuple(ended))


def _doubted(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    code = event.code or ""
    return replace(
        state,
        doubts={**state.doubts, code: state.doubts.get(code, 0) + 1},
        doubted_at=event.at,
        doubt=event.message or "",
        doubt_code=code,
        doubt_is_final=False,
    )


def _landed(state: ShardState, event: Event) -> ShardState:
    if event.send != state.send:
        return state
    state = replace(state, landed_send=event.send, doubts={}, doubt_is_final=False, takes_all=False)
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
    return replace(state, setbacks=(), stopped_at=event.at, doubts={}, doubt_is_final=bool(state.doubts))


def _done(state: ShardState, event: Event) -> ShardState:
    return replace(state, done=event)


def _cleaned(state: ShardState, event: Event) -> ShardState:
    return replace(state, cleaned=True)


def _reopened(state: ShardState, event: Event) -> ShardState:
    if state.done is None:  # another run was first, or the shard was stopped for a doubt
        return replace(state, takes_all=True, doubt_is_final=False) if state.doubt_is_final else state
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


def _with(names: tuple[str, ...], name: str | None) -> tuple[str, ...]:
    return names if name is None or name in names else (*names, name)


def _next_send(state: ShardState) -> ShardState:
    return replace(
        state,
        send=state.send + 1,
        claims=(),
        first_intent_at=None,
        first_file_at=None,
        sent_files=(),
        former_batches=tuple(filter(None, (*state.former_batches, state.batch_id, *state.duplicates))),
        declines=0,
        not_before=0.0,
        intents=0,
        duplicates=(),
        realtime=False,
        batch_id=None,
        created_at=None,
        cancel_asked_at=0.0,
        refused_at=None,
        doubts={},
        doubt_is_final=False,
        takes_all=False,
    )


_STEPS = {
    "sampled": _sampled,
    "uploaded": _uploaded,
    "intent": _intent,
    "declined": _declined,
    "created": _created,
    "duplicate": _duplicate,
    "cancelling": _cancelling,
    "refused": _refused,
    "lost": _lost,
    "realtime": _realtime,
    "ended": _ended,
    "doubted": _doubted,
    "landed": _landed,
    "stopped": _stopped,
    "done": _done,
    "cleaned": _cleaned,
    "reopened": _reopened,
}
