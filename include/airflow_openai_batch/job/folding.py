"""How each event of a shard's ledger moves the shard on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from airflow_openai_batch.job.shard_state import (
    FILE_WAITS_S,
    WHATEVER_DEADLINE,
    Claim,
    Content,
    Ended,
    ShardState,
)

if TYPE_CHECKING:
    from airflow_openai_batch.job.ledger import Event


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
    return replace(state, cancel_asked_at=event.at, hurried_for=event.until or state.hurried_for)


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
    if event.send != state.send:
        return state
    hurried = state.is_hurried or bool(event.message)
    return replace(_claim(state, event), realtime=True, flex=event.kind == "flex", is_hurried=hurried)


def _crowded(state: ShardState, event: Event) -> ShardState:
    """Nothing is in the air any more."""
    if event.send != state.send:
        return state
    state = replace(state, claims=tuple(claim for claim in state.claims if claim.by != event.by))
    if not event.until:
        deadline_at = event.times.get("deadline_at", 0.0)
        hurried = state.is_hurried or deadline_at > 0
        return replace(state, flex_closed=True, flex_closed_for=deadline_at, is_hurried=hurried)
    return replace(state, declines=state.declines + 1, not_before=event.until)


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
        content=state.content,
        sent_as=event.sent_as,
        is_hurried=state.is_hurried,
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
    hangs = state.batch_id is not None and state.cancel_asked_at > 0 and state.hurried_for > 0
    return replace(
        state,
        setbacks=(),
        stopped_at=event.at,
        doubts={},
        doubt_is_final=bool(state.doubts),
        hurried_for=WHATEVER_DEADLINE if hangs else state.hurried_for,
    )


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
        hurried_for=0.0,
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
        flex=False,
        flex_closed=False,
        flex_closed_for=0.0,
        is_hurried=False,
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
    "flex": _realtime,
    "crowded": _crowded,
    "ended": _ended,
    "doubted": _doubted,
    "landed": _landed,
    "stopped": _stopped,
    "done": _done,
    "cleaned": _cleaned,
    "reopened": _reopened,
}
