"""An OpenAI-compatible server for tests and demos: real HTTP, a scriptable clock, faults on demand.

In a test, with the fixture that the wheel brings along::

    def test_my_dag(openai_server, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", openai_server.airflow_connection())
        openai_server.script(batch="expired", done=7, total=10)
        my_dag.test(run_conf={...})
        assert not list(openai_server.books.paid_twice(Path("requests.jsonl")))

As a process, for a scheduler and workers of their own::

    python -m airflow_openai_batch.testing --port 8000 --duration 60 --queue-limit gpt-6-luna=2000000

What there is, from the inside out:

* `Emulator`: all of the logic, driven by a clock, without HTTP, threads or sleep; for simulations.
* `OpenAIServer`: the same on a port, in this process. `EmulatorProcess`: in another.
* `ControlClient`: scripts, reads and moves the clock of an emulator in another process.
* `Settings`: durations, queue limits, rate limits, keys, models. `Clock`: real, faster, or standing still.
* `faults`: what a script can say of a batch, of a line, of an HTTP call.
* `books`: what was answered how often, what was billed, how full the queue ever was.

How to test your own DAGs with it is in the README beside this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_openai_batch.testing.clock import Clock
    from airflow_openai_batch.testing.control_client import ControlClient
    from airflow_openai_batch.testing.emulator import Emulator
    from airflow_openai_batch.testing.process import EmulatorProcess
    from airflow_openai_batch.testing.server import OpenAIServer
    from airflow_openai_batch.testing.settings import Settings

__all__ = ["Clock", "ControlClient", "Emulator", "EmulatorProcess", "OpenAIServer", "Settings"]

_HOMES = {
    "Clock": "clock",
    "ControlClient": "control_client",
    "Emulator": "emulator",
    "EmulatorProcess": "process",
    "OpenAIServer": "server",
    "Settings": "settings",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: pytest loads this package in every run, with or without the emulator."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
