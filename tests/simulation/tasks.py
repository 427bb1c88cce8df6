"""What stands for Airflow: tasks that drive shards, waits without a worker, retries, and a person who clears."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_openai_batch.client import BatchClient
from airflow_openai_batch.core.admission import QueueRoom
from airflow_openai_batch.core.batch_view import BatchView
from airflow_openai_batch.core.caller import Caller
from airflow_openai_batch.core.errors import JobError, OpenAIBatchError
from airflow_openai_batch.core.outcomes import OutcomeRules
from airflow_openai_batch.core.policy import Policy
from airflow_openai_batch.core.queue_room import QueueLimit
from airflow_openai_batch.core.shard_state import Goal
from airflow_openai_batch.core.steps import AwaitRoom, Pause, Reached, Wait
from airflow_openai_batch.driver import ShardDriver, Waiting
from airflow_openai_batch.shard_files import LandingRules, open_shard
from simulation.disk import Objects, locate
from simulation.job import OUTPUT
from simulation.realtime import RealtimeSender
from simulation.scenario import MODEL, QUEUE_TOKENS
from simulation.sdk import SimulatedOpenAI
from simulation.world import EndlessError, Killed, Process, World

if TYPE_CHECKING:
    from airflow_openai_batch.testing.emulator import Emulator
    from simulation.scenario import Run

RETRIES = 3
RETRY_DELAY_S = 60.0
MOST_CLEARS = 60
"""Times that a person clears one task before the job counts as stuck."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed for good, until someone cleared it."""

    at: float
    task: str
    error: Exception


@dataclass(kw_only=True)
class Job:
    """One job directory, one account, and everyone who works on the two."""

    world: World
    emulator: Emulator
    objects: Objects
    failures: list[Failure] = field(default_factory=list)
    lost_answers: Counter[str] = field(default_factory=Counter)
    """Real-time answers that were paid for and never came, or died with their process; by custom_id."""
    queue: QueueRoom = field(default_factory=QueueRoom)
    """The triggerer's line before the batch queue."""

    def start(self) -> None:
        """Let all runs of the scenario begin, each at its time."""
        scenario = self.world.scenario
        for number, run in enumerate(scenario.runs):
            for shard in range(scenario.shards):
                tasks = ShardTasks(job=self, run=run, number=number, shard=shard)
                self.world.start(run.start_s, tasks.work)


