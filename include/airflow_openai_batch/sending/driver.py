"""Brings one shard to a goal, in a worker.

The loop asks `sending.machine` what is to be done, has it carried out, and hands back when there is only waiting to do.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from airflow_openai_batch.errors import BreakerOpenError, FatalAccountError
from airflow_openai_batch.job.shard_state import is_reached
from airflow_openai_batch.sending import machine, steps
from airflow_openai_batch.sending.actions import ShardActions, Waiting
from airflow_openai_batch.sending.machine import Observations
from airflow_openai_batch.sending.steps import Reached

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import Goal, ShardState

__all__ = ["ShardDriver", "Waiting"]

log = logging.getLogger(__name__)


class ShardDriver(ShardActions):
    """Every step may be repeated after a crash. Leaving the block closes the client."""

    def drive(self, goal: Goal, *, admitted: bool = False, twins: bool = False) -> Reached | Waiting:
        """Go on until the goal is reached or there is only waiting to do.

        :param admitted: the queue's room was waited for and is there.
        :param twins: another batch of the send was seen.
        :raises OpenAIBatchError: what stops the shard; ``permanent`` says whether a retry can help.
        """
        seen = Observations(admitted=admitted, twins=twins)
        return cast("Reached | Waiting", self._drive_watched(goal, seen))

    def knows(self, batch_id: str) -> bool:
        """Whether the ledger has this batch as the last one of the shard."""
        return self._journal.read_state().last_batch_id == batch_id

    def drive_within(self, goal: Goal, *kinds: type[steps.Step]) -> bool:
        """Go on towards the goal with steps of these kinds alone, and say whether it is reached then.

        :raises OpenAIBatchError: as `drive`.
        """
        return isinstance(self._drive_watched(goal, Observations(), kinds), Reached)

    def _drive_watched(
        self, goal: Goal, seen: Observations, kinds: tuple[type[steps.Step], ...] | None = None
    ) -> steps.Step:
        """An answer about the account stops the other shards, too."""
        try:
            return self._drive(goal, seen, kinds)
        except BreakerOpenError:
            raise
        except FatalAccountError as error:
            self._breaker.open(error, by=self.caller.by, now=self.clock())
            raise

    def _drive(
        self, goal: Goal, seen: Observations, kinds: tuple[type[steps.Step], ...] | None
    ) -> steps.Step:
        """:return: the step at which it ends: what is reached or waited for, or one that is of none of the kinds."""
        state = self._journal.read_state()
        self._note(state)
        if state.events and kinds is None:
            resumed = is_reached(state, goal) or self.caller.takes_up(state.last_by)
            stand = machine.describe_stand(state, self.clock(), resumed=resumed)
            log.info("Shard %d: %s.", self.files.shard.shard, stand)
        while True:
            step = self._next_step(state, seen, goal)
            if isinstance(step, Reached | Waiting) or (kinds is not None and not isinstance(step, kinds)):
                return step
            if isinstance(step, steps.Stop):
                if step.forgiving:
                    self._journal.record("stopped", state, message=str(step.error)[:1_000])
                raise step.error
            outcome = self._carry_out(step, state)
            if isinstance(outcome, Waiting):
                if isinstance(
                    step, steps.Cancel
                ):  # whoever waits for it asks the same question as the machine
                    self._note(self._journal.read_state())
                return outcome
            before, state = state, self._journal.read_state()
            self._note(state)
            seen = _merge(seen, outcome, something_happened=state.events > before.events)
            if isinstance(step, steps.Create):
                seen = replace(seen, admitted=False)  # the room was for one batch

    def _note(self, state: ShardState) -> None:
        self.state = state
        self.waited = replace(state.waited, rest_s=self._hurry.find_rest_s(state))

    def _next_step(self, state: ShardState, seen: Observations, goal: Goal) -> steps.Step:
        return machine.next_step(state, seen, goal=goal, where=self._look_around(state), policy=self.policy)


def _merge(before: Observations, outcome: Observations, *, something_happened: bool) -> Observations:
    """What is known after a step: an event makes former observations old."""
    if something_happened:
        looked_at = before.looked_at if outcome.looked_at is None else outcome.looked_at
        return replace(outcome, admitted=before.admitted, twins=before.twins, looked_at=looked_at)
    return Observations(
        candidates=before.candidates if outcome.candidates is None else outcome.candidates,
        looked_at=before.looked_at if outcome.looked_at is None else outcome.looked_at,
        batch=outcome.batch or before.batch,
        vanished=outcome.vanished,
        admitted=before.admitted,
        twins=before.twins,
        left_files=outcome.left_files,
    )
