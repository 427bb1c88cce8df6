"""An Airflow whose components are forked from a process that is warm; otherwise the demo's."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from demo.processes import STOP_PATIENCE_S, Child, ChildFailedError
from demo.standalone import LocalAirflow

if TYPE_CHECKING:
    import signal


class Nursery:
    """The warm process."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "chaos.warm"],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def wait(self) -> None:
        """:raises ChildFailedError: if it ended before it was warm."""
        self._read()

    def start(self, argv: list[str], log: Path) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"argv": argv, "log": str(log)}) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def _read(self) -> str:
        """Its next word. Airflow prints, too, while it is imported; that has no place here."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == "warm" or line.strip().isdigit():
                return line.strip()
        raise ChildFailedError(f"the warm process ended: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class WarmChild(Child):
    """A component as its starter sees it; its parent is the nursery, which buries it."""

    def __init__(self, name: str, pid: int, log: Path) -> None:
        self.name = name
        self.log = log
        self.pid = pid
        self._forked = psutil.Process(pid)

    @property
    def running(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return self._forked.is_running() and self._forked.status() != psutil.STATUS_ZOMBIE
        return False

    def check(self) -> None:
        """:raises ChildFailedError: if it has ended."""
        if not self.running:
            raise ChildFailedError(f"{self.name} ended. {self.log} ends so:\n{self.tail()}")

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._forked.send_signal(number)

    def close(self) -> None:
        deadline = time.monotonic() + STOP_PATIENCE_S
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)


class WarmAirflow(LocalAirflow):
    """Starts in a third of the time, and starts a component again in half a second."""

    _nursery: Nursery

    def start(self, *, timeout_s: float = 180.0) -> None:
        self._nursery = Nursery(self.environment(), self.home / "components" / "warm.log")
        self._kept.callback(self._nursery.stop)
        super().start(timeout_s=timeout_s)

    def _migrate(self, env: dict[str, str]) -> None:
        """Beside it the nursery gets warm."""
        super()._migrate(env)
        self._nursery.wait()

    def _start_component(self, name: str) -> Child:
        log = self.home / "components" / f"{name}.log"
        return WarmChild(name, self._nursery.start(self.commands()[name], log), log)
