"""Splitting into a directory that has a plan already: go on, refuse, or begin anew; and nothing is paid twice."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import msgspec
import pytest

from airflow_openai_batch.errors import BadLinesError, InputChangedError, JobError, JobExistsError
from airflow_openai_batch.job.directory import read_plan
from airflow_openai_batch.job.generations import put_aside
from airflow_openai_batch.job.plan import Plan
from airflow_openai_batch.storage.location import Location, resolve_plain
from fixtures.split_input import read_shards, request_line, split, write_lines

LINES = [request_line(str(number)) for number in range(20)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", LINES)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "job"


def leave_work(job: Path) -> dict[str, bytes]:
    """What later tasks would have left."""
    files = {
        "state/00000/0001-intent.json": b"{}",
        "raw/00000.1.output.jsonl": b"paid\n",
        "results/part-00000.parquet": b"PAR1",
        "failed.jsonl": b"failed\n",
        "report.json": b"{}",
    }
    for name, content in files.items():
        (job / name).parent.mkdir(parents=True, exist_ok=True)
        (job / name).write_bytes(content)
    return files


def touch(path: Path) -> None:
    os.utime(path, (1_000_000_000, 1_000_000_000))


def test_resume_returns_the_plan_without_a_scan(source: Path, job: Path) -> None:
    first = split(source, job, max_requests=7)
    scans: list[object] = []
    again = split(source, job, max_requests=7, now=9e9, progress=scans.append)
    assert (first.created, again.created) == (True, False)
    assert again.plan == first.plan
    assert (scans, again.notices) == ([], ())


def test_limits_of_the_plan_stand_and_that_is_said(source: Path, job: Path) -> None:
    split(source, job, max_requests=7)
    again = split(source, job, max_requests=5, max_tokens=1_000)
    assert [shard.requests for shard in again.plan.shards] == [7, 7, 6]
    (notice,) = again.notices
    assert "7 requests, 100,000,000 bytes, no limit of tokens; asked for were 5 requests" in notice


def test_a_touched_file_is_read_again_and_goes_on(source: Path, job: Path) -> None:
    first = split(source, job, max_requests=7)
    touch(source)
    again = split(source, job, max_requests=3)
    assert again.plan == first.plan
    assert "hold the same requests" in again.notices[-1]
    assert [len(shard) for shard in read_shards(again.plan, job)] == [7, 7, 6]


def test_the_same_requests_compressed_anew_go_on(tmp_path: Path, job: Path) -> None:
    source = tmp_path / "in.jsonl.gz"
    content = "".join(f"{line}\n" for line in LINES).encode()
    source.write_bytes(gzip.compress(content, 9))
    first = split(source, job)
    source.write_bytes(gzip.compress(content, 1))
    assert split(source, job).plan == first.plan


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text(path.read_text() + LINES[0].replace('"0"', '"new"') + "\n"),
        lambda path: path.write_text(path.read_text().replace("Good?", "Evil?")),
    ],
)
def test_changed_input_is_an_error_that_names_the_way_out(source: Path, job: Path, change: object) -> None:
    split(source, job)
    before = source.read_text()
    change(source)  # type: ignore[operator]
    assert source.read_text() != before
    touch(source)
    with pytest.raises(InputChangedError, match=r"changed since it was planned.*on_existing=restart"):
        split(source, job)


def test_another_set_of_files_is_named(source: Path, job: Path, tmp_path: Path) -> None:
    split(tmp_path / "*.jsonl", job)
    write_lines(tmp_path / "more.jsonl", [request_line("more")])
    with pytest.raises(
        InputChangedError, match=r"planned for 1 input file, now there are 2 \(new is .*more\.jsonl\)"
    ):
        split(tmp_path / "*.jsonl", job)


def test_another_file_for_the_same_job_is_named(source: Path, job: Path, tmp_path: Path) -> None:
    split(source, job)
    other = write_lines(tmp_path / "other.jsonl", LINES)
    with pytest.raises(
        InputChangedError,
        match=r"was planned for in\.jsonl, now it is other\.jsonl\. Under its old name .* Choose",
    ):
        split(other, job)


def test_on_existing_fail(source: Path, job: Path) -> None:
    split(source, job, run_key="dag/monday")
    with pytest.raises(JobExistsError, match=r"has a plan already.*on_existing=resume"):
        split(source, job, on_existing="fail", run_key="dag/tuesday")
    assert not split(source, job, on_existing="fail", run_key="dag/monday").created, "a retry is no other run"


def test_restart_puts_everything_aside_and_begins_a_generation(source: Path, job: Path) -> None:
    first = split(source, job, run_key="dag/monday").plan
    files = leave_work(job)
    second = split(source, job, on_existing="restart", run_key="dag/tuesday")
    assert second.created
    assert (second.plan.generation, second.plan.fingerprint) == (2, first.fingerprint)
    assert read_plan(resolve_plain(str(job))) == second.plan
    aside = job / "generations" / "0001"
    assert Plan.from_json((aside / "plan.json").read_bytes()) == first
    for name, content in files.items():
        assert (aside / name).read_bytes() == content
        assert not (job / name).exists()
    third = split(source, job, on_existing="restart", run_key="dag/wednesday").plan
    assert third.generation == 3
    assert sorted(path.name for path in (job / "generations").iterdir()) == ["0001", "0002"]


def test_a_retried_restart_does_not_pay_again(source: Path, job: Path) -> None:
    split(source, job, run_key="dag/monday")
    restarted = split(source, job, on_existing="restart", run_key="dag/tuesday").plan
    files = leave_work(job)
    again = split(source, job, on_existing="restart", run_key="dag/tuesday")
    assert (again.created, again.plan) == (False, restarted)
    assert all((job / name).read_bytes() == content for name, content in files.items())


def test_a_restart_over_bad_input_leaves_the_old_generation_alone(source: Path, job: Path) -> None:
    first = split(source, job).plan
    files = leave_work(job)
    source.write_text("bad\n")
    with pytest.raises(BadLinesError, match=r"in\.jsonl:1"):
        split(source, job, on_existing="restart", run_key="x")
    assert read_plan(resolve_plain(str(job))) == first
    assert all((job / name).read_bytes() == content for name, content in files.items())
    assert not (job / "rejected.jsonl").exists()


@pytest.mark.parametrize("on_existing", ["resume", "restart"])
@pytest.mark.parametrize("moves", range(7))
def test_a_crash_while_moving_is_made_up_for(
    source: Path, job: Path, monkeypatch: pytest.MonkeyPatch, moves: int, on_existing: str
) -> None:
    """Whatever was moved before the crash, nothing of the old generation is taken for the new one's."""
    first = split(source, job, run_key="dag/monday").plan
    files = leave_work(job)
    with monkeypatch.context() as patched:
        fs = type(resolve_plain(str(job)).fs)
        really, done = fs.mv, []

        def crash(self: object, *args: object, **options: object) -> None:
            if len(done) == moves:
                raise KeyboardInterrupt
            done.append(args)
            really(self, *args, **options)

        patched.setattr(fs, "mv", crash)
        with pytest.raises(KeyboardInterrupt) if moves < 6 else pytest.MonkeyPatch.context():
            split(source, job, on_existing="restart", run_key="dag/tuesday")
    again = split(source, job, on_existing=on_existing, run_key="dag/tuesday").plan
    if moves == 0 and on_existing == "resume":
        assert again == first, "nothing had happened yet"
        return
    assert again.generation == 2
    aside = job / "generations" / "0001"
    assert Plan.from_json((aside / "plan.json").read_bytes()) == first
    for name, content in files.items():
        assert (aside / name).read_bytes() == content
        assert not (job / name).exists()


