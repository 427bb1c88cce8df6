"""What a person sees of a run while it goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demo.api import AirflowApi, Run

TASKS = ("split", "upload", "create", "wait", "download", "resend_leftovers", "publish")
_DONE = frozenset({"success", "skipped"})
_BAD = frozenset({"failed", "upstream_failed"})


class ProgressLine:
    """Prints one line whenever something has changed: how many instances of each task are done."""

    def __init__(self, airflow: AirflowApi, run: Run) -> None:
        self._airflow = airflow
        self._run = run
        self._started = time.monotonic()
        self._last = ""

    def __call__(self) -> None:
        line = describe_states(self._airflow.states(self._run))
        if line != self._last:
            self._last = line
            seconds = int(time.monotonic() - self._started)
            print(f"  {seconds // 60}:{seconds % 60:02}  {line}", flush=True)


def describe_states(states: Mapping[tuple[str, int], str]) -> str:
    """For instance ``split ✓ upload ✓ create 4/6 wait 2/6 (1 failed)``; what has not begun is left out."""
    totals: Counter[str] = Counter()
    done: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for (task_id, _), state in states.items():
        name = task_id.rpartition(".")[2]
        totals[name] += 1
        done[name] += state in _DONE
        bad[name] += state in _BAD
    parts = []
    for name in TASKS:
        if 0 < totals[name] == done[name]:
            parts.append(f"{name} ✓")
        elif done[name] or bad[name]:
            parts.append(
                f"{name} {done[name]}/{totals[name]}" + (f" ({bad[name]} failed)" if bad[name] else "")
            )
    return " ".join(parts) or "scheduled"
