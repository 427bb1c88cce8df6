"""What stands for Airflow: tasks that drive shards, waits without a worker, retries, and a person who clears."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_openai_batch.costs.budget import Budget
from airflow_openai_batch.costs.sample import choose_sample
from airflow_openai_batch.errors import BudgetError, ConfigError, JobError, OpenAIBatchError
from airflow_openai_batch.job.shard_state import Goal, Waited
from airflow_openai_batch.openai_api.account_limits import QueueLimit
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.openai_api.servers.choice import SERVERS
from airflow_openai_batch.results.outcome import OutcomeRules
from airflow_openai_batch.sending.caller import Caller
from airflow_openai_batch.sending.driver import ShardDriver, Waiting
from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.sending.queue.line import AdmissionQueue
from airflow_openai_batch.sending.shard_files import LandingRules, open_shard
from airflow_openai_batch.sending.steps import AwaitRoom, Pause, Reached, Wait
from airflow_openai_batch.testing.books import body_key
from simulation.disk import Objects, locate
from simulation.job import OUTPUT, make_body, read_planned
from simulation.purse import Purse
from simulation.realtime import RealtimeSender
from simulation.scenario import MODEL, QUEUE_TOKENS
from simulation.sdk import SimulatedOpenAI
from simulation.waiting import Told, check_twins, wait_for
from simulation.world import EndlessError, Killed, Process, World

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import ShardState
    from airflow_openai_batch.openai_api.batch import BatchView
    from airflow_openai_batch.sending.policy import Mode
    from airflow_openai_batch.sending.shard_files import ShardFiles
    from airflow_openai_batch.testing.emulator import Emulator
    from simulation.scenario import Run

RETRIES = 3
RETRY_DELAY_S = 60.0
MOST_STARTS_A_MINUTE = 10
"""Of workers for one task, after waits that came to their end; the shortest poll interval drawn is ten seconds."""
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
    queue: AdmissionQueue = field(default_factory=AdmissionQueue)
    """The triggerer's line before the batch queue."""
    purse: Purse = field(default_factory=Purse)
    mode: Mode = "batch"
    """At first the scenario's."""
    _open: Counter[int] = field(default_factory=Counter)
    """By run, its shards that are not through."""
    _started: int = 0

    def __post_init__(self) -> None:
        self.purse.max_cost_usd = self.world.scenario.max_cost_usd
        self.mode = self.world.scenario.mode

    def start(self) -> None:
        """Let the runs of the scenario begin, each at its time."""
        self._start_runs(0)

    def _start_runs(self, first: int) -> None:
        """This run and those that do not wait for a former one to be through."""
        scenario = self.world.scenario
        plan = read_planned(scenario.requests, scenario.max_requests_per_shard)
        for number, run in enumerate(scenario.runs[first:], start=first):
            if run.after_former and number > first:
                return
            self._started = number + 1
            for shard, wanted in choose_sample(plan, run.sample).items():
                part = None if wanted == plan.shards[shard].requests else wanted
                tasks = ShardTasks(job=self, run=run, number=number, shard=shard, first=part)
                self._open[number] += 1
                self.world.start(run.start_s, tasks.work)

    def end_shard(self, number: int) -> None:
        """A shard of a run is through."""
        self._open[number] -= 1
        if self._open[number]:
            return
        runs = self.world.scenario.runs
        samples = [run.sample for run in runs[: self._started]]
        if None not in samples:
            check_sample(self, runs[number].sample or 0, max(filter(None, samples)))
        if not self._open.total() and self._started < len(self.world.scenario.runs):
            self._start_runs(self._started)


