"""A server in a process of its own, which hands on what it is asked to the emulator of a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo.processes import Child, clean_environment, wait_for_port

if TYPE_CHECKING:
    from fixtures.gate import Gate

_START_S = 120.0
_NOBODY = "http://127.0.0.1:9"
"""Where nothing listens: whatever a server would ask of the internet fails at once."""


@dataclass(frozen=True, slots=True)
class ForeignServer:
    """One that listens."""

    address: str
    backend: Gate
    """What it takes for OpenAI. Lead it to an emulator with ``upstream``."""


@contextmanager
def run_server(
    name: str, command: Sequence[str], *, port: int, backend: Gate, folder: Path, **env: str
) -> Iterator[ForeignServer]:
    """Until the block is left.

    :param backend: which the server was told to ask.
    :param folder: for its log and whatever it keeps.
    :param env: beside this process's own.
    """
    cut_off = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOBODY)
    whole = {**clean_environment(), **cut_off, "HOME": str(folder), **env}
    child = Child(name, command, env=whole, log=folder / f"{name}.log")
    try:
        wait_for_port(child, port, timeout_s=_START_S)
        yield ForeignServer(f"http://127.0.0.1:{port}", backend)
    finally:
        child.stop()
