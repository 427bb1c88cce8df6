"""What the drill came to, at the end of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from distributed.drill import Aftermath

AFTERMATH: pytest.StashKey[Aftermath] = pytest.StashKey()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    aftermath = config.stash.get(AFTERMATH, None)
    if aftermath is None:
        return
    from distributed.summary import describe

    terminalreporter.section("distributed")
    for line in describe(aftermath):
        terminalreporter.write_line(line)
