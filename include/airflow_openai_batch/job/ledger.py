"""The ledger of a shard: one immutable object per event, created exclusively, never rewritten.

``state/00000/0003-created.json`` is the third event of shard 0. A file that is rewritten loses updates and
reads stale on S3; events that are only ever added do neither, and whoever has the directory can tell what
happened.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from airflow_openai_batch.errors import LedgerError, NewerReleaseError, TooLargeError
from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.storage.read_ahead import read_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_openai_batch.storage.location import Location

Kind = Literal[
    "sampled",
    "uploaded",
    "intent",
    "declined",
    "created",
    "duplicate",
    "cancelling",
    "refused",
    "lost",
    "realtime",
    "flex",
    "crowded",
    "ended",
    "doubted",
    "landed",
    "stopped",
    "done",
    "cleaned",
    "reopened",
]
"""
``sampled``: the first send carries only the first requests. ``uploaded``: OpenAI has the file of this send.
``intent``: about to create its batch. ``declined``: OpenAI answered the call with a refusal, so there is no batch.
``created``: the batch is there. ``duplicate``: another batch of this send was cancelled. ``cancelling``:
it has taken too long, and OpenAI was asked to cancel it. ``refused``: it failed
validation; nothing ran. ``lost``: OpenAI no longer knows the uploaded file. ``realtime``: the requests of
this send go out one by one. ``flex``: so they do, through flex. ``crowded``: flex had no room for them for minutes,
or is too slow for a deadline, and is asked again at ``until``, or, without one, no more for this send. ``ended``: the
batch is final, or the last request was answered. ``doubted``: its files are not there, or not what its counts promise,
and are looked at again later.
``landed``: its answers are in ``raw/``. ``stopped``: five sends brought nothing, its results stayed in doubt, or a
batch could not be cancelled, and whoever clears the task begins to count anew. ``done``: the shard's result rows are
written. ``cleaned``: its files at OpenAI are deleted. ``reopened``: what has no good result is to be asked again (a
repair); of a shard that was stopped for a doubt: without what is not there.
"""

SCHEMA_VERSION = 1
"""Raised when an older reader could misread an event. It need not be for a new field that may be ignored, which is
simply written, nor for a new kind, which no older reader goes past."""

MOST_EVENT_BYTES = 16 * 2**20
"""Ours have some hundred: whoever may write into the job's directory could end the process that reads them."""
_KINDS = frozenset(get_args(Kind))
_NAME = re.compile(r"(\d{4,})-([\w-]+)\.json")
_ID = re.compile(r"[A-Za-z0-9._:=~+@,-]{1,1000}")
_TRIES = 100


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to a shard."""

    kind: Kind
    send: int
    at: float
    """Unix seconds, by the clock of whoever wrote it."""
    by: str = ""
    """Who wrote it: ``dag_id/run_id/task_id[map_index]#try``."""
    plan: str = ""
    """Name of the plan: tells the ledger of another plan, left in the directory, from this one's."""
    file_id: str | None = None
    file_sha256: str | None = None
    batch_id: str | None = None
    status: str | None = None
    """``ended``: of the batch. ``refused``: the kind of refusal. ``declined``: ``file_missing``, ``busy``, or
    ``unsure`` where the call may have created a batch all the same; nothing for what waiting does not cure."""
    code: str | None = None
    message: str | None = None
    """``realtime``, ``flex``: why, where a deadline has made it go out so."""
    output_file_id: str | None = None
    error_file_id: str | None = None
    found: bool = False
    """``created``: the batch was found by its job_key, not created by the writer."""
    times: dict[str, float] = {}
    """``ended``: OpenAI's own time stamps (``created_at``, ``in_progress_at`` ...), Unix seconds. ``uploaded``: the
    file's ``created_at``, by the same clock. ``crowded``: ``deadline_at``, where flex was too slow to keep it."""
    until: float = 0.0
    """``declined``: the server asked to be left alone until then, Unix seconds by the writer's clock. ``crowded``: when
    flex is asked again. ``cancelling``: the deadline that it was cancelled for, so that the rest goes another way."""
    limit: int | None = None
    """``refused`` for queue room: the limit that OpenAI named, in ``unit``s."""
    unit: Literal["tokens", "requests"] = "tokens"
    completed: int = 0
    failed: int = 0
    total: int = 0
    """``ended``: the batch's counts; zeros where it has none."""
    gone: list[str] = []
    """``ended``: result files that the server did not have any more: ``output``, ``error``."""
    sent_as: Literal["batch", "flex", "realtime"] = "batch"
    """``ended``: how the requests went out, the last of them where flex had no room for all."""
    leftover: int = 0
    """``landed``: requests that may be sent again. ``sampled``: the requests that the sample carries."""
    first: int = 0
    """``sampled``: these are of so many of the shard's first requests."""
    leftover_bytes: int = 0
    leftover_sha256: str | None = None
    leftover_tokens: int = 0
    account_errors: int = 0
    """``landed``: requests that were refused for the account; that is no fault of the shard's."""
    summary: dict[str, Any] = {}
    """``done``: counts, tokens and cost of the shard's rows; never a body."""
    schema_version: int = SCHEMA_VERSION


