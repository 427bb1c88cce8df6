"""What it takes to keep a shard's deadline: how long the rest of it would take one by one, by what is known of that."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_openai_batch.sending.judging import HURRYING, choose_rest_s
from airflow_openai_batch.sending.paces import read_paces, share_pace

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.sending.policy import Lane, Policy
    from airflow_openai_batch.sending.without_flex import FlexKnowledge
    from airflow_openai_batch.storage.location import Location


@dataclass
class Hurry:
    """Of one shard. Nothing is read unless the policy has a deadline for which requests are sent one by one.

    :param output: the job directory.
    :param shards: of the job.
    :param foresee: requests a second that go out a way, as far as can be told before the job has sent any so.
    """

    output: Location
    shards: int
    policy: Policy
    flex: FlexKnowledge
    foresee: Callable[[Lane], float]

    def find_rest_s(self, state: ShardState) -> float:
        """See `Waited`: of what the current send carries."""
        if not self._matters(state):
            return 0.0
        requests = state.content.requests
        return choose_rest_s(self.policy, requests, self._paces.__getitem__, has_flex=self.flex.has_flex)

    def find_realtime_per_s(self, state: ShardState) -> float:
        """Requests a second in real time; 0: not known, or it does not matter."""
        return self._paces["realtime"] if self._matters(state) else 0.0

    def _matters(self, state: ShardState) -> bool:
        policy = self.policy
        return policy.deadline_at is not None and policy.on_deadline in HURRYING and state.done is None

    @functools.cached_property
    def _paces(self) -> dict[Lane, float]:
        """What was measured, by any shard of the job, or else what can be told beforehand. One listing."""
        measured = read_paces(self.output)
        lanes: tuple[Lane, ...] = ("flex", "realtime")
        return {lane: share_pace(measured, lane, self.shards) or self.foresee(lane) for lane in lanes}
