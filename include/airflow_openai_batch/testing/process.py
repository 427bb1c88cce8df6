"""The emulator in a process of its own: it outlives what a test kills, and takes no time from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from airflow_openai_batch.testing.control_client import ControlClient

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


class EmulatorProcess(ControlClient):
    """``python -m airflow_openai_batch.testing`` with a `ControlClient` to it.

    ::

        with EmulatorProcess("--duration", "60", "--speed", "100") as emulator:
            emulator.script(line=500, every=10)
            ...

    :param arguments: of the command line; a free port is taken unless they name one.
    :raises RuntimeError: if it does not start.
    """

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "airflow_openai_batch.testing", "--port", "0", *arguments]
        # also where the package is on the path of this process only
        path = os.pathsep.join(filter(None, (_PACKAGE_PARENT, os.environ.get("PYTHONPATH"))))
        env = os.environ | {"PYTHONPATH": path}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)  # noqa: S603
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        url = self._process.stdout.readline().strip()
        if not url:
            self.stop()
            raise RuntimeError(f"The emulator ended with code {self._process.returncode}; see its stderr.")
        super().__init__(url)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End the process, by force after 10 seconds."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
