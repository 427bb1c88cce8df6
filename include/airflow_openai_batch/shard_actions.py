"""What the state machine can ask for, carried out for one shard in a worker: each step may be repeated."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from airflow_openai_batch.core import job, machine, steps
from airflow_openai_batch.core.batch_view import CLOCK_MARGIN_S
from airflow_openai_batch.core.breaker import Breaker
from airflow_openai_batch.core.errors import (
    AnswerError,
    FatalAccountError,
    LedgerError,
    NotFoundError,
    RemoteError,
    TransientError,
    UnprovenError,
)
from airflow_openai_batch.core.folding import fold_events
from airflow_openai_batch.core.judging import Waited
from airflow_openai_batch.core.landing_news import tell_landing
from airflow_openai_batch.core.ledger import Event, Kind, ShardLedger
from airflow_openai_batch.core.machine import Circumstances, Seen
from airflow_openai_batch.core.phases import measure_phases
from airflow_openai_batch.core.policy import Policy
from airflow_openai_batch.core.queue_room import QueueLimit
from airflow_openai_batch.core.refusals import is_file_not_ready
from airflow_openai_batch.core.report import ShardSummary
from airflow_openai_batch.core.results_check import RESULTS_UNPROVEN
from airflow_openai_batch.core.send_slots import RealtimeBusyError
from airflow_openai_batch.core.shard_month import ShardMonth
from airflow_openai_batch.core.shard_state import ShardState
from airflow_openai_batch.core.spending import drop_reserved, find_paid_before, record_spending, to_micro
from airflow_openai_batch.core.steps import AwaitRoom, Pause, Wait
from airflow_openai_batch.find_sent import find_sent

if TYPE_CHECKING:
    from airflow_openai_batch.client import BatchClient
    from airflow_openai_batch.core.batch_view import BatchView
    from airflow_openai_batch.core.caller import Caller
    from airflow_openai_batch.core.landed import Landed
    from airflow_openai_batch.core.monthly_budget import MonthlyBudget
    from airflow_openai_batch.shard_files import Landing, ShardFiles

log = logging.getLogger(__name__)

PUT_OFF_LEAST_S = 30.0
"""A server that says "in a second" again and again is asked at twice the distance each time ..."""
PUT_OFF_LEAST_MAX_S = 900.0
"""... up to this."""
PUT_OFF_MAX_S = 86_400.0
"""No ``Retry-After`` is taken for longer."""

Waiting = Wait | Pause | AwaitRoom
"""What `ShardDriver.drive` hands back when nothing is to be done now."""


@dataclass(kw_only=True)
class ShardActions:
    """Carries out single steps; `ShardDriver` asks for one after another.

    Leaving the block closes the client, which is opened only where a step needs it.

    :param connect: opens the client.
    :param find_limit: what the batch queue of a model holds, where the connection or the run says it.
    :param send_realtime: sends what the current send carries request by request, and calls back every few minutes
        while it does, which renews its claim.
    :param check_budget: called before each send that costs money, with the state and whether it goes out in real
        time; raises where it would be too much.
    :param monthly_budget: finds what the connection may spend in a month; ``None``: as much as it takes.
    :param count: adds to a counter, by name, value and tags.
    :param landing_slot: what is held while answers become rows; waits until it may.
    """

    files: ShardFiles
    connect: Callable[[], BatchClient]
    caller: Caller
    policy: Policy = field(default_factory=Policy)
    find_limit: Callable[[str], QueueLimit] = lambda model: QueueLimit()
    send_realtime: Callable[[ShardState, Callable[[], None]], None] | None = None
    check_budget: Callable[[ShardState, bool], None] | None = None
    monthly_budget: Callable[[], MonthlyBudget | None] = lambda: None
    count: Callable[..., None] = lambda name, value=1, **tags: None
    landing_slot: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._ledger = ShardLedger(self.files.state_folder)
        self._breaker = Breaker(self.files.output.child(job.BREAKER))
        self._month = ShardMonth(
            plan=self.files.plan,
            output=self.files.output,
            shard=self.files.shard,
            find=self.monthly_budget,
            key=self.files.key,
            clock=self.clock,
        )
        self.batch_id: str | None = None
        """Of the batch that `drive` came to last."""
        self.settled: tuple[str, ...] = ()
        self.waited = Waited()
        """Other batches of the same send, which were cancelled in its favour."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @functools.cached_property
    def client(self) -> BatchClient:
        return self.connect()

    @functools.cached_property
    def _limit(self) -> QueueLimit:
        return self.find_limit(self.files.shard.model)

    def read_state(self) -> ShardState:
        """:raises LedgerError: if the ledger is there but cannot be read, or is that of another plan."""
        events = self._ledger.read()
        if any(event.plan != self.files.plan.name for event in events):
            raise LedgerError(
                f"{self.files.state_folder.uri}: belongs to another plan, since plan.json was removed or replaced by "
                "hand. Nothing was sent. Use an empty directory for another input, or restore plan.json."
            )
        return fold_events(self.files.content, events)

    def _look_around(self, state: ShardState) -> Circumstances:
        return Circumstances(
            now=self.clock(),
            me=self.caller.by,
            key=self.files.key(state.send),
            model=self.files.shard.model,
            shard=self.files.shard.shard,
            tokens_at_most=self.files.shard.tokens == "upper",
            # read only where something may be sent: a finished shard needs no connection
            limit=self._limit if state.done is None else QueueLimit(),
        )

    def _check_spending(self, state: ShardState, *, in_realtime: bool = False) -> None:
        """Before anything is paid for.

        :raises FatalAccountError: if another shard of the run has met an answer about the account.
        :raises OpenAIBatchError: if it would be more than the budget allows.
        """
        self._breaker.check(since=self.caller.run_started_at, now=self.clock())
        if self.check_budget is not None:
            self.check_budget(state, in_realtime)

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
    def _carry_out(self, step: steps.Step, state: ShardState) -> Seen | Waiting:
        raise NotImplementedError(type(step).__name__)

    @_carry_out.register
    def _(self, step: steps.Find, state: ShardState) -> Seen | Waiting:
        looked_at = self.clock()
        candidates = self._find(state, step.since)
        return Seen(
            candidates=candidates,
            looked_at=looked_at,
            batch=next((each for each in candidates if each.id == state.batch_id), None),
        )

    def _find(self, state: ShardState, since: float | None) -> tuple[BatchView, ...]:
        if since is None:  # it was never sent, as far as the ledger goes
            return find_sent(self.client, self.files, state)
        return self.client.find(
            self.files.key(state.send), since, files=state.sent_files, former=state.former_batches
        )

    @_carry_out.register
    def _(self, step: steps.Adopt, state: ShardState) -> Seen | Waiting:
        for duplicate in step.duplicates:
            log.warning(
                "%s: %s is a duplicate of %s: cancelling it.", self.files.name, duplicate.id, step.batch.id
            )
            self.client.cancel(duplicate.id)
            self._record("duplicate", state, batch_id=duplicate.id)
            self.count("duplicates_cancelled")
        if step.batch.id != state.batch_id:
            log.info(
                "%s: found %s, created before but not written down; nothing is sent again.",
                self.files.name,
                step.batch.id,
            )
            self._record(
                "created", state, batch_id=step.batch.id, file_id=step.batch.input_file_id, found=True
            )
            self.count("sends", sent_as="batch")
        return Seen(batch=step.batch)

    @_carry_out.register
    def _(self, step: steps.TakeSample, state: ShardState) -> Seen | Waiting:
        sample = self.files.write_sample(step.requests, state)
        self._record("sampled", state, first=step.requests, **sample.to_event())
        return Seen()

    @_carry_out.register
    def _(self, step: steps.Upload, state: ShardState) -> Seen | Waiting:
        self._check_spending(state)
        self._month.check(state)
        try:
            file = self.files.upload(f"{self.files.key(state.send)}.jsonl", state, self.client)
        except TransientError as error:
            if error.retry_after_s is None:
                raise
            self._put_off(error, state, error.retry_after_s, status="busy")
            return Seen(candidates=())
        log.info("%s: uploaded %s bytes as %s.", self.files.name, f"{state.content.bytes:,}", file.id)
        times = {} if file.created_at is None else {"created_at": file.created_at}
        self._record("uploaded", state, file_id=file.id, file_sha256=state.content.sha256, times=times)
        return Seen(candidates=())  # looked a moment ago, and nothing of ours was sent since

    @_carry_out.register
    def _(self, step: steps.Create, state: ShardState) -> Seen | Waiting:
        self._check_spending(state)
        self._month.reserve(state)
        if not self._claim("intent", state):
            return Seen()
        try:
            batch = self.client.create(
                input_file_id=state.file_id or "",
                endpoint=self.files.shard.endpoint,
                metadata={**self.files.describe(state), **self.caller.to_metadata()},
            )
        except RemoteError as error:
            self._meet_refusal(error, state)
            return Seen()
        log.info("%s: created %s for %s requests.", self.files.name, batch.id, f"{state.content.requests:,}")
        self._record("created", state, batch_id=batch.id, file_id=state.file_id)
        self.count("sends", sent_as="batch")
        return Seen(batch=batch)

    def _meet_refusal(self, error: RemoteError, state: ShardState) -> None:
        """Write down what the answer to a call for a batch means for the next one.

        :raises RemoteError: if waiting here does not cure it.
        """
        # What was answered cannot be told, or no answer came: a batch may be there all the same.
        unsure = isinstance(error, TransientError | AnswerError) and error.status_code != 429
        if not unsure:  # an answer, not a lost one: nothing was created
            self._month.take_back()
        if isinstance(error, NotFoundError) or (not unsure and is_file_not_ready(str(error))):
            self._record("declined", state, status="file_missing", code=error.code, message=str(error)[:300])
        elif isinstance(error, TransientError) and error.retry_after_s is not None:
            self._put_off(error, state, error.retry_after_s, status="unsure" if unsure else "busy")
        else:
            if not unsure:
                self._record("declined", state, code=error.code, message=str(error)[:300])
            raise error

    def _put_off(self, error: TransientError, state: ShardState, asked_s: float, status: str) -> None:
        """The server says when it wants to be asked again; and no sooner from one time to the next."""
        least_s = min(PUT_OFF_LEAST_S * 2 ** min(state.declines, 10), PUT_OFF_LEAST_MAX_S)
        until = self.clock() + min(max(asked_s, least_s), PUT_OFF_MAX_S)
        self._record("declined", state, status=status, code=error.code, message=str(error)[:300], until=until)

    def _claim(self, kind: Kind, state: ShardState) -> bool:
        """Say what is about to be paid for; false where somebody else said so first."""
        self._record(kind, state)
        claimed = self.read_state()
        # Whoever claimed it since we looked may have paid by now, however long ago that was: look again.
        unseen = any(claim.by != self.caller.by and claim not in state.claims for claim in claimed.claims)
        if (
            not unseen
            and (claimed.send, claimed.content) == (state.send, state.content)
            and machine.may_pay(claimed, self._look_around(claimed), self.policy)
        ):
            return True
        log.info(
            "Another task is at send %d of shard %d, too, and was first.", state.send, self.files.shard.shard
        )
        return False

    @_carry_out.register
    def _(self, step: steps.Observe, state: ShardState) -> Seen | Waiting:
        try:
            return Seen(batch=self.client.fetch(step.batch_id))
        except NotFoundError:
            # One 404 is not enough to pay again: believe it only where the list does not know the batch either.
            since = state.first_file_at or (self.files.plan.created_at - CLOCK_MARGIN_S)
            listed = self._find(state, since)
            found = next((batch for batch in listed if batch.id == step.batch_id), None)
            return Seen(batch=found, vanished=found is None)

    @_carry_out.register
    def _(self, step: steps.RecordEnded, state: ShardState) -> Seen | Waiting:
        self._record_ended(step.batch, state)
        return Seen()

    def _record_ended(self, batch: BatchView, state: ShardState) -> None:
        self._record(
            "ended",
            state,
            batch_id=batch.id,
            status=str(batch.status),
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            completed=batch.completed,
            failed=batch.failed,
            total=batch.total,
            times=batch.times,
        )

    @_carry_out.register
    def _(self, step: steps.RecordRefused, state: ShardState) -> Seen | Waiting:
        refusal = step.refusal
        self._month.settle([state.send], 0.0, self._ledger.read)
        self._record(
            "refused",
            state,
            batch_id=step.batch.id,
            status=refusal.kind,
            code=refusal.code,
            message=refusal.message,
            limit=refusal.limit,
            unit=refusal.unit,
            times=step.batch.times,
        )
        self.count("refusals", reason=refusal.kind)
        if step.error is not None:
            raise step.error
        log.warning("%s: %s was refused: %s", self.files.name, step.batch.id, refusal.message)
        return Seen()

    @_carry_out.register
    def _(self, step: steps.Cancel, state: ShardState) -> Seen | Waiting:
        log.warning(
            "%s: %s %s: cancelling it and collecting what is finished.",
            self.files.name,
            step.batch.id,
            step.why,
        )
        self.client.cancel(step.batch.id)
        self._record("cancelling", state, batch_id=step.batch.id, message=step.why)
        return Wait(step.batch)

    @_carry_out.register
    def _(self, step: steps.SendRealtime, state: ShardState) -> Seen | Waiting:
        self._check_spending(state, in_realtime=True)
        if self.send_realtime is None:
            raise NotImplementedError("this driver cannot send in real time")
        self._month.reserve(state, in_realtime=True)
        if not self._claim("realtime", state):
            return Seen()
        if step.why:
            log.warning(
                "%s: %s: sending the rest in real time, at the full price.", self.files.name, step.why
            )
        began_at = self.clock()
        try:
            self.send_realtime(state, functools.partial(self._record, "realtime", state))
        except RealtimeBusyError as error:
            return Pause(self.clock() + error.retry_after_s, str(error))
        except TransientError as error:
            if error.retry_after_s is None:
                raise
            return Pause(self.clock() + error.retry_after_s, str(error))
        times = {"created_at": began_at, "completed_at": self.clock()}
        self._record("ended", state, status="completed", sent_as="realtime", times=times)
        self.count("sends", sent_as="realtime")
        return Seen()

    @_carry_out.register
    def _(self, step: steps.Land, state: ShardState) -> Seen | Waiting:
        if step.final:
            log.warning(
                "%s: not finished within finish_within_h: what has no answer is published as missing, as on_deadline "
                "says.",
                self.files.name,
            )
        try:
            state = self._look_again(state)
            with self.landing_slot():
                gone = self.files.fetch(state, self.client, step.gives_up)
                if gone:
                    state = self._record_gone(gone, state)
                landing = self.files.land(state, final=step.final)
        except UnprovenError as error:
            log.warning("%s: %s.", self.files.name, error)
            self._record("doubted", state, code=error.code, message=str(error)[:500])
            return Seen()
        self._record_landing(landing, state)
        return Seen()

    def _look_again(self, state: ShardState) -> ShardState:
        """Where the results are in doubt: whether the batch says something else by now.

        :raises UnprovenError: if the batch itself is not there.
        """
        ended = next((each for each in state.ended if each.send == state.send), None)
        if not state.doubts or ended is None or ended.batch_id is None:
            return state
        try:
            batch = self.client.fetch(ended.batch_id)
        except NotFoundError as error:  # then a file that is not there says nothing, either
            raise UnprovenError(str(error), code=RESULTS_UNPROVEN) from None
        said = (batch.output_file_id, batch.error_file_id, batch.completed, batch.failed, batch.total)
        known = (ended.output_file_id, ended.error_file_id, ended.completed, ended.failed, ended.total)
        if batch.status.is_final and said != known:
            self._record_ended(batch, state)
            return self.read_state()
        return state

    def _record_gone(self, gone: dict[int, tuple[str, ...]], state: ShardState) -> ShardState:
        """So that a landing that is done again does not look for it again."""
        for ended in state.ended:
            if not (kinds := gone.get(ended.send)):
                continue
            log.warning(
                "%s: the %s file of %s is gone: what was in it is lost.",
                self.files.name,
                " and ".join(kinds),
                ended.batch_id,
            )
            self._ledger.append(
                Event(
                    kind="ended",
                    send=ended.send,
                    at=self.clock(),
                    by=self.caller.by,
                    plan=self.files.plan.name,
                    batch_id=ended.batch_id,
                    status=ended.status,
                    output_file_id=None if "output" in kinds else ended.output_file_id,
                    error_file_id=None if "error" in kinds else ended.error_file_id,
                    completed=ended.completed,
                    failed=ended.failed,
                    total=ended.total,
                    gone=sorted({*ended.gone, *kinds}),
                    times=ended.times,
                )
            )
        return self.read_state()

    def _record_landing(self, landing: Landing, state: ShardState) -> None:
        landed, leftover = landing.landed, landing.leftover
        place, shard = self.files.output, self.files.shard.shard
        # Not the current send, which a deadline may have given up unsent: a repair sends it, and it must count then.
        last = max((ended.send for ended in state.ended), default=0)
        paid_usd = record_spending(place, shard, last, landed)
        if last < state.send:
            drop_reserved(place, shard, after=last)
        new = [ended.send for ended in state.ended if ended.send > state.landed_send]
        # What has landed before is counted: a repair lands it once more to see what it may send.
        new_usd = max(0.0, paid_usd - find_paid_before(place, shard, last)) if new else 0.0
        self._month.settle(new, new_usd, self._ledger.read)
        if leftover is None:
            # Only a shard that was done before, or was reopened since, has told something of itself.
            former = self._ledger.read() if state.done is not None or state.forgiven_through else ()
            if any(ended.send == state.send for ended in state.ended):
                self._record("landed", state)
            self._record("done", state, summary=self._summarize(landed, state))
            tell_landing(self.count, landed, former, new_usd)
            return
        self._record("landed", state, account_errors=landing.refused_for_account, **leftover.to_event())
        self.count("cost_micro_usd", to_micro(new_usd))
        if landing.refused_for_account:
            codes = ", ".join(sorted(problem.code for problem in landed.problems))
            raise FatalAccountError(
                f"{landing.refused_for_account:,} requests of shard {self.files.shard.shard} were refused for the "
                f"account ({codes}). Settle it with OpenAI, then clear the task; good answers are not asked again."
            )

    @_carry_out.register
    def _(self, step: steps.CleanUp, state: ShardState) -> Seen | Waiting:
        try:
            for file_id in state.remote_files:
                self.client.delete_file(file_id)
        except RemoteError as error:  # the results are safe; publish sweeps once more, and files expire
            log.warning("%s: its files at OpenAI stay for now: %s", self.files.name, error)
            return Seen(left_files=True)
        self._record("cleaned", state)
        log.info("%s: deleted its %d files at OpenAI.", self.files.name, len(state.remote_files))
        return Seen()

    def _summarize(self, landed: Landed, state: ShardState) -> dict[str, Any]:
        done = Event(kind="done", send=state.send, at=self.clock())
        return ShardSummary(
            shard=self.files.shard.shard,
            landed=landed,
            sends=state.send,
            batch_ids=tuple(ended.batch_id for ended in state.ended if ended.batch_id),
            phases_s=measure_phases([*self._ledger.read(), done]),
        ).to_dict()
