"""What stands for a container: a process tree with a name and a file system of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from demo.processes import Child


class Container:
    """Runs one command until it is stopped; killed, it can be started again and finds what it had written.

    :param name: of the host, too: ``worker-2``.
    """

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], *, home: Path, log: Path
    ) -> None:
        self.name = name
        self._command = command
        self._env = {**env, "HOSTNAME": name, "AIRFLOW_HOME": str(home)}
        self._log = log
        self.child = self._start()

    def _start(self) -> Child:
        return Child(self.name, self._command, env=self._env, log=self._log)

    def pause(self) -> None:
        """As `docker pause`: what it has begun stays as it is, so that one can look what that is."""
        # Whoever is halted starts no more, so that the second look finds what the first has missed.
        for _ in range(2):
            _each(self.child.family(), lambda process: process.send_signal(signal.SIGSTOP))

    def unpause(self) -> None:
        _each(self.child.family(), lambda process: process.send_signal(signal.SIGCONT))

    def kill(self) -> None:
        """SIGKILL for all of it at once, as `docker kill` does, or a machine that loses its power."""
        self.pause()
        _each(self.child.family(), lambda process: process.kill())
        self.child.close()

    def restart(self) -> None:
        """``restart: unless-stopped``."""
        self.child = self._start()

    def run(self, command: Sequence[str], *, timeout_s: float = 120) -> int:
        """The exit code of a command in the container, such as its health check; 124 where it takes too long."""
        with (
            self._log.with_suffix(".exec.log").open("ab") as output,
            contextlib.suppress(subprocess.TimeoutExpired),
        ):
            return subprocess.run(
                command, env=self._env, stdout=output, stderr=output, timeout=timeout_s, check=False
            ).returncode
        return 124


def _each(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            act(process)
