"""The table at the end of a storm, whatever became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from chaos.storm import Aftermath

AFTERMATH: pytest.StashKey[Aftermath] = pytest.StashKey()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    aftermath = config.stash.get(AFTERMATH, None)
    if aftermath is None:
        return
    from chaos.summary import describe

    terminalreporter.section("chaos")
    for line in describe(aftermath):
        terminalreporter.write_line(line)
