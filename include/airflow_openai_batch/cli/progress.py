"""A progress bar on a terminal while an input is scanned; nothing where nobody looks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.cli.terminal import Terminal
    from airflow_openai_batch.planning.scan import ScanProgress


class ScanBar:
    """Takes the progress of a scan."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=None, lines="")

    def __call__(self, progress: ScanProgress) -> None:
        if self._bar is not None and self._task is not None:
            bad = f", {progress.rejected:,} bad" if progress.rejected else ""
            self._bar.update(
                self._task,
                completed=progress.bytes_done,
                total=progress.bytes_total,
                lines=f"{number_of(progress.lines, 'line')}{bad}, {number_of(progress.shards, 'shard')}",
            )

    def close(self) -> None:
        """Give the terminal back to what is said next."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextlib.contextmanager
def show_scan(terminal: Terminal) -> Iterator[ScanBar]:
    """A bar on stderr, for as long as the block lasts or until it is closed."""
    if not terminal.err.is_terminal:
        yield ScanBar(None)
        return
    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.fields[lines]}"), TimeRemainingColumn())
    with Progress(*columns, console=terminal.err, transient=True) as bar:
        yield ScanBar(bar)
