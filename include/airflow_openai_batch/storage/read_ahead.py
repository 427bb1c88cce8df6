"""Many small reads: from object storage side by side, since each waits for the network and not for this machine."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

READS_AT_ONCE = 16
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def read_ahead(read: Callable[[_Item], _Found], items: Iterable[_Item], place: Location) -> Iterator[_Found]:
    """As ``map``, in the order of the items; results of `READS_AT_ONCE` at most are held.

    :param place: that all of it is read from; from a disk one comes after the other.
    """
    if place.is_local:
        yield from map(read, items)
        return
    left = iter(items)
    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="openai-batch-read") as threads:
        reads = deque(threads.submit(read, item) for item in itertools.islice(left, READS_AT_ONCE))
        try:
            while reads:
                found = reads.popleft().result()
                reads.extend(threads.submit(read, item) for item in itertools.islice(left, 1))
                yield found
        finally:  # whoever stops early waits for none that has not begun
            for each in reads:
                each.cancel()
