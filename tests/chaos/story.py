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


def explain_failed(airflow: LocalAirflow, run: Run) -> str:
    """Each task that failed, with what became of its tries, what it raised and what the scheduler says of it.

    Asked before the task is cleared: its first log may be all there is, and nothing of it is shown later.
    """
    parts = []
    for instance in airflow.task_instances(run):
        if instance["state"] != "failed":
            continue
        task_id, map_index, number = (instance[key] for key in ("task_id", "map_index", "try_number"))
        path = f"{run.path}/taskInstances/{task_id}/{map_index}/tries"
        tries = [
            f"{each['state']} {each['duration'] or 0:.1f} s" for each in airflow.get(path)["task_instances"]
        ]
        log = airflow.logs(run, task_id, map_index=map_index, try_number=number)
        why = sorted(set(_WHY.findall(log))) or ["no exception: killed"]
        said = [
            f"{child.name}: {line[:300]}"
            for child in airflow.children
            for line in child.tail(20_000).splitlines()
            if instance["id"] in line
        ]
        place = f"{run.run_id} {task_id} [{map_index}], try {number} of {instance['max_tries'] + 1}"
        parts.append("\n  ".join([f"{place}: {', '.join(tries)}; {'; '.join(why)}", *said[-12:]]))
    return "\n".join(parts)


def _shorten(log: str) -> str:
    return "\n".join(line[:400] for line in log.splitlines())
