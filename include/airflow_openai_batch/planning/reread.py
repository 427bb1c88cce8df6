"""Going back to single lines of the input, in one pass forward."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.job.ranges import RangeReader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from airflow_openai_batch.planning.line_table import LineTable
    from airflow_openai_batch.storage.sources import SourceFile


def reread_lines(
    lines: NDArray[np.int64], table: LineTable, files: Sequence[SourceFile]
) -> Iterator[tuple[int, bytes]]:
    """The number and the bytes of each of these lines of the table, which must be in order.

    Reads the chunks they stand in, and of compressed sources all that comes before them.

    :raises InputChangedError: if the source has changed since it was scanned.
    """
    with contextlib.ExitStack() as closing:
        reader: RangeReader | None = None
        current = -1
        for group in table.by_chunk(lines):
            if reader is None or group.source != current:
                closing.close()
                file = files[group.source]
                reader, current = RangeReader(file.location, file.compression), group.source
                closing.callback(reader.close)
            data = b"".join(reader.read(group.start, group.end)).split(b"\n")
            if len(data) < group.lines:
                raise InputChangedError(f"{files[current].uri}: changed while it was split. Split it again.")
            for line in group.wanted:
                yield int(line), data[int(line) - group.first_line]
