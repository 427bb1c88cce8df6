"""The ledgers of a job are listed in parts where the store can: a thousand names a page, one page after another."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import Event, JobLedger
from fixtures.counted_store import CountedStore

SHARDS = [0, 7, 99, 100, 250, 10_000, 10_099, 100_000, 100_099]
"""The first digits of some are those of others with more digits."""


class PrefixStore(CountedStore):
    """Lists names that begin with a prefix, as S3 does, and refuses a depth beside it, as some releases of s3fs do."""

    protocol = ("s3", "counted")

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: list[str] = []

    def find(self, path: str, maxdepth: int | None = None, prefix: str = "", **options: Any) -> Any:
        assert not (maxdepth and prefix)
        self.prefixes.append(prefix)
        found = super().find(path, maxdepth=maxdepth, **options)
        return [name for name in found if name.startswith(f"{path}/{prefix}")]


@pytest.mark.parametrize("store", [CountedStore(), PrefixStore()], ids=["one list", "by prefix"])
def test_every_ledger_is_found_once(store: CountedStore) -> None:
    output = store.resolve("counted://job")
    for shard in SHARDS:
        for place, kind in enumerate(("uploaded", "done"), 1):
            event = Event(kind=kind, send=1, at=1.0, message=f"{shard}")  # type: ignore[arg-type]
            name = f"{directory.state_folder(shard)}/{place:04d}-{kind}.json"
            output.child(name).write_bytes(msgspec.json.encode(event))
    ledger = JobLedger(output.child(directory.STATE), 100_100)
    for shard in SHARDS:
        assert ledger.list_kinds(shard) == ["uploaded", "done"]
        assert [event.message for event in ledger.read(shard)] == [str(shard)] * 2
    assert ledger.list_kinds(1) == []


def test_a_small_job_costs_one_list() -> None:
    store = PrefixStore()
    JobLedger(store.resolve("counted://job/state"), 100)
    assert store.prefixes == ["000"]