def test_two_splitters_at_once_agree(source: Path, job: Path) -> None:
    """The second finishes while the first still reads."""
    plans: list[Plan] = []

    def run_other(_: object) -> None:
        plans.append(split(source, job, max_requests=7, run_key="other", now=2.0).plan)

    result = split(source, job, max_requests=7, run_key="this", now=1.0, progress=run_other)
    assert not result.created
    assert result.plan == plans[0]
    assert result.plan.created_by == "other"


def test_two_splitters_with_other_limits_do_not_overwrite_each_other(source: Path, job: Path) -> None:
    def run_other(_: object) -> None:
        split(source, job, max_requests=7)

    with pytest.raises(JobExistsError, match="another run wrote a plan"):
        split(source, job, max_requests=5, progress=run_other)
    plan = read_plan(resolve_plain(str(job)))
    assert plan is not None
    assert plan.limits.max_requests == 7


def test_a_stale_rejected_file_goes_with_the_next_split(source: Path, job: Path) -> None:
    source.write_text(source.read_text() + "bad\n")
    with pytest.raises(BadLinesError):
        split(source, job)
    write_lines(source, LINES)
    split(source, job)
    assert sorted(path.name for path in job.iterdir()) == ["plan.json"]


def test_a_plan_that_is_none_is_not_overwritten(source: Path, job: Path) -> None:
    job.mkdir()
    (job / "plan.json").write_text('{"hello": "world"}')
    with pytest.raises(JobError, match=r"is there but is no plan of this package"):
        split(source, job, on_existing="restart")
    assert (job / "plan.json").read_text() == '{"hello": "world"}'


def test_a_plan_of_a_later_release_is_not_misread(source: Path, job: Path) -> None:
    plan = split(source, job).plan
    (job / "plan.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, schema_version=99)))
    with pytest.raises(JobError, match=r"schema version 99, this release reads up to 1. Upgrade"):
        split(source, job)


def test_only_files_of_a_job_are_put_aside(job: Path) -> None:
    for name in (
        "plan.json",
        "state/00000/0001-a.json",
        "notes.txt",
        "mine/raw.jsonl",
        "generations/0001/plan.json",
    ):
        write_lines(job / name, ["x"])
    place: Location = resolve_plain(str(job))
    put_aside(place, 2)
    assert place.names(recursive=True) == [
        "generations/0001/plan.json",
        "generations/0002/plan.json",
        "generations/0002/state/00000/0001-a.json",
        "mine/raw.jsonl",
        "notes.txt",
    ]
