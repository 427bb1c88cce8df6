"""Airflow's REST API, as far as the demo and the tests need it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

FINAL_STATES = frozenset({"success", "failed"})
PAGE_SIZE = 100
_LOCKED_S = (0.5, 1.0, 2.0)
"""Before each new try where SQLite was written to by another component just then: Airflow has taken all back."""


class AirflowApiError(Exception):
    """Airflow refused a call, or something did not happen in time."""


@dataclass(frozen=True, slots=True)
class Run:
    """One DAG run."""

    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"


class AirflowApi:
    """A remote control for one Airflow.

    :param url: for instance ``http://127.0.0.1:8080``.
    :param timeout_s: of each call.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str = "admin",
        password: str = "admin",  # noqa: S107
        timeout_s: float = 30.0,
    ) -> None:
        self.url = url
        self._login = {"username": user, "password": password}
        # No proxy from the environment: this is always the machine itself.
        self._http = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """:raises AirflowApiError: for any answer but 2xx, with Airflow's reason."""
        if "Authorization" not in self._http.headers:
            self._sign_in()
        answer = self._http.request(method, path, **options)
        if answer.status_code == httpx.codes.UNAUTHORIZED:  # the token has run out
            self._sign_in()
            answer = self._http.request(method, path, **options)
        for pause_s in _LOCKED_S:
            if answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR or "Database error" not in answer.text:
                break
            time.sleep(pause_s)
            answer = self._http.request(method, path, **options)
        if not answer.is_success:
            raise AirflowApiError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer

    def get(self, path: str, **params: Any) -> Any:
        return self.request("GET", path, params=params).json()

    def _sign_in(self) -> None:
        answer = self._http.post("/auth/token", json=self._login)
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def health(self) -> dict[str, str]:
        """The status of each component (``healthy``, ``unhealthy``); empty while nobody answers."""
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5)
        except httpx.TransportError:
            return {}
        if not answer.is_success:
            return {}
        return {name: str((part or {}).get("status")) for name, part in answer.json().items()}

    def wait_for_dag(self, dag_id: str, *, timeout_s: float = 60.0) -> None:
        """Wait until the DAG processor has read the DAG.

        :raises AirflowApiError: if it has not in time; import errors are part of the message.
        """

        def known() -> bool:
            try:
                self.get(f"/api/v2/dags/{dag_id}")
            except AirflowApiError:
                return False
            return True

        if not _poll(known, timeout_s=timeout_s):
            errors = [error["stack_trace"] for error in self.get("/api/v2/importErrors")["import_errors"]]
            raise AirflowApiError(
                "\n".join([f"DAG {dag_id} did not appear within {timeout_s:g} s.", *errors])
            )

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, *, run_id: str | None = None) -> Run:
        """Start a run of a DAG, waiting for the DAG to be known first."""
        self.wait_for_dag(dag_id)
        body = {"logical_date": None, "conf": conf or {}, "dag_run_id": run_id}
        answer = self.request("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body).json()
        return Run(dag_id, answer["dag_run_id"])

    def state(self, run: Run) -> str:
        return str(self.get(run.path)["state"])

    def wait(
        self,
        run: Run,
        *,
        timeout_s: float = 300.0,
        every_s: float = 1.0,
        watch: Callable[[], None] | None = None,
    ) -> str:
        """Wait for the end of a run and return its state.

        :param watch: called at every look, for instance to print progress.
        :raises AirflowApiError: if it has not ended in time; the states of its tasks are in the message.
        """

        def ended() -> bool:
            if watch is not None:
                watch()
            return self.state(run) in FINAL_STATES

        if not _poll(ended, timeout_s=timeout_s, every_s=every_s):
            raise AirflowApiError(f"{run.run_id} did not end within {timeout_s:g} s: {self.states(run)}")
        return self.state(run)

    def task_instances(self, run: Run) -> Iterator[dict[str, Any]]:
        """All task instances of a run as Airflow describes them, page by page."""
        offset = 0
        while True:
            page = self.get(f"{run.path}/taskInstances", limit=PAGE_SIZE, offset=offset)["task_instances"]
            yield from page
            offset += len(page)
            if len(page) < PAGE_SIZE:
                return

    def states(self, run: Run) -> dict[tuple[str, int], str]:
        """``(task_id, map_index)`` to state; -1 where a task is not mapped, "none" where not scheduled."""
        return {
            (instance["task_id"], instance["map_index"]): instance["state"] or "none"
            for instance in self.task_instances(run)
        }

    def clear_failed(self, run: Run) -> set[tuple[str, int]]:
        """What "Clear" with "Only failed" does in the UI; returns the task instances it took."""
        body = {"dry_run": False, "only_failed": True, "include_downstream": True, "dag_run_id": run.run_id}
        answer = self.request("POST", f"/api/v2/dags/{run.dag_id}/clearTaskInstances", json=body).json()
        return {(instance["task_id"], instance["map_index"]) for instance in answer["task_instances"]}

    def clear(self, run: Run, task_id: str, map_index: int = -1) -> None:
        """Clear one task instance, whatever its state, and all that comes after it."""
        task: str | list[str | int] = task_id if map_index < 0 else [task_id, map_index]
        body: dict[str, Any] = {"dry_run": False, "only_failed": False, "include_downstream": True}
        body |= {"dag_run_id": run.run_id, "task_ids": [task]}
        self.request("POST", f"/api/v2/dags/{run.dag_id}/clearTaskInstances", json=body)

    def mark(self, run: Run, task_id: str, state: str, *, map_index: int = -1) -> None:
        """Mark a task instance as ``success`` or ``failed``."""
        place = task_id if map_index < 0 else f"{task_id}/{map_index}"
        self.request("PATCH", f"{run.path}/taskInstances/{place}", json={"new_state": state})

    def mark_run(self, run: Run, state: str) -> None:
        """Mark a whole run as ``success`` or ``failed``."""
        self.request("PATCH", run.path, json={"state": state})

    def logs(self, run: Run, task_id: str, *, map_index: int = -1, try_number: int = 1) -> str:
        """What one try of a task wrote, as text: one line per message, fields behind it."""
        answer = self.get(
            f"{run.path}/taskInstances/{task_id}/logs/{try_number}", map_index=map_index, full_content=True
        )
        return "\n".join(_line(entry) for entry in answer["content"])

    def explain(self, run: Run, *, lines: int = 20) -> str:
        """Why a run failed: the end of the log of each task instance that did, at its last try."""
        parts = [f"{run.dag_id} {run.run_id} is {self.state(run)}"]
        for instance in self.task_instances(run):
            if instance["state"] == "failed":
                task_id, map_index, tries = (instance[key] for key in ("task_id", "map_index", "try_number"))
                log = self.logs(run, task_id, map_index=map_index, try_number=tries)
                parts += [f"--- {task_id} [{map_index}], try {tries}", *log.splitlines()[-lines:]]
        return "\n".join(parts)

    def close(self) -> None:
        self._http.close()


def _line(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    fields = (f"{name}={value}" for name, value in entry.items() if name not in {"event", "timestamp"})
    return " ".join([str(entry.get("event", "")), *fields])


def _poll(done: Callable[[], bool], *, timeout_s: float, every_s: float = 0.5) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)
    return True
