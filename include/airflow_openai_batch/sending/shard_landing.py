"""Lands a shard's results in a worker, and writes down what came of it: rows, money, what is to be sent again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.costs.estimate import assume_unpriced
from airflow_openai_batch.costs.spending import drop_reserved, find_paid_before, record_spending, to_micro
from airflow_openai_batch.errors import FatalAccountError, NotFoundError, UnprovenError
from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.openai_api.results_check import RESULTS_UNPROVEN
from airflow_openai_batch.results.landing_summary import ShardSummary
from airflow_openai_batch.results.lanes import list_hurried
from airflow_openai_batch.results.outcome import MISSING
from airflow_openai_batch.results.phases import measure_phases
from airflow_openai_batch.sending.landing_metrics import tell_landing

if TYPE_CHECKING:
    from airflow_openai_batch.costs.monthly_budget import ShardMonth
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.openai_api.own_prices import OwnPrices
    from airflow_openai_batch.results.landing_summary import LandingSummary
    from airflow_openai_batch.sending.shard_files import LandingOutcome, ShardFiles
    from airflow_openai_batch.sending.shard_journal import ShardJournal

log = logging.getLogger(__name__)


def _check_ids(landed: LandingSummary, state: ShardState) -> None:
    """Whether answers have come for ids that were never sent, in the place of those that are missing: something on the
    way changes ids, and whatever is sent again would be paid again, and be as nameless.

    :raises UnprovenError: if so.
    """
    missing = sum(problem.count for problem in landed.problems if problem.code == MISSING)
    if len(state.ended) == 1 and 0 < missing <= landed.strays:
        raise UnprovenError(
            f"{state.ended[0].batch_id}: {missing:,} requests have no answer, and {landed.strays:,} lines have a "
            "custom_id that was not sent, so that something between here and the model changes ids, as by cutting "
            "blanks off",
            code=RESULTS_UNPROVEN,
        )


@dataclass(kw_only=True)
class ShardLanding:
    """May be repeated: what has landed before is neither paid nor counted again.

    :param client: gives the client, which is opened when it is asked for first.
    :param count: adds to a counter, by name, value and tags.
    :param slot: what is held while answers become rows; waits until it may.
    :param own_prices: finds those of the connection.
    """

    files: ShardFiles
    journal: ShardJournal
    month: ShardMonth
    client: Callable[[], BatchClient]
    count: Callable[..., None]
    slot: Callable[[], contextlib.AbstractContextManager[None]]
    own_prices: Callable[[], OwnPrices]

    def land(self, state: ShardState, *, final: bool, gives_up: Collection[str]) -> None:
        """Results that cannot be what the server promised are written down as doubted, and nothing lands.

        :param final: what has no answer is published as missing.
        :param gives_up: take what is there of results that were in doubt too long.
        :raises FatalAccountError: if requests were refused for the account.
        """
        if final:
            log.warning(
                "%s: not finished within finish_within_h: what has no answer is published as missing, as on_deadline "
                "says.",
                self.files.name,
            )
        send = state.send
        try:
            state = self._look_again(state)
            with self.slot():
                gone = self.files.fetch(state, self.client(), gives_up)
                if gone:
                    state = self._record_gone(gone, state)
                if (
                    state.send != send
                ):  # another run has landed this send meanwhile; what is open now is not ours
                    return
                self.files.collect_videos(state, self.client(), gives_up)
                landing = self.files.land(state, final=final, own_prices=self.own_prices())
                if RESULTS_UNPROVEN not in gives_up:
                    _check_ids(landing.landed, state)
        except UnprovenError as error:
            log.warning("%s: %s.", self.files.name, error)
            self.journal.record("doubted", state, code=error.code, message=str(error)[:500])
            return
        self._record_landing(landing, state)

    def _look_again(self, state: ShardState) -> ShardState:
        """Where the results are in doubt: whether the batch says something else by now.

        :raises UnprovenError: if the batch itself is not there.
        """
        ended = next((each for each in state.ended if each.send == state.send), None)
        if not state.doubts or ended is None or ended.batch_id is None:
            return state
        try:
            batch = self.client().fetch(ended.batch_id)
        except NotFoundError as error:  # then a file that is not there says nothing, either
            raise UnprovenError(str(error), code=RESULTS_UNPROVEN) from None
        said = (batch.output_file_id, batch.error_file_id, batch.completed, batch.failed, batch.total)
        known = (ended.output_file_id, ended.error_file_id, ended.completed, ended.failed, ended.total)
        if batch.status.is_final and said != known:
            self.journal.record_ended(batch, state)
            return self.journal.read_state()
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
            self.journal.record_of(
                ended.send,
                "ended",
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
        return self.journal.read_state()

    def _record_landing(self, landing: LandingOutcome, state: ShardState) -> None:
        landed, leftover = landing.landed, landing.leftover
        place, shard = self.files.output, self.files.shard.shard
        # Not the current send, which a deadline may have given up unsent: a repair sends it, and it must count then.
        last = max((ended.send for ended in state.ended), default=0)
        assumed_usd = assume_unpriced(self.month.plan.head, self.files.shard, landed, self.own_prices())
        paid_usd = record_spending(place, shard, last, landed, assumed_usd=assumed_usd)
        if last < state.send:
            drop_reserved(place, shard, after=last)
        new = [ended.send for ended in state.ended if ended.send > state.landed_send]
        # What has landed before is counted: a repair lands it once more to see what it may send.
        new_usd = max(0.0, paid_usd - find_paid_before(place, shard, last)) if new else 0.0
        self.month.settle(new, new_usd, self.journal.read_events)
        if leftover is None:
            # Only a shard that was done before, or was reopened since, has told something of itself.
            former = self.journal.read_events() if state.done is not None or state.forgiven_through else ()
            if any(ended.send == state.send for ended in state.ended):
                self.journal.record("landed", state)
            self.journal.record("done", state, summary=self._summarize(landed, state))
            tell_landing(self.count, landed, former, new_usd)
            return
        self.journal.record(
            "landed", state, account_errors=landing.refused_for_account, **leftover.to_event()
        )
        self.count("cost_micro_usd", to_micro(new_usd))
        if landing.refused_for_account:
            codes = ", ".join(sorted(problem.code for problem in landed.problems))
            raise FatalAccountError(
                f"{landing.refused_for_account:,} requests of shard {self.files.shard.shard} were refused for the "
                f"account ({codes}). Settle it with OpenAI, then clear the task; good answers are not asked again."
            )

    def _summarize(self, landed: LandingSummary, state: ShardState) -> dict[str, Any]:
        done = Event(kind="done", send=state.send, at=self.journal.clock())
        return ShardSummary(
            shard=self.files.shard.shard,
            landed=landed,
            sends=state.send,
            hurried=list_hurried(state.ended),
            batch_ids=tuple(ended.batch_id for ended in state.ended if ended.batch_id),
            phases_s=measure_phases([*self.journal.read_events(), done]),
        ).to_dict()
