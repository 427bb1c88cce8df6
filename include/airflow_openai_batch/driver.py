"""Carries out what the state machine says, for one shard, in a worker.

The loop fetches, writes down and hands back when there is only waiting to do; `core.machine` decides.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_openai_batch.core import machine
from airflow_openai_batch.core.batch_view import final_time
from airflow_openai_batch.core.errors import LedgerError, NotFoundError, RemoteError, TransientError
from airflow_openai_batch.core.ledger import Event, Kind, ShardLedger
from airflow_openai_batch.core.machine import Pause, Policy, Reached, Seen, Wait
from airflow_openai_batch.core.phases import measure_phases
from airflow_openai_batch.core.plan import job_key
from airflow_openai_batch.core.report import ShardSummary
from airflow_openai_batch.core.shard_state import Goal, ShardState, fold_events

if TYPE_CHECKING:
    from airflow_openai_batch.client import BatchClient
    from airflow_openai_batch.core.landed import Landed
    from airflow_openai_batch.shard_files import ShardFiles

log = logging.getLogger(__name__)

FILE_LAG_S = 60.0
"""A result file can lag behind the status `completed`; look again after this."""
FILE_LAG_MAX_S = 3600.0
"""After this long a missing result file is an error, not a delay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who drives: for the ledger, the batch's metadata and the patience with foreign intents."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1

    @property
    def by(self) -> str:
        return f"{self.dag_id}/{self.run_id}/{self.task_id}[{self.map_index}]"

    def to_metadata(self) -> dict[str, str]:
        """Cut to what OpenAI takes: 512 characters a value."""
        values = {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "map_index": str(self.map_index),
        }
        return {name: value[:512] for name, value in values.items() if value}


