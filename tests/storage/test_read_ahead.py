"""Reads from object storage side by side: in order, a bounded number ahead, and none more once nobody wants them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from airflow_openai_batch.storage.location import Location, resolve_plain
from airflow_openai_batch.storage.read_ahead import READS_AT_ONCE, read_ahead
from fixtures.counted_store import CountedStore

FAR: Location = CountedStore().resolve("counted://job")


def test_so_many_are_under_way_at_once_and_come_in_their_order() -> None:
    together = threading.Barrier(READS_AT_ONCE, timeout=5)

    def read(number: int) -> int:
        together.wait()  # none ends before all have begun
        return number * 2

    numbers = range(3 * READS_AT_ONCE)
    assert list(read_ahead(read, numbers, FAR)) == [number * 2 for number in numbers]


def test_no_more_is_read_than_is_wanted() -> None:
    begun: list[int] = []
    results = read_ahead(lambda number: begun.append(number) or number, range(1_000), FAR)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= READS_AT_ONCE + 1


def test_a_failure_comes_in_its_place() -> None:
    results = read_ahead(lambda number: 1 // (3 - number), range(1_000), FAR)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_disk_is_read_by_one_thread(tmp_path: Path) -> None:
    threads = set(read_ahead(lambda _: threading.current_thread(), range(10), resolve_plain(str(tmp_path))))
    assert threads == {threading.current_thread()}
