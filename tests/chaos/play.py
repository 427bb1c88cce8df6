"""One run from its start to the audit, with the kills that are aimed at it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from chaos.audit import find_problems, find_twins
from chaos.stage import SLOWNESS
from demo.api import FINAL_STATES, AirflowApiError, Run
from fixtures.job import Job

if TYPE_CHECKING:
    from chaos.killer import Killer
    from chaos.scenario import Scenario
    from chaos.stage import Stage

LIMIT_S = 300.0 * SLOWNESS
"""From the trigger to the end, clears included; an undisturbed run takes about half a minute."""
MAX_CLEARS = 4
GLANCE_S = 0.1
LOOK_S = 3.0
STEP_OF = {
    "uploaded": "upload",
    "intent": "create",
    "created": "create",
    "ended": "wait",
    "landed": "download",
}

_WHY = re.compile(r"'exc_value': (.*?), 'exc_notes'")
_T = TypeVar("_T")


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    scenario: Scenario
    problems: list[str] = field(default_factory=list)
    clears: list[str] = field(default_factory=list)
    """Why each was needed: what the failed tasks raised."""
    struck: Counter[str] = field(default_factory=Counter)
    """Faults of batches and lines, by kind."""
    twins: int = 0
    """Batches beyond the first of a send, from a reply that was lost; each was noticed and cancelled."""
    seconds: float = 0.0
    story: str = ""
    """What each task and component said last; only where there are problems."""


class Play:
    """Plays one scenario."""

    def __init__(self, scenario: Scenario, stage: Stage, killer: Killer) -> None:
        self._scenario = scenario
        self._stage = stage
        self._killer = killer
        self._aims = list(scenario.aims)
        folder = stage.folder / "jobs" / scenario.name
        params = {"max_requests_per_shard": scenario.per_shard, **scenario.params}
        self._job = Job(folder, params)
        self._run = Run(scenario.dag_id, scenario.name)
        self._outcome = Outcome(scenario)

    def play(self) -> Outcome:
        self._job.write(self._scenario.lines())
        emulator = self._stage.emulator
        rules = {emulator.script(**fault): name for name, fault in self._scenario.faults()}
        began = time.monotonic()
        try:
            self._start()
            self._follow(began + LIMIT_S)
            found = find_problems(
                self._scenario, self._job, self._run, self._stage.airflow, self._stage.emulator
            )
            self._outcome.problems += found
            self._outcome.twins = find_twins(self._job, self._stage.emulator).total()
        except Exception as error:  # a defect of the suite or an Airflow that is gone: shown, not raised
            self._outcome.problems.append(f"{type(error).__name__}: {error}")
        self._outcome.seconds = time.monotonic() - began
        for rule in emulator.rules():
            if rule["id"] in rules:
                self._outcome.struck[rules[rule["id"]]] += rule["hits"]
        if self._outcome.problems:
            self._outcome.story = self._tell()
        return self._outcome

    def _start(self) -> None:
        conf = self._job.conf(poll_interval=1)
        try:
            self._stage.airflow.trigger(self._run.dag_id, conf, run_id=self._run.run_id)
        except httpx.TransportError:
            self._patiently(lambda: self._stage.airflow.state(self._run))

    def _follow(self, deadline: float) -> None:
        """Until it succeeded, or failed more often than a person would clear it."""
        look_at = 0.0
        while time.monotonic() < deadline:
            time.sleep(GLANCE_S)
            self._take_aim()
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + LOOK_S
            state = self._patiently(lambda: self._stage.airflow.state(self._run))
            if state == "failed" and len(self._outcome.clears) < MAX_CLEARS:
                story = self._patiently(lambda: self._stage.airflow.explain(self._run, lines=8))
                why = sorted(set(_WHY.findall(story)))
                self._outcome.clears.append("; ".join(why) or "no exception: killed")
                self._patiently(lambda: self._stage.airflow.clear_failed(self._run))
            elif state in FINAL_STATES:
                return
        self._outcome.problems.append(f"not ended within {LIMIT_S:g} s")

    def _take_aim(self) -> None:
        """Kill the worker whose event has just appeared in the ledger."""
        for aim in list(self._aims):
            event, shard = aim
            if not list((self._job.output / "state" / f"{shard:05d}").glob(f"*-{event}.json")):
                continue
            self._aims.remove(aim)
            if (instance := self._find_task(event, shard)) is not None:
                self._killer.kill_task(instance["id"])

    def _find_task(self, event: str, shard: int) -> dict[str, Any] | None:
        one = self._run.dag_id.endswith("one_task")
        path = f"{self._run.path}/taskInstances/{'shard' if one else f'shard.{STEP_OF[event]}'}/{shard}"
        try:
            found: dict[str, Any] = self._stage.airflow.get(path)
        except (AirflowApiError, httpx.TransportError):
            return None
        return found

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        """The API server is slow at times, on two cores full of tasks."""
        for _ in range(5):
            try:
                return ask()
            except (httpx.TransportError, AirflowApiError):
                time.sleep(2)
        return ask()

    def _tell(self) -> str:
        airflow = self._stage.airflow
        parts = [f"job: {self._job.output}"]
        for folder in sorted((self._job.output / "state").glob("*")):
            parts.append(
                f"ledger {folder.name}: {' '.join(sorted(path.stem for path in folder.glob('*.json')))}"
            )
        try:
            unusual = {
                place: state for place, state in airflow.states(self._run).items() if state != "success"
            }
            parts += [f"not success: {unusual}", _shorten(airflow.explain(self._run, lines=15))]
        except Exception as error:
            parts.append(f"Airflow could not be asked: {error}")
        parts += [f"--- {child.name} said last\n{_shorten(child.tail(8))}" for child in airflow.children]
        return "\n".join(parts)


def _shorten(log: str) -> str:
    return "\n".join(line[:400] for line in log.splitlines())
