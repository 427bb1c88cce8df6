"""What the requests of a plan allow as output: sums per model and endpoint, none per line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job.plan import OutputBound
from airflow_openai_batch.planning.chunk_tally import OutputSum
from airflow_openai_batch.planning.duplicates import reread_lines
from airflow_openai_batch.requests.request import BadLineError, Request, read_request

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Shard
    from airflow_openai_batch.planning.duplicates import Duplicates
    from airflow_openai_batch.planning.line_table import LineTable
    from airflow_openai_batch.storage.sources import SourceFile


class OutputTally:
    """The sums over a whole scan, by model and endpoint."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], OutputSum] = {}

    def add(self, names: Iterable[tuple[str, str]], sums: Iterable[OutputSum]) -> None:
        """Those of a chunk."""
        for name, found in zip(names, sums, strict=True):
            self._of(name).merge(found)

    def drop(self, request: Request) -> None:
        self._of((request.model, request.url)).drop(request)

    def describe(self, shards: Iterable[Shard]) -> tuple[OutputBound, ...]:
        """One for each model and endpoint of the shards, in their order."""
        requests: dict[tuple[str, str], int] = {}
        for shard in shards:
            name = (shard.model, shard.endpoint)
            requests[name] = requests.get(name, 0) + shard.requests
        return tuple(
            OutputBound(
                model=name[0],
                endpoint=name[1],
                requests=count,
                bounded_tokens=self._of(name).tokens,
                unbounded_requests=self._of(name).unbounded,
                unbounded_choices=self._of(name).choices,
                dearer_requests=self._of(name).dearer,
            )
            for name, count in requests.items()
        )

    def _of(self, name: tuple[str, str]) -> OutputSum:
        return self._sums.setdefault(name, OutputSum())


def drop_duplicates(
    outputs: OutputTally, duplicates: Duplicates, table: LineTable, files: Sequence[SourceFile]
) -> None:
    """Take out the lines that repeat a custom_id: they were counted when they came, and are not sent.

    Reads them again, since nothing is kept of them.

    :raises InputChangedError: if the input has changed since it was scanned.
    """
    for line, data in reread_lines(duplicates.lines, table, files):
        try:
            outputs.drop(read_request(data))
        except BadLineError:
            uri = files[table.place(line).source].uri
            raise InputChangedError(f"{uri}: changed while it was split. Split it again.") from None
