"""SIGKILL for Airflow's components and task processes, and the init system that starts them again."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil

from chaos.scenario import deal
from chaos.stage import SLOWNESS

if TYPE_CHECKING:
    from demo.processes import Child
    from demo.standalone import LocalAirflow

GLANCE_S = 0.25
TASK, SUPERVISOR_OF_TASK = "task process", "task supervisor"
LOTS = (*[TASK] * 5, *[SUPERVISOR_OF_TASK] * 2, *[None] * 28)
"""What is killed of 35 task processes; a share and not a rate, so that a slow machine gets as far as a quick one."""
TASK_LIVES_S = (0.1, 3.0)
"""From the moment a task process is met to its end; mostly short, as most of them end within a second by themselves.

A kill that comes too late is the next process's: with many of those, tasks that send in real time, which are
the only ones to live for seconds, would be killed at nearly every try.
"""
REST_S = {
    "scheduler": (35.0, 60.0),
    "triggerer": (20.0, 40.0),
    "triggerer-2": (20.0, 40.0),
    "api-server": (40.0, 70.0),
}
"""From the moment a component works again to its next end."""
DOWN_S = (0.2, 8.0)
"""Until the init system starts it again."""
WORKER = "airflow worker -- "
SUPERVISOR = "airflow worker -- LocalExecutor: "


class Killer:
    """Kills from a thread: tasks' processes, their supervisors, triggerers, the scheduler, the API server."""

    def __init__(self, airflow: LocalAirflow, seed: int) -> None:
        self._airflow = airflow
        self._draw = random.Random(f"killer {seed}")
        self._lots = (deal(f"killer {seed}", LOTS, number)[0] for number in itertools.count())
        self._missed: list[str] = []
        """Kills that came too late: the next task process is met in place of the one that had ended."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self._seen: set[str] = set()
        """Titles of task processes whose lot is drawn."""
        self._due: list[tuple[float, str, psutil.Process]] = []
        self._ends_at: dict[str, float] = {}
        self._back_at: dict[str, float] = {}
        self._orphans: list[psutil.Process] = []
        self.kills: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more kills, and no process left of those that lost their parent."""
        self._ended.set()
        self._thread.join()
        for process in self._orphans:
            _kill(process)

    def _run(self) -> None:
        try:
            while not self._ended.wait(GLANCE_S):
                self._judge_tasks()
                self._judge_components()
        except BaseException as error:
            self.failure = error
            raise

    # -- tasks ---------------------------------------------------------------------------------

    def _judge_tasks(self) -> None:
        now = time.monotonic()
        for process, title in list(self._tasks()):
            if title in self._seen:
                continue
            self._seen.add(title)
            lot = self._missed.pop() if self._missed else next(self._lots)
            victim = _supervisor_of(process) if lot == SUPERVISOR_OF_TASK else process
            if lot is not None and victim is not None:
                shortest, longest = TASK_LIVES_S
                lives_s = shortest * (longest / shortest) ** self._draw.random()
                self._due.append((now + lives_s, lot, victim))
        for due in [due for due in self._due if due[0] <= now]:
            self._due.remove(due)
            _, what, process = due
            title = _title(process)  # none of one that has ended
            # An idle supervisor may hold the lock of the executor's queue.
            if title and "<idle>" not in title and _kill(process):
                self.kills[what] += 1
            else:
                self._missed.append(what)

    def kill_task(self, ti_id: str) -> bool:
        """Kill the process that runs this task instance, if there is one; its supervisor lives."""
        for process, title in self._tasks():
            if title.startswith(f"{WORKER}{ti_id}") and _kill(process):
                self.kills["task process, aimed"] += 1
                return True
        return False

    def _tasks(self) -> Iterator[tuple[psutil.Process, str]]:
        """Processes that run users' code."""
        for process in [*self._airflow.component("scheduler").descendants(), *self._orphans]:
            title = _title(process)
            if title.startswith(WORKER) and not title.startswith(SUPERVISOR):
                yield process, title

    # -- components ----------------------------------------------------------------------------

    def _judge_components(self) -> None:
        for child in list(self._airflow.children):
            if child.name in self._back_at:
                if time.monotonic() >= self._back_at[child.name] and not child.running:
                    del self._back_at[child.name]
                    self._airflow.restart(child.name)
            elif not child.running:
                self.kills[f"{child.name}, ended by itself"] += 1
                self._plan_restart(child)
            elif child.name in REST_S and self._is_due(child):
                self._kill_component(child)

    def _is_due(self, child: Child) -> bool:
        """A component that is dead most of the time proves nothing: the clock starts when it works."""
        if child.name not in self._ends_at:
            if not self._works(child):
                return False
            self._ends_at[child.name] = time.monotonic() + SLOWNESS * self._draw.uniform(*REST_S[child.name])
        return time.monotonic() >= self._ends_at[child.name]

    def _works(self, child: Child) -> bool:
        """The scheduler has its pool of workers, the triggerer its process of triggers, the API server answers."""
        if child.name == "api-server":
            return bool(self._airflow.health())
        below = child.descendants()
        if child.name == "scheduler":
            return any(_title(process).startswith(SUPERVISOR) for process in below)
        return bool(below)

    def _kill_component(self, child: Child) -> None:
        """A container takes all of its processes with it; a bare process leaves its workers to themselves."""
        below = child.descendants()
        child.signal(signal.SIGKILL)
        if child.name == "scheduler" and self._draw.random() < 0.5:
            self._orphans += below
            self.kills["scheduler, its workers live on"] += 1
        else:
            for process in below:
                _kill(process)
            self.kills[child.name.removesuffix("-2")] += 1
        self._plan_restart(child)

    def _plan_restart(self, child: Child) -> None:
        self._ends_at.pop(child.name, None)
        self._back_at[child.name] = time.monotonic() + self._draw.uniform(*DOWN_S)


def _supervisor_of(process: psutil.Process) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        above = process.parent()
        if above is not None and _title(above).startswith(SUPERVISOR):
            return above
    return None


def _kill(process: psutil.Process) -> bool:
    # psutil compares the time of creation, so an id that was given to another is left alone.
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
        return True
    return False


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline()).strip()
    return ""
