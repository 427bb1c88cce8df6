"""Not one position of the input can go missing or stand twice without being named."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_openai_batch.errors import AccountingError
from airflow_openai_batch.job.plan import Counts, Limits, Plan, Shard
from airflow_openai_batch.report.row_check import RowCheck, check_accounts
from airflow_openai_batch.results.result_rows import ResultRow, ResultsWriter
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.distant_disk import DistantDisk


@dataclass
class JobOnDisk:
    """Parts and rejected lines by their positions."""

    folder: Path
    shards: list[list[int]]
    rejected: list[int] = field(default_factory=list)

    def plan(self) -> Plan:
        requests = sum(map(len, self.shards))
        return Plan(
            fingerprint="f",
            created_at=0.0,
            sources=(),
            limits=Limits(max_requests=1, max_bytes=1, max_tokens=None),
            counts=Counts(
                positions=requests + len(self.rejected),
                requests=requests,
                rejected=len(self.rejected),
                blank=0,
            ),
            shards=tuple(
                Shard(
                    shard=i,
                    model="m",
                    endpoint="/v1/chat/completions",
                    requests=len(positions),
                    bytes=1,
                    input_tokens=1,
                    sha256="",
                    first_position=positions[0],
                )
                for i, positions in enumerate(self.shards)
            ),
        )

    def part(self, shard: int) -> Location:
        return resolve_plain(f"{self.folder}/results/part-{shard:05d}.parquet")

    def write(self) -> None:
        for shard, positions in enumerate(self.shards):
            self.write_part(shard, positions)
        self.write_rejected(self.rejected)

    def write_part(self, shard: int, positions: list[int]) -> None:
        empty = dict.fromkeys(ResultRow._fields)
        known = {"source_uri": "in.jsonl", "line_number": 1, "custom_id": "a", "status": "ok", "attempts": 1}
        with self.part(shard).open_write() as file, ResultsWriter(file, row_group_bytes=2_000) as writer:
            for position in positions:
                writer.write(ResultRow(**{**empty, **known, "position": position}))

    def write_rejected(self, positions: list[int]) -> None:
        lines = [json.dumps({"position": position, "reason": "bad"}) + "\n" for position in positions]
        (self.folder / "rejected.jsonl").write_text("".join(lines))

    def check(self, plan: Plan, unfinished: set[int] | None = None) -> RowCheck:
        return check_accounts(plan, resolve_plain(str(self.folder)), unfinished=unfinished or set())


@pytest.fixture
def job(tmp_path: Path) -> JobOnDisk:
    """Positions 0 to 99; 0, 17, 50, 51 and 99 were rejected."""
    rejected = [0, 17, 50, 51, 99]
    requests = [position for position in range(100) if position not in rejected]
    job = JobOnDisk(tmp_path, [requests[:48], requests[48:70], requests[70:]], rejected)
    job.write()
    return job


def test_whole_job_adds_up(job: JobOnDisk) -> None:
    accounts = job.check(job.plan())
    assert (accounts.positions, accounts.rows, accounts.rejected, accounts.unfinished) == (100, 95, 5, 0)
    assert accounts.rows_by_status == {"ok": 95}


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_unfinished_shard_is_passed_over(job: JobOnDisk, shard: int) -> None:
    Path(job.part(shard).path).unlink()
    accounts = job.check(job.plan(), {shard})
    assert accounts.unfinished == len(job.shards[shard])
    assert accounts.rows + accounts.rejected + accounts.unfinished == 100


def test_missing_part_is_named(job: JobOnDisk) -> None:
    Path(job.part(1).path).unlink()
    with pytest.raises(AccountingError, match=r"part-00001\.parquet: the part of shard 1 is not there"):
        job.check(job.plan())


def test_a_job_without_shards_adds_up(tmp_path: Path) -> None:
    """All lines were rejected, or there were none."""
    job = JobOnDisk(tmp_path, [], [0, 1, 2])
    job.write()
    accounts = job.check(job.plan())
    assert (accounts.positions, accounts.rows, accounts.rejected) == (3, 0, 3)


def test_absent_file_of_rejected_lines_means_none(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path, [[0, 1, 2]])
    job.write_part(0, [0, 1, 2])
    assert job.check(job.plan()).rows == 3


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (lambda p: p[:5] + p[6:], "position 6 stands in no row and was not rejected"),
        (lambda p: p[:5] + p[4:], "position 5 stands in a row twice"),
        (lambda p: p[:-1], "47 rows for the 48 requests"),
        (lambda p: p[1:], "position 1 stands in no row"),
        (lambda p: [p[1], p[0], *p[2:]], "position 1 stands in no row"),
        (lambda p: sorted([*p, 17]), "position 17 stands in a row and in rejected"),
        (
            lambda p: [*p, 52],
            "49 rows for the 48 requests",
        ),
        (lambda p: [], "0 rows for the 48 requests"),
    ],
)
def test_wrong_part_is_named(job: JobOnDisk, positions, message: str) -> None:  # type: ignore[no-untyped-def]
    plan = job.plan()
    job.write_part(0, positions(job.shards[0]))
    with pytest.raises(AccountingError, match=message) as caught:
        job.check(plan)
    assert "100 positions" in str(caught.value)


@pytest.mark.parametrize(
    "rejected",
    [[0, 17, 50, 99], [0, 17, 17, 50, 51, 99], [0, 17, 50, 51, 52, 99], [], [0, 17, 50, 51, 99, 100]],
)
def test_wrong_rejected_lines_are_noticed(job: JobOnDisk, rejected: list[int]) -> None:
    job.write_rejected(rejected)
    with pytest.raises(AccountingError, match=r"position|rejected"):
        job.check(job.plan())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_any_change_of_any_job_is_noticed(tmp_path: Path, data: st.DataObject, seed: int) -> None:
    rng = random.Random(seed)
    total = rng.randint(2, 60)
    rejected = sorted(rng.sample(range(total), rng.randint(0, total - 2)))
    requests = [position for position in range(total) if position not in rejected]
    cuts = sorted(rng.sample(range(1, len(requests)), min(2, len(requests) - 1)))
    shards = [requests[a:b] for a, b in zip([0, *cuts], [*cuts, len(requests)], strict=True)]
    job = JobOnDisk(tmp_path, shards, rejected)
    job.write()
    plan = job.plan()
    assert job.check(plan).rows == len(requests)
    shard = data.draw(st.integers(0, len(shards) - 1))
    positions = list(shards[shard])
    index = data.draw(st.integers(0, len(positions) - 1))
    change = data.draw(st.sampled_from(["drop", "double", "replace"]))
    if change == "drop":
        del positions[index]
    elif change == "double":
        positions.insert(index, positions[index])
    else:
        positions[index] = (positions[index] + data.draw(st.integers(1, total))) % (total + 1)
    if positions == shards[shard]:
        return
    job.write_part(shard, positions)
    with pytest.raises(AccountingError):
        job.check(plan)


@pytest.mark.parametrize("part_bytes", [{}, {0: 2_000}], ids=["unknown", "thought to be small"])
def test_of_a_large_part_two_columns_are_read(tmp_path: Path, part_bytes: dict[int, int]) -> None:
    """Many are read side by side, so that none may hold much of what it does not look at."""
    job = JobOnDisk(tmp_path, [list(range(2_000))], [])
    answers = pa.array(os.urandom(4_000).hex() for _ in range(2_000))
    rows = pa.table(
        {"position": pa.array(range(2_000), pa.int64()), "content": answers, "status": ["ok"] * 2_000}
    )
    place = Path(job.part(0).path)
    place.parent.mkdir()
    pq.write_table(rows, place)
    assert place.stat().st_size > 15_000_000
    disk = DistantDisk(delay_s=0.0)
    assert check_accounts(job.plan(), disk.locate(tmp_path), part_bytes=part_bytes).rows == 2_000
    assert disk.bytes_read < 800_000


def test_a_small_part_is_looked_at_with_one_request(tmp_path: Path) -> None:
    job = JobOnDisk(tmp_path, [[position] for position in range(40)], [])
    job.write()
    disk = DistantDisk(delay_s=0.0)
    sizes = {shard: Path(job.part(shard).path).stat().st_size for shard in range(40)}
    assert check_accounts(job.plan(), disk.locate(tmp_path), part_bytes=sizes).rows == 40
    assert disk.requests < 50


def test_a_part_that_is_gone_is_named_whatever_was_known_of_it(job: JobOnDisk, tmp_path: Path) -> None:
    Path(job.part(1).path).unlink()
    with pytest.raises(AccountingError, match=r"part-00001.parquet: the part of shard 1 is not there"):
        check_accounts(job.plan(), DistantDisk(0.0).locate(tmp_path), part_bytes={1: 2_000})
