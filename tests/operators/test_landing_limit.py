"""At most so many shards land at once on a machine, whatever processes they run in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.results import landing_slots
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

SETTING = "AIRFLOW__OPENAI_BATCH__LANDINGS_PER_MACHINE"


class Machine:
    """Processes that land, with a place for locks of their own."""

    def __init__(self, folder: Path, limit: str) -> None:
        self.folder = folder
        (folder / "tmp").mkdir()
        self._environment = {**os.environ, SETTING: limit, "TMPDIR": str(folder / "tmp")}
        self.processes: list[subprocess.Popen[bytes]] = []
        self._holders: list[subprocess.Popen[bytes]] = []

    def land(self, name: str, *, stays_s: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fixtures.landing_process", str(self.folder), name, str(stays_s)]
        process = subprocess.Popen(command, env=self._environment, cwd=Path(__file__).parents[1])
        self.processes.append(process)
        return process

    def fill(self) -> None:
        """Have both places held until `kill_holders`, so that whoever comes has to wait."""
        self._holders = [self.land(name, stays_s=600) for name in ("held-1", "held-2")]
        self.wait_for(("held-1", "landing"), ("held-2", "landing"))

    def kill_holders(self) -> None:
        for process in self._holders:
            process.kill()
            process.wait()
            self.processes.remove(process)

    def notes(self) -> list[tuple[str, str]]:
        """Who did what, in order."""
        place = self.folder / "notes.txt"
        lines = place.read_text().splitlines() if place.exists() else []
        return [(name, what) for name, _, what in (line.partition(" ") for line in lines)]

    def others_notes(self) -> list[tuple[str, str]]:
        """Without those of the holders."""
        return [(name, what) for name, what in self.notes() if not name.startswith("held-")]

    def wait_for(self, *notes: tuple[str, str]) -> None:
        began = time.monotonic()
        while not set(notes) <= set(self.notes()):
            assert time.monotonic() - began < 120, self.notes()
            time.sleep(0.05)

    def wait_for_all(self) -> None:
        assert [process.wait(120) for process in self.processes] == [0] * len(self.processes)

    def most_at_once(self) -> int:
        at_once = most = 0
        for _, what in self.others_notes():
            at_once += {"landing": 1, "landed": -1}.get(what, 0)
            most = max(most, at_once)
        return most

    def order(self) -> list[str]:
        """In which they landed."""
        return [name for name, what in self.others_notes() if what == "landing"]


@pytest.fixture
def two_at_once(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, "2")
    yield machine
    for process in machine.processes:
        process.kill()
        process.wait()


@pytest.mark.long
def test_eight_processes_land_two_at_a_time_and_all_are_done(two_at_once: Machine) -> None:
    two_at_once.fill()
    names = [f"shard-{number}" for number in range(8)]
    for name in names:
        two_at_once.land(name, stays_s=0.5)
    two_at_once.wait_for(*((name, "waits") for name in names))
    two_at_once.kill_holders()
    two_at_once.wait_for_all()
    assert two_at_once.most_at_once() == 2
    assert sorted(two_at_once.order()) == names
    assert all((two_at_once.folder / name / "results" / "part-00000.parquet").exists() for name in names)
    waits = [name for name, what in two_at_once.notes() if what == "waits"]
    assert sorted(waits) == names, "said once by each that waits"


@pytest.mark.long
def test_a_holder_that_is_killed_frees_its_place_and_so_does_one_that_waits(two_at_once: Machine) -> None:
    holders = [two_at_once.land(name, stays_s=600) for name in ("a", "b")]
    two_at_once.wait_for(("a", "landing"), ("b", "landing"))
    first = two_at_once.land("first", stays_s=0)
    two_at_once.wait_for(("first", "waits"))
    two_at_once.land("c", stays_s=0)
    two_at_once.wait_for(("c", "waits"))
    first.kill()
    holders[0].kill()
    two_at_once.wait_for(("c", "landed"))
    assert two_at_once.order()[2:] == ["c"]
    assert holders[1].poll() is None


@pytest.mark.long
def test_they_land_in_the_order_in_which_they_came(two_at_once: Machine) -> None:
    holders = [two_at_once.land(name, stays_s=600) for name in ("a", "b")]
    two_at_once.wait_for(("a", "landing"), ("b", "landing"))
    names = ["third", "fourth", "fifth", "sixth", "seventh"]
    for name in names:
        two_at_once.land(name, stays_s=0.3)
        two_at_once.wait_for((name, "waits"))
    holders[0].kill()
    two_at_once.wait_for(*((name, "landed") for name in names))
    assert two_at_once.order()[2:] == names


@pytest.mark.long
def test_whoever_waits_uses_no_processor(two_at_once: Machine) -> None:
    for name in ("a", "b"):
        two_at_once.land(name, stays_s=600)
    two_at_once.wait_for(("a", "landing"), ("b", "landing"))
    waiting = [two_at_once.land(name, stays_s=0) for name in ("c", "d")]
    two_at_once.wait_for(("c", "waits"), ("d", "waits"))
    before = [cpu_s(process.pid) for process in waiting]
    time.sleep(2)
    used = [cpu_s(process.pid) - was for process, was in zip(waiting, before, strict=True)]
    assert max(used) < 0.1


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.long
@pytest.mark.usefixtures("openai_conn")
@pytest.mark.parametrize("dag_id", ["openai_batch", "openai_batch_one_task"])
def test_a_run_with_one_place_lands_all_its_shards_one_of_them_in_real_time(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dag_id: str
) -> None:
    monkeypatch.setenv(SETTING, "1")
    job = Job(tmp_path).write(chat_line(f"r/{n}") for n in range(7))
    assert run_dag(dag_id, job.conf(mode="auto", realtime_threshold=2)).state == "success"
    assert [row["sent_as"] for row in job.rows()] == ["batch"] * 5 + ["realtime"] * 2


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.parametrize("limit", ["0", "many"])
def test_a_limit_that_is_no_number_stops_a_run_before_anything_is_sent(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv(SETTING, limit)
    job = Job(tmp_path).write([chat_line("a")])
    run = run_dag("openai_batch_one_task", job.conf())
    assert "[openai_batch] landings_per_machine" in run.errors("shard", map_index=0)
    assert openai_server.batches() == []


def test_where_nothing_is_configured_memory_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container sees the cores of its host, and dies at its own limit."""
    slots = landing_slots.count_default_slots()
    assert 1 <= slots <= (os.cpu_count() or 1)
    container = tmp_path / "memory.max"
    container.write_text("500000000\n")
    monkeypatch.setattr(landing_slots, "_CGROUP_LIMITS", (container,))
    assert landing_slots.count_default_slots() == 1
