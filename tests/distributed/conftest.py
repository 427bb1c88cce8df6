"""What the drill came to, at the end of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.summaries import write_summary

if TYPE_CHECKING:
    from distributed.drill import Aftermath

AFTERMATH: pytest.StashKey[Aftermath] = pytest.StashKey()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    write_summary(terminalreporter, config.stash.get(AFTERMATH, None), "distributed")
