"""``failed.jsonl``: the requests without a good result, ready to be sent again as an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from airflow_openai_batch.errors import AccountingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_openai_batch.job.request_line import RequestLine
    from airflow_openai_batch.storage.location import Location

BATCH_ROWS = 65_536


def write_failed(shards: Iterable[tuple[Iterable[RequestLine], Location]], place: Location) -> int:
    """Write the request lines, verbatim, of every row that is not ``ok``; how many there are.

    The file is written even where it stays empty, so that an older one cannot be taken for this one.

    :param shards: request lines and part of each landed shard that has bad rows, in shard order.
    :raises AccountingError: if a part has other positions than its shard.
    """
    count = 0
    with place.open_write() as file:
        for requests, part in shards:
            for request in find_failed(requests, part):
                file.write(request.line)
                file.write(b"\n")
                count += 1
    return count


def find_failed(requests: Iterable[RequestLine], part: Location) -> Iterator[RequestLine]:
    """Requests of a shard whose row in ``part`` is not ``ok``, in input order."""
    bad = _read_bad_positions(part)
    wanted = next(bad, None)
    if wanted is None:
        return
    for request in requests:
        if request.position != wanted:
            continue
        yield request
        wanted = next(bad, None)
        if wanted is None:
            return
    raise AccountingError(
        f"{part.uri}: has a row for position {wanted:,}, which is no request of its shard. The file is of another run "
        "or was changed; clear the download task of this shard to land it again at no cost."
    )


def _read_bad_positions(part: Location) -> Iterator[int]:
    with part.open_read() as file:
        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=["position", "status"]):
            statuses = batch.column("status").to_pylist()
            positions = batch.column("position").to_pylist()
            yield from (
                position for position, status in zip(positions, statuses, strict=True) if status != "ok"
            )
