"""What people do to a run that goes on: clear, mark, give up, rotate the key of its connection."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from chaos.stage import KEY

if TYPE_CHECKING:
    from airflow_openai_batch.testing.control_client import ControlClient
    from demo.api import AirflowApi, Run

AT_WORK = frozenset({"queued", "running", "deferred", "up_for_retry"})


def do_deed(airflow: AirflowApi, run: Run, what: str, shard: int) -> bool:
    """Clear or mark the task of the shard that runs or waits; false where none does, or it has ended just now."""
    if what == "fail run":
        airflow.mark_run(run, "failed")
        return True
    for instance in airflow.task_instances(run):
        if instance["map_index"] == shard and instance["state"] in AT_WORK:
            if what == "clear":
                airflow.clear(run, instance["task_id"], shard)
            else:
                airflow.mark(run, instance["task_id"], what.removeprefix("mark "), map_index=shard)
            return True
    return False


class KeyRing:
    """The keys that OpenAI takes, and the connections that use them."""

    def __init__(self, airflow: AirflowApi, emulator: ControlClient) -> None:
        self._airflow = airflow
        self._emulator = emulator
        self._lock = threading.Lock()
        self._keys = {KEY}

    def connect(self, name: str) -> str:
        """A connection of its own; returns its id."""
        self._open(f"{KEY}-{name}-old")
        self._airflow.request("POST", "/api/v2/connections", json=self._describe(name, "old"))
        return f"openai-{name}"

    def rotate(self, name: str, *, gap_s: float) -> None:
        """The old key is void at once; somebody enters the new one so much later."""
        with self._lock:
            self._keys.discard(f"{KEY}-{name}-old")
            self._emulator.configure(api_keys=sorted(self._keys))
        time.sleep(gap_s)
        self._open(f"{KEY}-{name}-new")
        fields = self._describe(name, "new")
        self._airflow.request("PATCH", f"/api/v2/connections/openai-{name}", json=fields)

    def _open(self, key: str) -> None:
        with self._lock:
            self._keys.add(key)
            self._emulator.configure(api_keys=sorted(self._keys))

    def _describe(self, name: str, which: str) -> dict[str, Any]:
        return {
            "connection_id": f"openai-{name}",
            "conn_type": "openai",
            "host": self._emulator.base_url,
            "password": f"{KEY}-{name}-{which}",
        }
