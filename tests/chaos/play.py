"""One job from its start to the audit, with the kills that are aimed at it and what people do meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from chaos.audit import count_paid_again, find_problems, find_twins
from chaos.person import do_deed
from chaos.scenario import DEEDS
from chaos.stage import SLOWNESS
from chaos.story import explain_failed, tell
from demo.api import FINAL_STATES, AirflowApiError, Run
from fixtures.airflow_versions import CREATES
from fixtures.job import Job

if TYPE_CHECKING:
    from chaos.killer import Killer
    from chaos.person import KeyRing
    from chaos.scenario import Scenario
    from chaos.stage import Stage

LIMIT_S = 300.0 * SLOWNESS
"""From the first trigger to the end of the last run, clears included."""
MAX_CLEARS = 4
GLANCE_S = 0.2
LOOK_S = 3.0
PATIENCE_S = 90.0 * SLOWNESS
"""With an API server that was killed, or is slow on two cores full of tasks."""
KEY_GAP_S = 4.0
_CREATES = CREATES.removeprefix("shard.")
STEP_OF = {
    "uploaded": "upload",
    "intent": _CREATES,
    "created": _CREATES,
    "ended": "wait",
    "landed": "download",
}

_T = TypeVar("_T")


@dataclass(slots=True)
class Outcome:
    """What became of a job."""

    scenario: Scenario
    problems: list[str] = field(default_factory=list)
    clears: list[str] = field(default_factory=list)
    """Why each was needed: the failed tasks with their tries, and what they raised."""
    struck: Counter[str] = field(default_factory=Counter)
    """Faults of batches and lines, by kind."""
    turns: Counter[str] = field(default_factory=Counter)
    """What people did, and runs they started again or beside."""
    twins: int = 0
    """Batches beyond the first of a send, from a reply that was lost; each was noticed and cancelled."""
    paid_again: Counter[str] = field(default_factory=Counter)
    """Good answers that were paid for beyond the first, by how they were sent."""
    seconds: float = 0.0
    story: str = ""
    """What each task and component said last; only where there are problems."""


class Play:
    """Plays one scenario."""

    def __init__(self, scenario: Scenario, stage: Stage, killer: Killer, keys: KeyRing) -> None:
        self._scenario = scenario
        self._stage = stage
        self._airflow = stage.airflow
        self._killer = killer
        self._keys = keys
        self._aims = list(scenario.aims)
        self._turn = scenario.turn
        self._turn_at = 0.0
        folder = stage.folder / "jobs" / scenario.name
        self._job = Job(folder, {"max_requests_per_shard": scenario.per_shard, **scenario.params})
        self._runs: list[Run] = []
        self._open: list[Run] = []
        """Runs that have to end well."""
        self._given_up: list[Run] = []
        self._outcome = Outcome(scenario)

    def play(self) -> Outcome:
        self._job.write(self._scenario.lines())
        emulator = self._stage.emulator
        rules = {emulator.script(**fault): name for name, fault in self._scenario.faults()}
        began = time.monotonic()
        try:
            self._begin()
            self._follow(began + LIMIT_S)
            good = [run for run in self._runs if run not in self._given_up]
            self._outcome.problems += find_problems(
                self._scenario, self._job, good, self._given_up, self._airflow, emulator
            )
            if self._outcome.clears and not self._scenario.needs_person:
                self._outcome.problems.append(
                    f"faults and kills alone made {len(self._outcome.clears)} clears needed"
                )
            self._outcome.twins = find_twins(self._job, emulator).total()
            self._outcome.paid_again = count_paid_again(self._job, emulator)
        except Exception as error:  # a defect of the suite or an Airflow that is gone: shown, not raised
            self._outcome.problems.append(f"{type(error).__name__}: {error}")
        self._outcome.seconds = time.monotonic() - began
        for rule in emulator.rules():
            if rule["id"] in rules:
                self._outcome.struck[rules[rule["id"]]] += rule["hits"]
        if self._outcome.problems:
            self._outcome.story = tell(self._airflow, self._job, self._runs)
        return self._outcome

    def _begin(self) -> None:
        name = self._scenario.name
        if self._turn is not None and self._turn.what == "key rotated":
            self._job.params["conn_id"] = self._patiently(lambda: self._keys.connect(name))
        self._start(self._scenario.dag_id, name)
        if self._scenario.twin_dag is not None:
            self._start(self._scenario.twin_dag, f"{name}-twin")
            self._outcome.turns["twin run"] += 1

    def _start(self, dag_id: str, run_id: str) -> None:
        run, conf = Run(dag_id, run_id), self._job.conf(poll_interval=1)

        def start() -> None:
            try:
                self._airflow.trigger(dag_id, conf, run_id=run_id)
            except (httpx.TransportError, AirflowApiError):
                self._airflow.state(run)  # it may have been started all the same

        self._patiently(start)
        self._runs.append(run)
        self._open.append(run)

    def _follow(self, deadline: float) -> None:
        """Until all runs succeeded, or failed more often than a person would clear them."""
        look_at = 0.0
        while self._open:
            if time.monotonic() > deadline:
                self._outcome.problems.append(f"not ended within {LIMIT_S:g} s")
                return
            time.sleep(GLANCE_S)
            self._take_aim()
            self._take_turn()
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_S
                for run in list(self._open):
                    self._look(run)

    def _look(self, run: Run) -> None:
        state = self._patiently(lambda: self._airflow.state(run))
        if state not in FINAL_STATES:
            return
        if state == "success" or not self._recover(run):
            self._open.remove(run)

    def _recover(self, run: Run) -> bool:
        """What a person does about a run that failed; false where it is left as it is."""
        turn, did = self._scenario.turn, self._turn is None
        given_up = turn is not None and turn.what in ("mark success", "fail run")
        if (
            turn is not None
            and did
            and turn.what in DEEDS
            and (turn.again or given_up)
            and not self._given_up
        ):
            self._given_up.append(run)
            self._start(run.dag_id, f"{run.run_id}-again")
            self._outcome.turns["run again"] += 1
            return False
        if len(self._outcome.clears) >= MAX_CLEARS:
            return False
        self._outcome.clears.append(self._patiently(lambda: explain_failed(self._airflow, run)))
        self._patiently(lambda: self._airflow.clear_failed(run))
        return True

    def _take_aim(self) -> None:
        """Kill the worker whose event has just appeared in the ledger."""
        for aim in list(self._aims):
            if self._has_happened(*aim):
                self._aims.remove(aim)
                if (instance := self._find_task(*aim)) is not None:
                    self._killer.kill_task(instance["id"])

    def _take_turn(self) -> None:
        turn, now = self._turn, time.monotonic()
        if turn is None or now < self._turn_at or not self._has_happened(turn.event, turn.shard):
            return
        self._turn_at = now + 1.0
        try:
            if turn.what == "key rotated":
                self._turn = None
                self._patiently(lambda: self._keys.rotate(self._scenario.name, gap_s=KEY_GAP_S))
            elif turn.what in DEEDS and not do_deed(self._airflow, self._runs[0], turn.what, turn.shard):
                return  # nothing of this shard runs or waits just now
        except (AirflowApiError, httpx.TransportError):
            return  # an API server that is dead, or a task that has just ended
        self._turn = None
        if turn.what != "twin run":
            self._outcome.turns[turn.what] += 1

    def _has_happened(self, event: str, shard: int) -> bool:
        return any((self._job.output / "state" / f"{shard:05d}").glob(f"*-{event}.json"))

    def _find_task(self, event: str, shard: int) -> dict[str, Any] | None:
        run = self._runs[0]
        one = run.dag_id.endswith("one_task")
        path = f"{run.path}/taskInstances/{'shard' if one else f'shard.{STEP_OF[event]}'}/{shard}"
        try:
            found: dict[str, Any] = self._airflow.get(path)
        except (AirflowApiError, httpx.TransportError):
            return None
        return found

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except (httpx.HTTPError, AirflowApiError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)