class ShardLedger:
    """The events of one shard below ``state/<shard>/``."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder
        self._events: dict[str, Event] = {}
        """By name. An event is never rewritten, so that none need be read twice."""

    def read(self) -> list[Event]:
        """All events, oldest first; empty where nothing happened yet. One listing, one read per new event.

        :raises LedgerError: if an event is there but cannot be read. That is not the same as absent: going
            on without it could pay twice.
        :raises NewerReleaseError: if an event is one that this release does not understand.
        """
        return [self._read(name) for name in self._names()]

    def _read(self, name: str) -> Event:
        event = self._events.get(name)
        if event is None:
            event = self._events[name] = _decode(self._folder.child(name))
        return event

    def _names(self) -> list[str]:
        try:
            return [name for name in self._folder.names() if _NAME.fullmatch(name)]
        except OSError as error:
            raise LedgerError(
                f"{self._folder.uri}: the ledger cannot be listed ({describe_error(error)}). Nothing was sent."
            ) from error

    def append(self, event: Event) -> None:
        """Add an event after all that are there; two writers never overwrite each other.

        :raises LedgerError: if the place is contended beyond reason.
        """
        names = self._names()
        last = int(names[-1].partition("-")[0]) if names else 0
        for seq in range(last + 1, last + _TRIES):
            name = f"{seq:04d}-{event.kind}.json"
            if self._folder.child(name).create_exclusive(msgspec.json.encode(event)):
                self._events[name] = event
                return
        raise LedgerError(
            f"{self._folder.uri}: {_TRIES} others write this ledger at the same time; clear the task."
        )


def is_done(kinds: Iterable[str]) -> bool:
    """Whether a shard's rows were written and no repair has begun since, by the kinds of its events, oldest first.

    What others write down after that, who were at the same shard, changes nothing.
    """
    decisive = [kind for kind in kinds if kind in ("done", "reopened")]
    return decisive[-1:] == ["done"]


class JobLedger:
    """The ledgers of all shards of a job, from one listing.

    :param shards: that the plan has.
    """

    def __init__(self, state: Location, shards: int) -> None:
        self._state = state
        self._names: dict[int, list[str]] = {}
        for name in _list_names(state, shards):
            folder, _, file = name.partition("/")
            if folder.isdigit() and _NAME.fullmatch(file):
                # Most shards have events of the same names: one text for all of them.
                self._names.setdefault(int(folder), []).append(sys.intern(file))

    def list_kinds(self, shard: int) -> list[str]:
        """Of all events, oldest first; those that this release does not know, too."""
        return [_read_kind(name) for name in self._names.get(shard, [])]

    def is_done(self, shard: int) -> bool:
        """See `is_done`."""
        return is_done(self.list_kinds(shard))

    def read(self, shard: int) -> list[Event]:
        """All events, oldest first.

        :raises LedgerError: if one is there but cannot be read.
        """
        return [_decode(self._place(shard, name)) for name in self._find_names(shard)]

    def count(self, shard: int, kind: Kind) -> int:
        """Events of a kind.

        :raises NewerReleaseError: if a newer release has written to this ledger, and `read_last` likewise.
        """
        return sum(name.endswith(f"-{kind}.json") for name in self._find_names(shard))

    def _find_names(self, shard: int) -> list[str]:
        """What is not understood may say that what came before it counts no more."""
        names = self._names.get(shard, [])
        for name in names:
            if _read_kind(name) not in _KINDS:
                raise _make_kind_error(self._place(shard, name))
        return names

    def read_last(self, shard: int, kind: Kind | None = None) -> Event | None:
        """The newest event, or the newest of a kind.

        :raises LedgerError: if it is there but cannot be read.
        """
        names = self._find_names(shard)
        found = names if kind is None else [name for name in names if name.endswith(f"-{kind}.json")]
        if not found:
            return None
        return _decode(self._place(shard, found[-1]))

    def _place(self, shard: int, name: str) -> Location:
        return self._state.child(f"{shard:05d}/{name}")


def _list_names(state: Location, shards: int) -> Iterator[str]:
    """In the order of the events of each shard. A list has 1,000 names a page, and tells where the next one begins only
    at its end: the ledgers of a hundred shards, about a page, are listed beside those of others."""
    if not state.lists_by_prefix:
        yield from state.names(recursive=True)
        return
    prefixes = [f"{number:05d}"[:-2] for number in range(0, shards, 100)]
    lists = read_ahead(lambda prefix: state.names(recursive=True, prefix=prefix), prefixes, state)
    for prefix, names in zip(prefixes, lists, strict=True):
        yield from (name for name in names if name.find("/") == len(prefix) + 2)


def _decode(place: Location) -> Event:
    if _read_kind(place.uri) not in _KINDS:
        raise _make_kind_error(place)
    try:
        event = msgspec.json.decode(place.read_within(MOST_EVENT_BYTES), type=Event)
    except TooLargeError as error:
        raise LedgerError(f"{error} Nothing was sent.") from None
    except msgspec.ValidationError as error:  # JSON it is
        raise _make_newer_error(place, str(error)) from error
    except (OSError, msgspec.MsgspecError) as error:
        raise LedgerError(
            f"{place.uri}: the ledger is there but cannot be read ({type(error).__name__}). Nothing was sent. "
            "Restore the file or the access to it, then clear the task; deleting the ledger is safe only "
            "while the shard's batch is still listed at OpenAI."
        ) from error
    if event.schema_version > SCHEMA_VERSION:
        raise _make_newer_error(
            place, f"schema version {event.schema_version}, this release reads up to {SCHEMA_VERSION}"
        )
    if not all(map(is_plain_id, _find_ids(event))):
        raise LedgerError(
            f"{place.uri}: names a file or batch at OpenAI by an id that is none. Nothing was sent. Somebody has "
            "changed the ledger: restore the file, then clear the task."
        )
    return event


def _find_ids(event: Event) -> list[str]:
    ids = (event.file_id, event.batch_id, event.output_file_id, event.error_file_id)
    return [each for each in ids if each is not None]


def is_plain_id(text: str) -> bool:
    """Whether it can be part of an address without leading anywhere else: servers of other makes have other ids."""
    return bool(_ID.fullmatch(text)) and ".." not in text


def _read_kind(name: str) -> str:
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return found[2] if found else ""


def _make_kind_error(place: Location) -> NewerReleaseError:
    return _make_newer_error(place, f"{_read_kind(place.uri)!r} is no event that this release knows")


def _make_newer_error(place: Location, why: str) -> NewerReleaseError:
    return NewerReleaseError(
        f"{place.uri}: was written by a newer release ({why}). Nothing was sent. "
        "Upgrade airflow-provider-openai-batch where this task runs, then clear the task."
    )
