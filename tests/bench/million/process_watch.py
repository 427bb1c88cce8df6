"""What the processes below this one need while a job runs: which of them is there, their memory and CPU time."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

EVERY_S = 0.5
MEMORY_EVERY = 4
"""Looks at the memory of what is always there; to add up its pages takes longer than anything else here."""
SUPERVISORS = "LocalExecutor, a supervisor for each task"
_TASK = re.compile(r"airflow worker -- ([0-9a-f-]{36})")
_SUPERVISOR = "airflow worker -- LocalExecutor"
_TITLES = (
    ("scheduler", "warm scheduler"),
    ("triggerer", " triggerer"),
    ("DAG processor", "dag-processor"),
    ("API server", "api-server"),
    ("API server", "api_server"),
    ("emulator", "airflow_openai_batch.testing"),
    ("PostgreSQL", "postgres"),
)
"""Names, and what stands in the command line of a process and not in that of its parent."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at all processes."""

    at: float
    """Unix seconds."""
    took_s: float
    """Until the next one: what is there now counts for so long."""
    tasks: frozenset[str]
    """Ids of the task instances that have a process."""


@dataclass(slots=True)
class ProcessWatch:
    """Looks on from a thread of its own while its block runs.

    A process is told by its title; what it starts belongs to it, unless it has a title of its own.
    """

    looks: list[Look] = field(default_factory=list)
    peak_mb: Counter[str] = field(default_factory=Counter)
    """By part, or by the id of a task instance: proportional share (PSS), with all that it started."""
    cpu_s: Counter[str] = field(default_factory=Counter)
    """By part, within the block; of tasks under `SUPERVISORS`."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _at_first: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> ProcessWatch:
        self._at_first = read_cpu()
        self._thread = threading.Thread(target=self._run, name="process-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()
        self.cpu_s = read_cpu() - self._at_first

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            at, began = time.time(), time.monotonic()
            tasks = self._look(with_parts=number % MEMORY_EVERY == 0)
            number += 1
            self._ended.wait(max(0.0, EVERY_S - (time.monotonic() - began)))
            self.looks.append(Look(at, time.monotonic() - began, tasks))

    def _look(self, *, with_parts: bool) -> frozenset[str]:
        found: Counter[str] = Counter()
        tasks: set[str] = set()
        for part, process in find_parts():
            is_task = bool(_TASK.fullmatch(f"airflow worker -- {part}"))
            if is_task:
                tasks.add(part)
            if is_task or with_parts:
                found[part] += _read_memory_mb(process)
        for part, size_mb in found.items():
            self.peak_mb[part] = max(self.peak_mb[part], size_mb)
        return frozenset(tasks)


def find_parts() -> Iterator[tuple[str, psutil.Process]]:
    """Every process below this one, with the part it belongs to: a name, or the id of a task instance."""
    ours = psutil.Process()
    below: dict[int, list[psutil.Process]] = {}
    for process in ours.children(recursive=True):
        try:
            below.setdefault(process.ppid(), []).append(process)
        except psutil.NoSuchProcess:
            continue
    waiting = [("", process) for process in below.get(ours.pid, [])]
    while waiting:
        inherited, process = waiting.pop()
        part = _name_part(process) or inherited
        waiting += [(part, child) for child in below.get(process.pid, [])]
        if part:
            yield part, process


def _name_part(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    if task := _TASK.search(title):
        return task[1]
    if _SUPERVISOR in title:
        return SUPERVISORS
    return next((name for name, words in _TITLES if words in title), "")


def _read_memory_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.Error:  # it has just ended
        return 0.0


def read_cpu() -> Counter[str]:
    """Seconds of CPU so far of each part, ended children included; of tasks under the part that waits for their end."""
    spent: Counter[str] = Counter()
    for part, process in find_parts():
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        name = SUPERVISORS if _TASK.fullmatch(f"airflow worker -- {part}") else part
        spent[name] += times.user + times.system + times.children_user + times.children_system
    return spent
