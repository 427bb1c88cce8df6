"""Where the requests go: to the emulator, or to OpenAI where there is a key."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.processes import Child, clean_environment, free_port, wait_for_port
from demo.standalone import ROOT

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class OpenAISide:
    """An OpenAI or what stands in for it."""

    url: str
    key: str
    emulated: bool

    def connection(self) -> dict[str, str]:
        """The environment variable that defines Airflow's connection ``openai_default``."""
        fields = {"conn_type": "openai", "password": self.key, "host": self.url}
        return {"AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(fields)}


def find_account() -> OpenAISide | None:
    """The account whose key is in OPENAI_API_KEY, if there is one."""
    key = os.environ.get("OPENAI_API_KEY")
    url = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    return OpenAISide(url, key, emulated=False) if key else None


@contextlib.contextmanager
def emulated(home: Path, *, port: int = 0, batch_s: float = 5.0) -> Iterator[OpenAISide]:
    """The emulator in a process of its own, ended with the block.

    :param batch_s: seconds that a batch is in progress.
    :raises ChildFailedError: if it does not start.
    """
    port = port or free_port()
    env = clean_environment() | {"PYTHONPATH": str(ROOT / "include")}
    command = [sys.executable, "-m", "airflow_openai_batch.testing", "--port", str(port)]
    command += ["--validating", "1", "--duration", str(batch_s), "--finalizing", "1"]
    child = Child("emulator", command, env=env, log=home / "emulator.log")
    try:
        wait_for_port(child, port)
        yield OpenAISide(f"http://127.0.0.1:{port}/v1", "sk-emulator", emulated=True)
    finally:
        child.stop()
