"""What a job, its runs and Airflow's components said last, for whoever looks into a run that went wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demo.api import Run
    from demo.standalone import LocalAirflow
    from fixtures.job import Job

_WHY = re.compile(r"'exc_value': (.*?), 'exc_notes'")


def tell(airflow: LocalAirflow, job: Job, runs: Sequence[Run]) -> str:
    """Ledgers by name of their events, states that are not success, the ends of logs."""
    parts = [f"job: {job.output}"]
    for folder in sorted((job.output / "state").glob("*")):
        events = " ".join(sorted(path.stem for path in folder.glob("*.json")))
        parts.append(f"ledger {folder.name}: {events}")
    for run in runs:
        try:
            unusual = {place: state for place, state in airflow.states(run).items() if state != "success"}
            parts += [f"{run.run_id}, not success: {unusual}", _shorten(airflow.explain(run, lines=15))]
        except Exception as error:
            parts.append(f"{run.run_id}: Airflow could not be asked: {error}")
    parts += [f"--- {child.name} said last\n{_shorten(child.tail(8))}" for child in airflow.children]
    return "\n".join(parts)


def find_reasons(story: str) -> list[str]:
    """What the tasks in `AirflowApi.explain`'s text raised, each once."""
    return sorted(set(_WHY.findall(story)))


def _shorten(log: str) -> str:
    return "\n".join(line[:400] for line in log.splitlines())