@dataclass(kw_only=True)
class ShardTasks:
    """The tasks of one run for one shard, one after another."""

    job: Job
    run: Run
    number: int
    shard: int
    _processes: int = 0
    _started_at: float = 0.0
    """Of the run, as Airflow has it: clearing sets it anew."""

    def work(self) -> None:
        self._started_at = self.job.world.now()
        for goal in (Goal.DONE,) if self.run.one_task else Goal:
            self._bring_to(goal)

    def _bring_to(self, goal: Goal) -> None:
        world = self.job.world
        tries = clears = 0
        admitted = False
        while True:
            try:
                outcome = self._drive(goal, admitted)
            except Killed:
                world.sleep(world.chance.choice((0.0, 5.0, 60.0, 300.0, 3_600.0)))
                continue
            except (OpenAIBatchError, OSError) as error:
                tries += 1
                if tries > RETRIES or getattr(error, "permanent", False):
                    clears, tries = clears + (not _is_told_to_wait(error)), 0
                    self._wait_for_a_person(goal, error, clears)
                else:
                    world.sleep(RETRY_DELAY_S)
                continue
            if isinstance(outcome, Reached):
                return
            tries = 0
            admitted = self._wait(outcome)

    def _drive(self, goal: Goal, admitted: bool) -> Reached | Waiting:
        world = self.job.world
        self._processes += 1
        name = f"run {self.number} shard {self.shard} {goal.name.lower()} #{self._processes}"
        process = Process(world, name)
        try:
            outcome = self._drive_in(process, goal, admitted)
        except Exception as error:
            world.note(name, f"FAILED {type(error).__name__}: {error}")
            raise
        world.note(name, _describe(outcome))
        return outcome

    def _drive_in(self, process: Process, goal: Goal, admitted: bool) -> Reached | Waiting:
        job = self.job
        scenario = job.world.scenario
        resolve = functools.partial(locate, job.objects, process)
        rules = LandingRules(outcomes=OutcomeRules(max_attempts=scenario.max_attempts))
        files = open_shard(resolve(OUTPUT), self.shard, resolve, rules)
        limit = QueueLimit(tokens=QUEUE_TOKENS) if scenario.told_limit else QueueLimit()
        driver = ShardDriver(
            files=files,
            connect=lambda: connect(job.emulator, process),
            caller=self._caller(goal),
            policy=self._policy(),
            find_limit=lambda model: limit,
            send_realtime=RealtimeSender(job, process, files).send,
            clock=job.world.now,
        )
        with driver:
            return driver.drive(goal, admitted=admitted)

    def _policy(self) -> Policy:
        scenario = self.job.world.scenario
        within_s = scenario.finish_within_s
        return Policy(
            mode=scenario.mode,
            realtime_threshold=scenario.realtime_threshold,
            deadline_at=None if within_s is None else self._started_at + within_s,
            on_deadline=scenario.on_deadline,
        )

    def _caller(self, goal: Goal) -> Caller:
        task_id = "shard" if self.run.one_task else goal.name.lower()
        return Caller(
            dag_id="openai_batch",
            run_id=f"run-{self.number}",
            task_id=task_id,
            map_index=self.shard,
            run_started_at=self._started_at,
        )

    def _wait(self, outcome: Waiting) -> bool:
        """As the triggers do it, without a worker; whether there is room in the queue now."""
        world = self.job.world
        if isinstance(outcome, AwaitRoom):
            return self._await_room(outcome)
        if isinstance(outcome, Pause):
            world.sleep(outcome.until - world.now() + 0.1)
            return False
        batch, policy = outcome.batch, self._policy()
        due = (self.job.emulator.batches.next_due, (batch.expires_at or 0.0) + policy.grace_s + 1.0)
        ahead = [at - world.now() for at in (*due, policy.deadline_at) if at is not None and at > world.now()]
        polls = math.ceil(min(ahead, default=0.0) / world.scenario.poll_s)
        world.sleep(world.scenario.poll_s * max(1, polls))
        return False

    def _await_room(self, wish: AwaitRoom) -> bool:
        """Stand in the triggerer's line; a triggerer that dies begins a new one."""
        world, job = self.job.world, self.job
        asked_at, queue, waiter = world.now(), None, None
        while True:
            if waiter is None or queue is not job.queue:
                queue = job.queue
                holder = f"{OUTPUT}|{self.shard}"
                waiter = queue.join(
                    wish.need,
                    wish.limit,
                    now=world.now(),
                    asked_at=asked_at,
                    not_before=wish.not_before,
                    holder=holder,
                )
            world.sleep(world.scenario.poll_s)
            if world.chance.random() < 0.02:
                job.queue = QueueRoom()
                continue
            if world.find_spell() is None and queue is job.queue:
                queue.see(list_batches(job), created_last_hour=0, at=world.now())
                queue.admit(world.now())
            if waiter.granted_at is not None:
                queue.leave(waiter, taken=True)
                return True
            policy = self._policy()
            if policy.deadline_at is not None and world.now() > policy.deadline_at:
                queue.leave(waiter, taken=False)
                return False

    def _wait_for_a_person(self, goal: Goal, error: Exception, clears: int) -> None:
        world = self.job.world
        name = f"run {self.number} shard {self.shard} {goal.name.lower()}"
        self.job.failures.append(Failure(world.now(), name, error))
        if clears > MOST_CLEARS:
            raise EndlessError(f"{name} was cleared {MOST_CLEARS} times: {error}")
        world.sleep(world.chance.choice((30.0, 600.0, 7_200.0)))
        self._started_at = world.now()
        world.note(name, "cleared by a person")


def _is_told_to_wait(error: Exception) -> bool:
    """With ``on_deadline="fail"``: each clearing waits on for ``finish_within_h``, and the batch ends when it ends."""
    return isinstance(error, JobError) and "and goes on" in str(error)


def connect(emulator: Emulator, process: Process) -> BatchClient:
    """The real client on the simulated API, as a process opens it."""
    return BatchClient(cast("Any", SimulatedOpenAI(emulator, process)))


def list_batches(job: Job) -> list[BatchView]:
    """What the watcher's latest list shows."""
    return [BatchView.from_dict(batch) for batch in job.emulator.list_batches(limit=100)["data"]]


def start_others(job: Job) -> None:
    """Strangers in the queue, and whoever deletes our files."""
    world, emulator = job.world, job.emulator
    for stranger in world.scenario.strangers:
        _at(world, stranger.start_s, functools.partial(emulator.occupy_queue, MODEL, stranger.tokens))
        _at(world, stranger.end_s, functools.partial(emulator.occupy_queue, MODEL, -stranger.tokens))
    if (at_s := world.scenario.deletes_upload_at_s) is not None:
        _at(world, at_s, functools.partial(_delete_uploads, emulator, world))


def _at(world: World, delay_s: float, act: Callable[[], None]) -> None:
    world.start(delay_s, act)


def _delete_uploads(emulator: Emulator, world: World) -> None:
    for file in emulator.files.alive:
        if file.purpose == "batch":
            emulator.files.delete(file.id)
            world.note("someone", f"deleted {file.id[:12]}")


def _describe(outcome: Reached | Waiting) -> str:
    match outcome:
        case AwaitRoom():
            return f"waits for room: {outcome.need.tokens} tokens {outcome.why}"
        case Wait(batch):
            return f"waits for {batch.id[:12]} {batch.status}"
        case Pause(until, why):
            return f"pauses until {until:.0f}: {why}"
        case _:
            return "reached"
