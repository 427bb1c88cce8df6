"""Child processes that do not outlive us: each in a session of its own, ended by its id."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from airflow_openai_batch.storage.this_machine import find_lock_folder, open_lock

STOP_PATIENCE_S = 6.0
"""How long a process may take to stop by itself. Airflow's components need 1 to 5 s; the triggerer would take 12."""


class ChildFailedError(Exception):
    """A process ended, or was not ready in time; the message holds the end of its log."""


class Child:
    """One process and all that it starts, with its output in a file.

    Its own session keeps a terminal's Ctrl-C away from it: we decide when and in which order it ends.
    """

    def __init__(self, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._output: IO[bytes] = log.open("ab")
        self._process = subprocess.Popen(
            _tie(command),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid
        atexit.register(self.stop)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """:raises ChildFailedError: if it has ended."""
        if not self.running:
            code = self._process.returncode
            raise ChildFailedError(f"{self.name} ended with code {code}. {self.log} ends so:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the process and everything below it; does nothing the second time."""
        stop_all([self])

    def descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def family(self) -> list[psutil.Process]:
        """The process and all below it."""
        return [psutil.Process(self.pid), *self.descendants()]

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def close(self) -> None:
        """Reap the process and let go of its log."""
        self._process.wait(STOP_PATIENCE_S)
        self._output.close()
        atexit.unregister(self.stop)


def _tie(command: Sequence[str]) -> Sequence[str]:
    """Let the kernel end the process should we be killed without a chance to do it (Linux).

    Also where that happens before the kernel is told: the process then has another parent already.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return command
    still_ours = '[ "$PPID" = "$0" ] && exec "$@"'
    return [setpriv, "--pdeathsig", "TERM", "--", "sh", "-c", still_ours, str(os.getpid()), *command]


def stop_all(children: Sequence[Child]) -> None:
    """Ask all to end at once, wait for all together, then kill whatever is left of any of them.

    The processes below are noted before the first signal: once their parent is gone they belong to
    init and could not be found again.
    """
    below = [process for child in children for process in child.descendants()]
    for child in children:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_PATIENCE_S
    while any(child.running for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    for child in children:
        below += child.descendants()
        child.signal(signal.SIGKILL)
    for process in below:
        # psutil compares the time of creation, so an id that was given to another is left alone.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for child in children:
        child.close()


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Keep a folder for ourselves while the block runs.

    :raises ChildFailedError: if another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChildFailedError(
                f"{folder} is in use: an earlier start is still running. Stop it first."
            ) from None
        yield


def free_port(preferred: int = 0) -> int:
    """A TCP port of 127.0.0.1 that nobody listens on; ``preferred`` where that is free.

    A preferred port is ours from now on: what is going to listen on it may need minutes to start, and whoever else
    starts in between would be taken for it.
    """
    for port in (preferred, 0):
        if port and not _claim_port(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise ChildFailedError("127.0.0.1 has no free TCP port.")


_claims: list[int] = []
"""Open as long as this process lives, which is what holds the locks."""


def _claim_port(port: int) -> bool:
    try:
        _claims.append(open_lock(find_lock_folder() / f"port-{port}.lock"))
        fcntl.flock(_claims[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def wait_for_port(child: Child, port: int, *, timeout_s: float = 30.0) -> None:
    """:raises ChildFailedError: if the child ends first, or does not listen in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        child.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise ChildFailedError(
        f"{child.name} did not listen on port {port} within {timeout_s:g} s:\n{child.tail()}"
    )


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block like Ctrl-C does, so that clean-up runs."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    # A shell's `&` hands down SIGINT ignored; whoever sends one all the same means it.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clean_environment() -> dict[str, str]:
    """Our environment without what would steer Airflow or the OpenAI client from outside."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW_", "AIRFLOW__", "OPENAI_"))
    }
    # A proxy must not be asked for what runs on this machine.
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, (kept.get(name), "127.0.0.1,localhost")))
    return kept
