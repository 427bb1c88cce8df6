"""What the state machine can ask for, carried out for one shard in a worker: each step may be repeated."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from airflow_openai_batch.costs.monthly_budget import ShardMonth
from airflow_openai_batch.errors import (
    NoCapacityError,
    NoFlexError,
    NotFoundError,
    RemoteError,
    TransientError,
)
from airflow_openai_batch.job import directory
from airflow_openai_batch.job.shard_state import CUT_SHORT, ShardState, Waited
from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.batch import CLOCK_MARGIN_S
from airflow_openai_batch.openai_api.own_prices import NO_OWN_PRICES, OwnPrices
from airflow_openai_batch.sending import machine, steps
from airflow_openai_batch.sending.batch_search import find_sent
from airflow_openai_batch.sending.breaker import Breaker
from airflow_openai_batch.sending.declined_calls import DeclinedCalls
from airflow_openai_batch.sending.hurry import Hurry
from airflow_openai_batch.sending.judging import is_late
from airflow_openai_batch.sending.machine import Observations, StepContext
from airflow_openai_batch.sending.paces import MeasuredPace, record_pace
from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.sending.realtime.slots import RealtimeBusyError
from airflow_openai_batch.sending.shard_journal import ShardJournal
from airflow_openai_batch.sending.shard_landing import ShardLanding
from airflow_openai_batch.sending.steps import AwaitRoom, Pause, Wait
from airflow_openai_batch.sending.without_flex import FlexKnowledge

if TYPE_CHECKING:
    from airflow_openai_batch.costs.monthly_budget import MonthlyBudget
    from airflow_openai_batch.job.ledger import Kind
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.sending.caller import Caller
    from airflow_openai_batch.sending.policy import Lane
    from airflow_openai_batch.sending.realtime.send import RealtimeSend
    from airflow_openai_batch.sending.shard_files import ShardFiles

log = logging.getLogger(__name__)

Waiting = Wait | Pause | AwaitRoom
"""What `ShardDriver.drive` hands back when nothing is to be done now."""


@dataclass(kw_only=True)
class ShardActions:
    """Carries out single steps; `ShardDriver` asks for one after another.

    Leaving the block closes the client, which is opened only where a step needs it.

    :param connect: opens the client.
    :param find_limit: what the batch queue of a model holds, where the connection or the run says it.
    :param send_realtime: sends request by request what the current send carries, the way that the step says; calls back
        every few minutes, which renews its claim; returns what came of it.
    :param find_pace: requests a second of this shard, as far as can be told before any went that way; 0: not known.
    :param check_budget: called before each send, with state and whether at the full price; raises if too much.
    :param monthly_budget: finds what the connection may spend in a month; ``None``: as much as it takes.
    :param count: adds to a counter, by name, value and tags.
    :param landing_slot: what is held while answers become rows; waits until it may.
    :param own_prices: finds those of the connection.
    """

    files: ShardFiles
    connect: Callable[[], BatchClient]
    caller: Caller
    policy: Policy = field(default_factory=Policy)
    find_limit: Callable[[str], QueueLimit] = lambda model: QueueLimit()
    send_realtime: Callable[[ShardState, Callable[[], None], steps.SendRealtime], RealtimeSend] | None = None
    find_pace: Callable[[Lane], float] = lambda lane: 0.0
    check_budget: Callable[[ShardState, bool], None] | None = None
    monthly_budget: Callable[[], MonthlyBudget | None] = lambda: None
    count: Callable[..., None] = lambda name, value=1, **tags: None
    landing_slot: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    own_prices: Callable[[], OwnPrices] = lambda: NO_OWN_PRICES
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._journal = ShardJournal(files=self.files, caller=self.caller, clock=self.clock)
        self._breaker = Breaker(self.files.output.child(directory.BREAKER))
        self._month = ShardMonth(
            plan=self.files.plan,
            output=self.files.output,
            shard=self.files.shard,
            find=self.monthly_budget,
            key=self.files.key,
            clock=self.clock,
        )
        self._declined = DeclinedCalls(journal=self._journal, month=self._month, policy=self.policy)
        self._flex = FlexKnowledge(self.files.output, self.files.shard, self.policy)
        shards = len(self.files.plan.shards)
        self._hurry = Hurry(self.files.output, shards, self.policy, self._flex, self.find_pace)
        self._landing = ShardLanding(
            files=self.files,
            journal=self._journal,
            month=self._month,
            client=lambda: self.client,
            count=self.count,
            slot=self.landing_slot,
            own_prices=self.own_prices,
        )
        self.waited = Waited()
        self.state: ShardState | None = None  # after what was carried out last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @property
    def batch_id(self) -> str | None:
        """Of the batch that `drive` came to last."""
        return None if self.state is None else self.state.last_batch_id

    @functools.cached_property
    def client(self) -> BatchClient:
        return self.connect()

    @functools.cached_property
    def _limit(self) -> QueueLimit:
        return self.find_limit(self.files.shard.model)

    @functools.cached_property
    def _without_flex(self) -> str:
        return self._flex.find_refusal(since=self.caller.run_started_at)

    def _may_use_flex(self, state: ShardState) -> bool:
        """Whether it matters if there is flex: to look takes a read."""
        if state.done is not None or state.batch_id is not None:
            return False
        rest_s = self._hurry.find_rest_s(state)
        late = is_late(self.clock(), self.policy, rest_s=rest_s, hurried_for=state.hurried_for)
        requests = state.content.requests
        return self.policy.choose_lane(requests, late=late, has_flex=self._flex.offers(requests)) == "flex"

    def _look_around(self, state: ShardState) -> StepContext:
        return StepContext(
            now=self.clock(),
            me=self.caller.by,
            key=self.files.key(state.send),
            model=self.files.shard.model,
            shard=self.files.shard.shard,
            tokens_at_most=self.files.shard.tokens == "upper",
            # read only where something may be sent: a finished shard needs no connection
            limit=self._limit if state.done is None else QueueLimit(),
            has_flex=self._flex.offers(state.content.requests),
            without_flex=self._without_flex if self._may_use_flex(state) else "",
            rest_s=self._hurry.find_rest_s(state),
            realtime_per_s=self._hurry.find_realtime_per_s(state),
        )

    def _check_spending(self, state: ShardState, *, in_realtime: bool = False) -> None:
        """Before anything is paid for.

        :raises FatalAccountError: if another shard of the run has met an answer about the account.
        :raises OpenAIBatchError: if it would be more than the budget allows.
        """
        self._breaker.check(since=self.caller.run_started_at, now=self.clock())
        if self.check_budget is not None:
            self.check_budget(state, in_realtime)

    @functools.singledispatchmethod
    def _carry_out(self, step: steps.Step, state: ShardState) -> Observations | Waiting:
        raise NotImplementedError(type(step).__name__)

    @_carry_out.register
    def _(self, step: steps.Find, state: ShardState) -> Observations | Waiting:
        looked_at = self.clock()
        candidates = self._find(state, step.since)
        batch = next((each for each in candidates if each.id == state.batch_id), None)
        return Observations(candidates=candidates, looked_at=looked_at, batch=batch)

    def _find(self, state: ShardState, since: float | None) -> tuple[BatchView, ...]:
        if since is None:  # it was never sent, as far as the ledger goes
            return find_sent(self.client, self.files, state)
        key = self.files.key(state.send)
        return self.client.find(key, since, files=state.sent_files, former=state.former_batches)

    @_carry_out.register
    def _(self, step: steps.Adopt, state: ShardState) -> Observations | Waiting:
        for duplicate in step.duplicates:
            log.warning(
                "%s: %s is a duplicate of %s: cancelling it.", self.files.name, duplicate.id, step.batch.id
            )
            self.client.cancel_if_possible(duplicate.id)
            self._journal.record("duplicate", state, batch_id=duplicate.id)
            self.count("duplicates_cancelled")
        if step.batch.id != state.batch_id:
            log.info(
                "%s: found %s, created before but not written down; nothing is sent again.",
                self.files.name,
                step.batch.id,
            )
            self._journal.record(
                "created", state, batch_id=step.batch.id, file_id=step.batch.input_file_id, found=True
            )
            self.count("sends", sent_as="batch")
        return Observations(batch=step.batch)

    @_carry_out.register
    def _(self, step: steps.TakeSample, state: ShardState) -> Observations | Waiting:
        sample = self.files.write_sample(step.requests, state)
        self._journal.record("sampled", state, first=step.requests, **sample.to_event())
        return Observations()

    @_carry_out.register
    def _(self, step: steps.Upload, state: ShardState) -> Observations | Waiting:
        self._check_spending(state)
        self._month.check(state)
        try:
            file = self.files.upload(f"{self.files.key(state.send)}.jsonl", state, self.client)
        except TransientError as error:
            self._declined.meet_upload(error, state)
            return Observations(candidates=())
        log.info("%s: uploaded %s bytes as %s.", self.files.name, f"{state.content.bytes:,}", file.id)
        times = {} if file.created_at is None else {"created_at": file.created_at}
        self._journal.record(
            "uploaded", state, file_id=file.id, file_sha256=state.content.sha256, times=times
        )
        return Observations(candidates=())  # looked a moment ago, and nothing of ours was sent since

    @_carry_out.register
    def _(self, step: steps.Create, state: ShardState) -> Observations | Waiting:
        self._check_spending(state)
        self._month.reserve(state)
        if not self._claim("intent", state):
            return Observations()
        try:
            batch = self.client.create(
                input_file_id=state.file_id or "",
                endpoint=self.files.shard.endpoint,
                metadata={**self.files.describe(state), **self.caller.to_metadata()},
            )
        except RemoteError as error:
            self._declined.meet_creation(error, state)
            return Observations()
        log.info("%s: created %s for %s requests.", self.files.name, batch.id, f"{state.content.requests:,}")
        self._journal.record("created", state, batch_id=batch.id, file_id=state.file_id)
        self.count("sends", sent_as="batch")
        return Observations(batch=batch)

    def _claim(self, kind: Kind, state: ShardState, *, message: str | None = None) -> bool:
        """Say what is about to be paid for; false where somebody else said so first."""
        self._journal.record(kind, state, message=message)
        claimed = self._journal.read_state()
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
    def _(self, step: steps.Observe, state: ShardState) -> Observations | Waiting:
        try:
            return Observations(batch=self.client.fetch(step.batch_id))
        except NotFoundError:
            # One 404 is not enough to pay again: believe it only where the list does not know the batch either.
            since = state.first_file_at or (self.files.plan.head.created_at - CLOCK_MARGIN_S)
            listed = self._find(state, since)
            found = next((batch for batch in listed if batch.id == step.batch_id), None)
            return Observations(batch=found, vanished=found is None)

    @_carry_out.register
    def _(self, step: steps.RecordEnded, state: ShardState) -> Observations | Waiting:
        self._journal.record_ended(step.batch, state)
        return Observations()

    @_carry_out.register
    def _(self, step: steps.RecordRefused, state: ShardState) -> Observations | Waiting:
        refusal = step.refusal
        self._month.settle([state.send], 0.0, self._journal.read_events)
        self._journal.record(
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
        return Observations()

    @_carry_out.register
    def _(self, step: steps.Cancel, state: ShardState) -> Observations | Waiting:
        log.warning(
            "%s: %s %s: cancelling it and collecting what is finished.",
            self.files.name,
            step.batch.id,
            step.why,
        )
        self.client.cancel_if_possible(step.batch.id)
        until = (self.policy.deadline_at or 0.0) if step.hurries else 0.0
        self._journal.record("cancelling", state, batch_id=step.batch.id, message=step.why, until=until)
        return Wait(step.batch)

    @_carry_out.register
    def _(self, step: steps.SendRealtime, state: ShardState) -> Observations | Waiting:
        in_realtime = step.lane == "realtime"
        self._check_spending(state, in_realtime=in_realtime)
        if self.send_realtime is None:
            raise NotImplementedError("this driver cannot send in real time")
        self._month.reserve(state, in_realtime=in_realtime)
        kind: Kind = "realtime" if in_realtime else "flex"
        if not self._claim(kind, state, message=step.why or None):
            return Observations()
        if step.why:
            how = (
                "in real time, at the full price" if in_realtime else "through flex, at the price of a batch"
            )
            log.warning("%s: %s: sending the rest %s.", self.files.name, step.why, how)
        times = {"created_at": self.clock()}
        try:
            sent = self.send_realtime(state, functools.partial(self._journal.record, kind, state), step)
        except NoFlexError as error:
            return self._meet_no_flex(error, step, state)
        except NoCapacityError as error:
            self._declined.meet_no_capacity(error, state, falls_back=step.falls_back)
            return Observations()
        except (RealtimeBusyError, TransientError) as error:
            if error.retry_after_s is None:
                raise
            return Pause(self.clock() + error.retry_after_s, str(error))
        self._record_sent(sent, step, state, times)
        return Observations()

    def _record_sent(
        self, sent: RealtimeSend, step: steps.SendRealtime, state: ShardState, times: dict[str, float]
    ) -> None:
        pace = MeasuredPace(lane=step.lane, answers=sent.answered + sent.failed, seconds=sent.seconds)
        record_pace(self.files.output, self.files.shard.shard, state.send, pace)
        if not sent.finished:
            self._declined.meet_end_of_time(step, state)
            return
        times["completed_at"] = self.clock()
        self._journal.record("ended", state, status="completed", sent_as=step.lane, times=times)
        self.count("sends", sent_as=step.lane)

    def _meet_no_flex(self, error: NoFlexError, step: steps.SendRealtime, state: ShardState) -> Observations:
        """For good: the machine says what is done instead."""
        if step.falls_back:
            log.warning("%s: %s Sending in real time, at the full price.", self.files.name, error)
        self._without_flex = self._flex.remember(error, now=self.clock())
        self._journal.record("declined", state, code=error.code, message=str(error)[:300])
        return Observations()

    @_carry_out.register
    def _(self, step: steps.EndRealtime, state: ShardState) -> Observations | Waiting:
        log.info("%s: what flex has not answered goes out another way.", self.files.name)
        times = {"completed_at": self.clock()}
        self._journal.record("ended", state, status=CUT_SHORT, sent_as="flex", times=times)
        return Observations()

    @_carry_out.register
    def _(self, step: steps.Land, state: ShardState) -> Observations | Waiting:
        self._landing.land(state, final=step.final, gives_up=step.gives_up)
        return Observations()

    @_carry_out.register
    def _(self, step: steps.CleanUp, state: ShardState) -> Observations | Waiting:
        try:
            for file_id in state.remote_files:
                self.client.delete_file(file_id)
        except RemoteError as error:  # the results are safe; publish sweeps once more, and files expire
            log.warning("%s: its files at OpenAI stay for now: %s", self.files.name, error)
            return Observations(left_files=True)
        self._journal.record("cleaned", state)
        log.info("%s: deleted its %d files at OpenAI.", self.files.name, len(state.remote_files))
        return Observations()