@dataclass(kw_only=True)
class ShardTasks:
    """The tasks of one run for one shard, one after another."""

    job: Job
    run: Run
    number: int
    shard: int
    first: int | None = None
    """Of a sample: only so many of the shard's requests are wanted."""
    _processes: int = 0
    _starts: deque[float] = field(default_factory=deque)
    """Of the latest workers that found only waiting to do."""
    _started_at: float = 0.0
    """Of the run, as Airflow has it: clearing sets it anew."""
    _waited: Waited = field(default_factory=Waited)

    def work(self) -> None:
        self._started_at = self.job.world.now()
        for goal in (Goal.DONE,) if self.run.one_task else Goal:
            self._bring_to(goal)
        self.job.end_shard(self.number)

    def _bring_to(self, goal: Goal) -> None:
        world = self.job.world
        tries = clears = 0
        told = Told()
        while True:
            began_at = world.now()
            try:
                outcome = self._drive(goal, told)
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
            self._note_start(goal, began_at)
            if isinstance(outcome, Wait):
                check_twins(self.job, outcome.batch, began_at)
            told = wait_for(self.job, outcome, self.shard, self._policy(), self._waited)

    def _note_start(self, goal: Goal, at: float) -> None:
        """:raises EndlessError: if a task that waits is started again and again without pause."""
        self._starts.append(at)
        if len(self._starts) > MOST_STARTS_A_MINUTE and at - self._starts.popleft() < 60.0:
            raise EndlessError(
                f"{goal.name.lower()} was started {MOST_STARTS_A_MINUTE} times within a minute only to wait"
            )

    def _drive(self, goal: Goal, told: Told) -> Reached | Waiting:
        world = self.job.world
        self._processes += 1
        name = f"run {self.number} shard {self.shard} {goal.name.lower()} #{self._processes}"
        process = Process(world, name)
        try:
            outcome = self._drive_in(process, goal, told)
        except Exception as error:
            world.note(name, f"FAILED {type(error).__name__}: {error}")
            raise
        world.note(name, _describe(outcome))
        return outcome

    def _drive_in(self, process: Process, goal: Goal, told: Told) -> Reached | Waiting:
        job = self.job
        scenario = job.world.scenario
        resolve = functools.partial(locate, job.objects, process)
        rules = LandingRules(outcomes=OutcomeRules(max_attempts=scenario.max_attempts))
        files = open_shard(resolve(OUTPUT), self.shard, resolve, rules)
        limit = QueueLimit(tokens=QUEUE_TOKENS) if scenario.told_limit else QueueLimit()
        driver = ShardDriver(
            files=files,
            connect=lambda: connect(job, process),
            caller=self._caller(goal),
            policy=self._policy(),
            find_limit=lambda model: limit,
            send_realtime=RealtimeSender(job, process, files).send,
            find_pace=lambda lane: scenario.foreseen_per_s.get(lane, scenario.pace_per_s),
            check_budget=self._make_budget_check(files),
            clock=job.world.now,
        )
        with driver:
            outcome = driver.drive(goal, admitted=told.admitted, twins=told.twins)
        self._waited = driver.waited
        return outcome

    def _make_budget_check(self, files: ShardFiles) -> Callable[[ShardState, bool], None] | None:
        max_cost_usd = self.job.purse.max_cost_usd
        if max_cost_usd is None:
            return None
        budget = Budget(output=files.output, plan=files.plan, max_cost_usd=max_cost_usd)
        return functools.partial(budget.check_state, files.shard)

    def _policy(self) -> Policy:
        scenario = self.job.world.scenario
        within_s = scenario.finish_within_s
        return Policy(
            mode=self.job.mode,
            realtime_threshold=scenario.realtime_threshold,
            deadline_at=None if within_s is None else self._started_at + within_s,
            within_s=within_s or 0.0,
            on_deadline=scenario.on_deadline,
            first=self.first,
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

    def _wait_for_a_person(self, goal: Goal, error: Exception, clears: int) -> None:
        world = self.job.world
        name = f"run {self.number} shard {self.shard} {goal.name.lower()}"
        self.job.failures.append(Failure(world.now(), name, error))
        if clears > MOST_CLEARS:
            raise EndlessError(f"{name} was cleared {MOST_CLEARS} times: {error}")
        world.sleep(world.chance.choice((30.0, 600.0, 7_200.0)))
        if isinstance(error, BudgetError):
            self.job.purse.raise_budget()
        if isinstance(error, ConfigError):  # there is no flex, and the message says what to set
            self.job.mode = world.chance.choice(("batch", "realtime"))
        self._started_at = world.now()
        world.note(name, "cleared by a person")


def _is_told_to_wait(error: Exception) -> bool:
    """With ``on_deadline="fail"``: each clearing waits on for ``finish_within_h``, and the batch ends when it ends. The
    same holds for a cancel that takes long."""
    return isinstance(error, JobError) and (
        "and goes on" in str(error) or "was to be cancelled" in str(error)
    )


class _TellingClient(BatchClient):
    """The real client. What it would tell of a batch the simulation goes by, whether its server keeps it or not."""

    def create(self, *, input_file_id: str, endpoint: str, metadata: dict[str, str]) -> BatchView:
        cast("SimulatedOpenAI", self._openai).told = metadata
        return super().create(input_file_id=input_file_id, endpoint=endpoint, metadata=metadata)


def connect(job: Job, process: Process) -> BatchClient:
    """The real client on the simulated API, as a process opens it."""
    sdk = SimulatedOpenAI(job.emulator, process, job.purse)
    return _TellingClient(cast("Any", sdk), server=SERVERS[job.emulator.settings.server])


def check_sample(job: Job, sample: int, largest: int) -> None:
    """Before anybody wanted more nobody was asked for more; and where nothing went wrong, for nothing less.

    :param sample: of a run that is through.
    :param largest: of all runs so far.
    """
    scenario = job.world.scenario
    good = [job.emulator.books.good_by_body[body_key(make_body(n))] for n in range(scenario.requests)]
    for number in range(scenario.requests):
        if number >= largest:
            assert not good[number], f"r-{number} was asked for a sample of {largest}"
        elif number < sample and scenario.answers_all:
            assert good[number], f"r-{number} was not asked for a sample of {sample}"


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
        if file.purpose == emulator.settings.rules.batch_purpose:
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
