"""Looks at a job directory, once or until the job is done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live

from airflow_openai_batch.cli.terminal import describe_job
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.job import directory
from airflow_openai_batch.report.progress import JobProgress, ProgressReader

if TYPE_CHECKING:
    from airflow_openai_batch.cli.terminal import Terminal
    from airflow_openai_batch.storage.location import Location


def show_job(terminal: Terminal, output: Location, *, every_s: float | None) -> JobProgress:
    """Show it and return what was seen last.

    :param every_s: seconds between two looks; None for one look.
    :raises ConfigError: if there is no job.
    """
    reader = _open(output)
    if every_s is None:
        progress = reader.read()
        terminal.job(progress)
        return progress
    if terminal.out.is_terminal and not terminal.as_json:
        return _watch_live(terminal, reader, every_s)
    seen: JobProgress | None = None
    while True:
        progress = reader.read()
        if progress != seen:
            terminal.job(progress)
        if progress.complete:
            return progress
        seen = progress
        time.sleep(every_s)


def _watch_live(terminal: Terminal, reader: ProgressReader, every_s: float) -> JobProgress:
    progress = reader.read()
    with Live(describe_job(progress), console=terminal.out, auto_refresh=False) as live:
        while not progress.complete:
            time.sleep(every_s)
            progress = reader.read()
            live.update(describe_job(progress), refresh=True)
    return progress


def _open(output: Location) -> ProgressReader:
    plan = directory.read_plan(output)
    if plan is None:
        raise ConfigError(
            f"{output.uri}: there is no plan.json. Name the directory that the split wrote it to."
        )
    return ProgressReader(plan, output)
