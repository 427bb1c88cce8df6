"""Jobs with a deadline, in hours of virtual time: how long they take, what they cost, and which way they went out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from airflow_openai_batch.costs.spending import read_spending
from airflow_openai_batch.openai_api.rate_limits import RealtimeLimits, foresee_pace
from simulation.disk import locate
from simulation.job import OUTPUT
from simulation.scenario import MODEL, Run, Scenario
from simulation.simulate import simulate
from simulation.world import START, Process

if TYPE_CHECKING:
    from airflow_openai_batch.sending.policy import Lane, Mode, OnDeadline
    from simulation.scenario import Fault
    from simulation.tasks import Job

HOUR_S = 3_600.0
LIMITS = RealtimeLimits()
"""Of a connection that says nothing of its account."""
HANGS: Fault = {"batch": "in_progress", "done": 1, "total": 4, "times": None}
"""With a quarter of its requests answered."""
FLEX_IS_FULL: Fault = {"line": "no_capacity", "times": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the account's server has to give. Rates are of all that is in the air at once."""

    name: str
    batch_s: float = HOUR_S
    """That a batch is in progress."""
    flex_per_s: float = 1.0
    realtime_per_s: float = 2.0
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class Played:
    """What a job came to."""

    took_s: float = 0.0
    cost_usd: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    """By lane, as billed."""

    def note(self, job: Job) -> None:
        process = Process(job.world, "report")
        self.took_s = job.world.now() - START
        self.cost_usd = read_spending(locate(job.objects, process, OUTPUT)).paid_usd
        self.answers = Counter(job.emulator.books.billed)


def play_lane(
    capacity: Capacity,
    *,
    requests: int,
    mode: Mode,
    within_s: float | None = None,
    on_deadline: OnDeadline = "flex",
    shards: int = 1,
    sample: int | None = None,
    limits: RealtimeLimits | None = LIMITS,
) -> Played:
    """Send so many requests one way. Nothing may be lost on the way or paid twice, as in every simulation.

    :param within_s: ``finish_within_h``, in seconds.
    :param sample: what a run before was for; its time counts.
    :param limits: what is known of the account; ``None``: not how fast it answers.
    """
    played = Played()
    per_s: dict[Lane, float] = {"flex": capacity.flex_per_s, "realtime": capacity.realtime_per_s}
    lanes = cast("tuple[Lane, ...]", tuple(per_s))
    scenario = Scenario(
        seed=1,
        requests=requests,
        max_requests_per_shard=-(-requests // shards),
        mode=mode,
        realtime_threshold=10 if sample is None else sample,
        finish_within_s=within_s,
        on_deadline=on_deadline,
        foreseen_per_s={
            lane: 0.0 if limits is None else foresee_pace(limits, flex=lane == "flex") / shards
            for lane in lanes
        },
        answer_s={lane: max(0.0, 1 / per_s[lane] - CALL_S) for lane in lanes},
        runs=(
            *(() if sample is None else (Run(one_task=True, sample=sample),)),
            Run(one_task=True, after_former=True),
        ),
        settings={
            "validating_s": 60.0,
            "in_progress_s": capacity.batch_s,
            "finalizing_s": 60.0,
            "cancelling_s": 300.0,
            "flex_models": (MODEL,),
        },
        faults=capacity.faults,
    )
    simulate(scenario, look=played.note)
    return played


CALL_S = 0.525
"""What a simulated call takes by itself, as a mean."""
