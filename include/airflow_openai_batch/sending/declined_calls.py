"""Calls for a send that the server declined, put off, or may have carried out unseen: what each means for the next."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import (
    AnswerError,
    NoCapacityError,
    NotFoundError,
    RemoteError,
    TransientError,
)
from airflow_openai_batch.sending.machine import draw_jitter
from airflow_openai_batch.sending.queue.refusals import is_file_not_ready

if TYPE_CHECKING:
    from airflow_openai_batch.costs.monthly_budget import ShardMonth
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.sending.policy import Policy
    from airflow_openai_batch.sending.shard_journal import ShardJournal
    from airflow_openai_batch.sending.steps import SendRealtime

log = logging.getLogger(__name__)

PUT_OFF_LEAST_S = 30.0
"""A server that says "in a second" again and again is asked at twice the distance each time ..."""
PUT_OFF_LEAST_MAX_S = 900.0
"""... up to this."""


@dataclass(kw_only=True)
class DeclinedCalls:
    """Writes them down, so that whoever comes next waits as long as is due."""

    journal: ShardJournal
    month: ShardMonth
    policy: Policy

    def meet_upload(self, error: TransientError, state: ShardState) -> None:
        """:raises TransientError: if the server does not say when it wants to be asked again."""
        if error.retry_after_s is None:
            raise error
        self._put_off(error, state, error.retry_after_s, status="busy")

    def meet_creation(self, error: RemoteError, state: ShardState) -> None:
        """:raises RemoteError: if waiting here does not cure it."""
        # What was answered cannot be told, or no answer came: a batch may be there all the same.
        unsure = isinstance(error, TransientError | AnswerError) and error.status_code != 429
        if not unsure:  # an answer, not a lost one: nothing was created
            self.month.take_back()
        if isinstance(error, NotFoundError) or (not unsure and is_file_not_ready(str(error))):
            self.journal.record(
                "declined", state, status="file_missing", code=error.code, message=str(error)[:300]
            )
        elif isinstance(error, TransientError) and error.retry_after_s is not None:
            self._put_off(error, state, error.retry_after_s, status="unsure" if unsure else "busy")
        else:
            if not unsure:
                self.journal.record("declined", state, code=error.code, message=str(error)[:300])
            raise error

    def meet_no_capacity(self, error: NoCapacityError, state: ShardState, *, falls_back: bool) -> None:
        """What flex has answered is kept; the rest is asked later, or goes out in real time now.

        :param falls_back: somebody waits for it.
        """
        name, policy = self.journal.files.name, self.policy
        told = {"code": error.code, "message": str(error)[:300]}
        if falls_back:
            log.warning("%s: %s. Sending the rest in real time, at the full price.", name, error)
            self.journal.record("crowded", state, **told)
            return
        now = self.journal.clock()
        wait_s = min(policy.queue_wait_s * 2 ** min(state.declines, 10), policy.queue_wait_max_s)
        wait_s *= draw_jitter(self.journal.files.key(state.send))
        until = now + max(wait_s, error.retry_after_s or 0.0)
        if policy.deadline_at is not None:
            until = min(until, max(now, policy.deadline_at))
        log.info("%s: %s; it is asked again later.", name, error)
        self.journal.record("crowded", state, **told, until=until)

    def meet_end_of_time(self, step: SendRealtime, state: ShardState) -> None:
        """The deadline decides about the rest, unless there is just time left for it in real time."""
        if not step.rest_per_s:
            return
        log.warning(
            "%s: flex cannot answer the rest before finish_within_h is over: sending it in real time, at the full "
            "price.",
            self.journal.files.name,
        )
        times = {"deadline_at": self.policy.deadline_at or 0.0}
        self.journal.record("crowded", state, message="too slow for finish_within_h", times=times)

    def _put_off(self, error: TransientError, state: ShardState, asked_s: float, status: str) -> None:
        """The server says when it wants to be asked again; and no sooner from one time to the next."""
        least_s = min(PUT_OFF_LEAST_S * 2 ** min(state.declines, 10), PUT_OFF_LEAST_MAX_S)
        until = self.journal.clock() + max(asked_s, least_s)
        self.journal.record(
            "declined", state, status=status, code=error.code, message=str(error)[:300], until=until
        )
