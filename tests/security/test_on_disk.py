"""What lies on a disk is for its user alone, and another user of the machine cannot have it lie elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.errors import ConfigError, OpenAIBatchError
from airflow_openai_batch.results.landing_slots import LandingBusyError, take_landing_slot
from airflow_openai_batch.sending.realtime.slots import take_slot
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.storage.this_machine import find_lock_folder
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag


@pytest.fixture
def shared_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of a machine with many users."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def find_open(folder: Path) -> list[str]:
    """What others than the user may look into."""
    places = [folder, *folder.rglob("*")]
    return [str(place) for place in places if stat.S_IMODE(place.lstat().st_mode) & 0o077]


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.parametrize("mode", ["batch", "realtime"])
def test_a_job_is_for_its_user_alone(run_dag: RunDag, tmp_path: Path, mode: str) -> None:
    os.umask(0o022)
    job = Job(tmp_path).write(chat_line(f"review/{n}") for n in range(3))
    job.input.write_text(job.input.read_text() + "no request\n")
    run = run_dag("openai_batch_one_task", job.conf(mode=mode, on_bad_line="reject", max_failed_fraction=1.0))
    assert {path.name for path in job.output.iterdir()} >= {
        "plan.json",
        "rejected.jsonl",
        "raw",
        "results",
        "state",
    }
    assert run.state == "success", run.failures
    assert find_open(job.output) == []


def test_a_disk_that_is_shared_by_a_group_stays_so(tmp_path: Path) -> None:
    """``run_as_user``: whoever sets it up marks a directory above the jobs, as one does on Unix."""
    tmp_path.chmod(0o2770)
    place = resolve_plain(f"{tmp_path}/job/state/0001-created.json")
    place.create_exclusive(b"{}")
    assert stat.S_IMODE((tmp_path / "job" / "state").stat().st_mode) == 0o2770
    assert stat.S_IMODE(Path(place.path).stat().st_mode) == 0o660


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    resolve_plain(f"{tmp_path}/plan.json").write_bytes(b"{}")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "plan.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_what_is_for_people_is_read_by_whoever_may_look_into_its_folder(
    tmp_path: Path, folder: int, file: int
) -> None:
    tmp_path.chmod(folder)
    with resolve_plain(f"{tmp_path}/answers.csv").open_write(for_people=True) as answers:
        answers.write(b"answer\n")
    assert stat.S_IMODE((tmp_path / "answers.csv").stat().st_mode) == file


def test_a_link_in_the_place_of_the_lock_folder_is_not_followed(shared_tmp: Path) -> None:
    elsewhere = shared_tmp.parent / "elsewhere"
    elsewhere.mkdir()
    (shared_tmp / f"airflow-openai-batch-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="no link"), take_slot("https://api", "sk-test"):
        pass
    with pytest.raises(ConfigError, match="set TMPDIR"), take_landing_slot(1, lambda: None):
        pass
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a folder to another user")
def test_a_lock_folder_of_another_user_is_not_used(shared_tmp: Path) -> None:
    folder = shared_tmp / f"airflow-openai-batch-{os.getuid()}"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(ConfigError, match="of user 12345"):
        find_lock_folder()


def test_a_lock_folder_that_others_may_write_to_is_closed(shared_tmp: Path) -> None:
    folder = shared_tmp / f"airflow-openai-batch-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert stat.S_IMODE(find_lock_folder().stat().st_mode) == 0o700


def take_to_land() -> AbstractContextManager[None]:
    return take_landing_slot(1, lambda: None)


def take_to_send() -> AbstractContextManager[None]:
    return take_slot("https://api", "sk-test")


@pytest.mark.parametrize("take", [take_to_land, take_to_send])
def test_a_link_in_the_place_of_a_lock_is_not_followed(
    shared_tmp: Path, take: Callable[[], AbstractContextManager[None]]
) -> None:
    with take():
        pass
    victim = shared_tmp.parent / "victim"
    for lock in find_lock_folder().iterdir():
        lock.unlink()
        lock.symlink_to(victim)
    with pytest.raises(ConfigError, match="no link"), take():
        pass
    assert not victim.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives a file to another user")
@pytest.mark.parametrize("take", [take_to_land, take_to_send])
def test_a_lock_of_another_user_is_not_used(
    shared_tmp: Path, take: Callable[[], AbstractContextManager[None]]
) -> None:
    """Who owns it may hold it for ever."""
    with take():
        pass
    for lock in find_lock_folder().iterdir():
        os.chown(lock, 12345, 12345)
    with pytest.raises(ConfigError, match="of user 12345"), take():
        pass


@pytest.mark.parametrize("take", [take_to_land, take_to_send])
def test_a_place_is_free_again_whatever_was_forked_meanwhile(
    shared_tmp: Path, take: Callable[[], AbstractContextManager[None]]
) -> None:
    """A child has the files of locks open as long as it lives, as a pool of processes may."""
    with contextlib.ExitStack() as children:
        for _ in range(3):
            with take():
                child = os.fork()
                if child == 0:
                    signal.pause()
                    os._exit(0)
            children.callback(os.waitpid, child, 0)
            children.callback(os.kill, child, signal.SIGKILL)


@pytest.mark.parametrize("lock", ["landing.line.lock", "landing.0.lock"])
def test_a_lock_that_never_comes_is_told(shared_tmp: Path, lock: str) -> None:
    with (find_lock_folder() / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # whoever has it hangs
        with (
            pytest.raises(LandingBusyError, match="fuser -v") as told,
            take_landing_slot(1, lambda: None, 0.01),
        ):
            pass
    assert isinstance(told.value, OpenAIBatchError)
    assert not told.value.permanent
    with take_landing_slot(1, lambda: None, 10):
        pass
