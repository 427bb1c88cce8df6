"""An OpenAI-compatible server for tests and demos: real HTTP, a scriptable clock, faults on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_openai_batch.testing.clock import Clock
    from airflow_openai_batch.testing.emulator import Emulator
    from airflow_openai_batch.testing.server import OpenAIServer
    from airflow_openai_batch.testing.settings import Settings

__all__ = ["Clock", "Emulator", "OpenAIServer", "Settings"]

_HOMES = {"Clock": "clock", "Emulator": "emulator", "OpenAIServer": "server", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    """Imported when asked for: pytest loads this package in every run, with or without the emulator."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