@dataclass(kw_only=True)
class ShardDriver:
    """Brings one shard of a job to a goal. Every step may be repeated after a crash.

    Leaving the block closes the client, which is opened only where a step needs it.
    """

    files: ShardFiles
    connect: Callable[[], BatchClient]
    caller: Caller
    policy: Policy = field(default_factory=Policy)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._ledger = ShardLedger(self.files.state_folder)
        self.batch_id: str | None = None
        """Of the batch that `drive` came to last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @functools.cached_property
    def client(self) -> BatchClient:
        return self.connect()

    def read_state(self) -> ShardState:
        """:raises LedgerError: if the ledger is there but cannot be read, or is that of another plan."""
        events = self._ledger.read()
        if any(event.plan != self.files.plan.name for event in events):
            raise LedgerError(
                f"{self.files.state_folder.uri}: belongs to another plan, since plan.json was removed or replaced by "
                "hand. Nothing was sent. Use an empty directory for another input, or restore plan.json."
            )
        return fold_events(self.files.content, events)

    def drive(self, goal: Goal) -> Reached | Wait | Pause:
        """Go on until the goal is reached or there is only waiting to do.

        :raises OpenAIBatchError: what stops the shard; ``permanent`` says whether a retry can help.
        """
        state = self.read_state()
        self.batch_id = state.last_batch_id
        if state.events:
            stand = machine.describe_stand(state, self.clock(), resumed=machine.is_reached(state, goal))
            log.info("Shard %d: %s.", self.files.shard.shard, stand)
        seen = Seen()
        while True:
            step = machine.next_step(
                state,
                seen,
                goal=goal,
                now=self.clock(),
                me=self.caller.by,
                key=self._key(state.send),
                policy=self.policy,
            )
            if isinstance(step, Reached | Wait | Pause):
                return step
            if isinstance(step, machine.Stop):
                raise step.error
            outcome = self._carry_out(step, state)
            if isinstance(outcome, Pause):
                return outcome
            seen = outcome
            state = self.read_state()
            self.batch_id = state.last_batch_id

    def _key(self, send: int) -> str:
        plan = self.files.plan
        return job_key(self.files.output.uri, plan.fingerprint, plan.generation, self.files.shard.shard, send)

    def _record(self, kind: Kind, state: ShardState, **fields: Any) -> None:
        self._ledger.append(
            Event(
                kind=kind,
                send=state.send,
                at=self.clock(),
                by=self.caller.by,
                plan=self.files.plan.name,
                **fields,
            )
        )

    @functools.singledispatchmethod
    def _carry_out(self, step: machine.Step, state: ShardState) -> Seen | Pause:
        raise NotImplementedError(type(step).__name__)

    @_carry_out.register
    def _(self, step: machine.Find, state: ShardState) -> Seen | Pause:
        since = step.since if step.since is not None else self.files.plan.created_at
        return Seen(candidates=self.client.find(self._key(state.send), since))

    @_carry_out.register
    def _(self, step: machine.Adopt, state: ShardState) -> Seen | Pause:
        for duplicate in step.duplicates:
            log.warning("%s is a duplicate of %s: cancelling it.", duplicate.id, step.batch.id)
            self.client.cancel(duplicate.id)
        log.info("Found %s, created before but not written down; nothing is sent again.", step.batch.id)
        self._record("created", state, batch_id=step.batch.id, file_id=step.batch.input_file_id, found=True)
        return Seen(batch=step.batch)

    @_carry_out.register
    def _(self, step: machine.Upload, state: ShardState) -> Seen | Pause:
        file_id = self.files.upload(f"{self._key(state.send)}.jsonl", state, self.client)
        log.info("Uploaded %s bytes as %s.", f"{state.content.bytes:,}", file_id)
        self._record("uploaded", state, file_id=file_id, file_sha256=state.content.sha256)
        return Seen(candidates=())  # looked a moment ago, and nothing of ours was sent since

    @_carry_out.register
    def _(self, step: machine.Create, state: ShardState) -> Seen | Pause:
        self._record("intent", state)
        try:
            batch = self.client.create(
                input_file_id=state.file_id or "",
                endpoint=self.files.shard.endpoint,
                metadata=self._metadata(state),
            )
        except NotFoundError:
            self._record("lost", state, message=f"OpenAI does not know {state.file_id} any more")
            return Seen()
        except RemoteError as error:
            if not isinstance(error, TransientError):  # an answer, not a lost one: nothing was created
                self._record("declined", state, code=error.code, message=str(error)[:300])
            raise
        log.info("Created %s for %s requests.", batch.id, f"{state.content.requests:,}")
        self._record("created", state, batch_id=batch.id, file_id=state.file_id)
        return Seen(batch=batch)

    def _metadata(self, state: ShardState) -> dict[str, str]:
        return {
            "job_key": self._key(state.send),
            "shard": str(self.files.shard.shard),
            "send": str(state.send),
            "input_tokens": str(state.content.input_tokens),
            **self.caller.to_metadata(),
        }

    @_carry_out.register
    def _(self, step: machine.Observe, state: ShardState) -> Seen | Pause:
        try:
            return Seen(batch=self.client.fetch(step.batch_id))
        except NotFoundError:
            # One 404 is not enough to pay again: believe it only where the list does not know the batch either.
            since = state.first_intent_at or self.files.plan.created_at
            listed = self.client.find(self._key(state.send), since)
            found = next((batch for batch in listed if batch.id == step.batch_id), None)
            return Seen(batch=found, vanished=found is None)

    @_carry_out.register
    def _(self, step: machine.RecordEnded, state: ShardState) -> Seen | Pause:
        batch = step.batch
        self._record(
            "ended",
            state,
            batch_id=batch.id,
            status=str(batch.status),
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            times=batch.times,
        )
        return Seen()

    @_carry_out.register
    def _(self, step: machine.RecordRefused, state: ShardState) -> Seen | Pause:
        refusal = step.refusal
        self._record(
            "refused",
            state,
            batch_id=step.batch.id,
            status=refusal.kind,
            code=refusal.code,
            message=refusal.message,
            times=step.batch.times,
        )
        if step.error is not None:
            raise step.error
        log.warning("%s was refused: %s", step.batch.id, refusal.message)
        return Seen()

    @_carry_out.register
    def _(self, step: machine.RecordLost, state: ShardState) -> Seen | Pause:
        log.warning("%s; its requests are sent again.", step.message)
        self._record("lost", state, batch_id=step.batch_id, message=step.message)
        return Seen()

    @_carry_out.register
    def _(self, step: machine.Cancel, state: ShardState) -> Seen | Pause:
        log.warning("%s is long overdue: cancelling it and collecting what is finished.", step.batch.id)
        self.client.cancel(step.batch.id)
        return Seen()

    @_carry_out.register
    def _(self, step: machine.Land, state: ShardState) -> Seen | Pause:
        try:
            landing = self.files.land(state, self.client)
        except NotFoundError as error:
            final_at = max(final_time(ended.times) or 0.0 for ended in state.ended)
            if self.clock() > final_at + FILE_LAG_MAX_S:
                raise
            return Pause(self.clock() + FILE_LAG_S, f"a result file is not there yet ({error})")
        if (leftover := landing.leftover) is not None:
            self._record(
                "landed",
                state,
                leftover=leftover.requests,
                leftover_bytes=leftover.bytes,
                leftover_sha256=leftover.sha256,
                leftover_tokens=leftover.input_tokens,
            )
        else:
            self._record("landed", state)
            self._record("done", state, summary=self._summarize(landing.landed, state))
        return Seen()

    def _summarize(self, landed: Landed, state: ShardState) -> dict[str, Any]:
        done = Event(kind="done", send=state.send, at=self.clock())
        return ShardSummary(
            shard=self.files.shard.shard,
            landed=landed,
            sends=state.send,
            batch_ids=tuple(ended.batch_id for ended in state.ended),
            phases_s=measure_phases([*self._ledger.read(), done]),
        ).to_dict()
