"""What has to hold at the end of each simulation, from the emulator's books and the job directory."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from airflow_openai_batch.errors import (
    BatchRejectedError,
    BudgetError,
    ConfigError,
    FatalAccountError,
    JobError,
    ListError,
    OpenAIBatchError,
)
from airflow_openai_batch.job import directory as names
from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import Event, ShardLedger
from airflow_openai_batch.job.shard_state import Content
from airflow_openai_batch.report.row_check import check_accounts
from airflow_openai_batch.sending.policy import Policy
from airflow_openai_batch.sending.remote_cleanup import sweep_files
from simulation.disk import locate
from simulation.job import OUTPUT, expect_content, make_lines
from simulation.tasks import connect
from simulation.waiting import OVER
from simulation.world import START, Process

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.testing.batches import Batch
    from simulation.tasks import Job

JSON = dict[str, Any]
_COLUMNS = ["position", "custom_id", "status", "content", "attempts"]


@dataclass(slots=True)
class Verdict:
    """What one simulation saw, for the sums over many."""

    sends: int = 0
    kills: int = 0
    duplicates: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    virtual_s: float = 0.0

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            sends=self.sends + other.sends,
            kills=self.kills + other.kills,
            duplicates=self.duplicates + other.duplicates,
            failures=self.failures + other.failures,
            faults=self.faults + other.faults,
            virtual_s=self.virtual_s + other.virtual_s,
        )


def judge(job: Job) -> Verdict:
    """:raises AssertionError: or what the package's own accounting raises, if anything does not hold."""
    output = _open_output(job)
    plan = names.read_plan(output)
    assert plan is not None
    faults, deleted = _count_faults(job), _count_deleted(job)
    unknown = deleted + faults["line missing"]
    rows = _read_rows(plan, output)
    _check_remote_files(job, plan, output)
    _check_rows(job, rows)
    _check_money(job, deleted)
    _check_budget(job, unknown)
    _check_ledgers(job, plan, output)
    for shard in plan.shards:
        _check_kept(job, shard.shard, _read_events(output, shard.shard))
    _check_failures(job)
    return Verdict(
        sends=len(list(job.emulator.batches)),
        kills=job.world.kills,
        duplicates=sum(len(extra) for _, extra in _find_duplicates(job)),
        failures=Counter(type(failure.error).__name__ for failure in job.failures),
        faults=faults,
        virtual_s=job.world.now() - START,
    )


def _open_output(job: Job) -> Location:
    job.world.calm_down()
    return locate(job.objects, Process(job.world, "verdict"), OUTPUT)


def _check_remote_files(job: Job, plan: Plan, output: Location) -> None:
    """What the shards' own clean-up left, publishing sweeps; then nothing of ours is at OpenAI.

    Excused are result files, and only because they go by themselves: those that OpenAI lists and then says not to
    know when they are to be deleted (``file_lag``), those of a batch that the list does not show yet, and those of one
    that was only cancelled by this very look.
    """
    job.emulator.script.remove()
    excused = {file.id for file in job.emulator.files.alive if file.lag > 0}
    settings = job.emulator.settings
    # Else a batch is not known for ours once its input is deleted.
    knows_all = settings.keeps_metadata and settings.rules.keeps_metadata
    for batch in job.emulator.batches:
        if not knows_all or batch.created_at + job.world.scenario.list_lag_s > job.world.now():
            excused.update(batch.result_ids)
    process, looked_at = Process(job.world, "publish"), job.world.now()
    sends = {
        shard.shard: max(event.send for event in _read_events(output, shard.shard)) for shard in plan.shards
    }
    with connect(job, process) as client:
        sweep_files(client, plan, OUTPUT, sends)
    for file in job.emulator.files.alive:
        assert file.id in excused or file.created_at >= looked_at, f"{file.filename} is left at OpenAI"
        assert file.expires_at is not None, f"{file.filename} is left at OpenAI for ever"


def _read_events(output: Location, shard: int) -> list[Event]:
    return ShardLedger(output.child(names.state_folder(shard))).read()


def _read_rows(plan: Plan, output: Location) -> list[JSON]:
    check_accounts(plan, output)
    rows: list[JSON] = []
    for shard in plan.shards:
        with output.child(names.part(shard.shard)).open_read() as file:
            rows.extend(pq.ParquetFile(file).read(_COLUMNS, use_threads=False).to_pylist())
    return rows


def _check_rows(job: Job, rows: list[JSON]) -> None:
    scenario = job.world.scenario
    assert [row["position"] for row in rows] == list(range(scenario.requests))
    unlucky = _find_unlucky(job)
    for number, row in enumerate(rows):
        assert row["custom_id"] == f"r-{number}"
        assert row["attempts"] <= scenario.max_attempts, row
        if row["status"] == "ok":
            assert row["content"] == expect_content(number), row
        else:
            assert row["custom_id"] in unlucky, f"there is no good answer, and no reason for it: {row}"


def _find_unlucky(job: Job) -> set[str]:
    """The requests that something drawn may have left without a good answer."""
    scenario = job.world.scenario
    everyone = {f"r-{number}" for number in range(scenario.requests)}
    if scenario.finish_within_s is not None and scenario.on_deadline == "publish":
        return everyone
    if any(fault.get("deleted") or fault.get("scope") == "realtime" for fault in scenario.faults):
        return everyone
    by_call = any(route in fault.get("http", "") for fault in scenario.faults for route in ("chat", "**"))
    if by_call and (scenario.mode != "batch" or scenario.on_deadline in ("flex", "realtime")):
        return everyone
    return {custom_id for fault in scenario.faults for custom_id in fault.get("custom_id", ())}


def _check_money(job: Job, deleted: int) -> None:
    """No good answer twice, but for what nobody could know of.

    That is: duplicates of one send that a lagging list kept from being found, and answers in a file that somebody
    deleted.
    """
    books, duplicates = job.emulator.books, _find_duplicates(job)
    duplicated = {custom_id for _, extra in duplicates for custom_id in _ids_of(job, extra)}
    for custom_id, good, _ in books.paid_twice(make_lines(job.world.scenario.requests).splitlines()):
        lost = deleted + job.lost_answers[custom_id]
        assert custom_id in duplicated or good <= 1 + lost, (
            f"a good answer was paid {good} times: {custom_id}"
        )
    for key, extra in duplicates:
        _check_duplicates(job, key, extra)


def _check_budget(job: Job, unknown: int) -> None:
    """No send above ``max_cost_usd``, where the job could know what it had cost.

    :param unknown: answers that were billed and are in no file that OpenAI names.
    """
    unknown += job.lost_answers.total() + len(_find_duplicates(job))
    assert job.purse.excess is None or unknown, job.purse.excess


def _count_deleted(job: Job) -> int:
    """Batches whose output somebody deleted before it could be fetched."""
    rules = job.emulator.script.rules
    return sum(rule.hits for rule in rules if "output" in getattr(rule.fault, "deleted", ()))


def _find_duplicates(job: Job) -> list[tuple[str, list[Batch]]]:
    """By job_key, the batches beyond the first that were not refused."""
    by_key: defaultdict[str, list[Batch]] = defaultdict(list)
    for batch in job.emulator.batches:
        if batch.status != "failed":
            by_key[(batch.metadata or {})["job_key"]].append(batch)
    return [(key, found[1:]) for key, found in by_key.items() if len(found) > 1]


def _ids_of(job: Job, batches: list[Batch]) -> set[str]:
    scenario = job.world.scenario
    per_shard = scenario.max_requests_per_shard
    shards = {int((batch.metadata or {})["shard"]) for batch in batches}
    return {f"r-{number}" for number in range(scenario.requests) if number // per_shard in shards}


def _check_duplicates(job: Job, key: str, extra: list[Batch]) -> None:
    """There may be a second batch only where the list did not show the first one yet."""
    lag_s = job.world.scenario.list_lag_s
    found = [batch for batch in job.emulator.batches if (batch.metadata or {})["job_key"] == key]
    for batch in extra:
        looked_at = job.world.looked_at[batch.id]
        for former in found[: found.index(batch)]:
            shown_at = former.created_at + lag_s
            assert former.created_at <= looked_at, (
                f"{_name(batch)} was created although another run was about to create {_name(former)}"
            )
            assert looked_at < shown_at, (
                f"{_name(batch)} was created although the list showed {_name(former)}"
            )


def _check_kept(job: Job, shard: int, events: list[Event]) -> None:
    """Of the batches of a send one is kept, and the others were cancelled as soon as the list showed them.

    Unless that was after the send had ended: then nobody looks any more.
    """
    kept = {event.send: event.batch_id for event in events if event.kind == "created"}
    cancelled = {event.batch_id for event in events if event.kind == "duplicate"}
    # Where nothing of it may have been paid, the next send goes out.
    ended_at = {event.send: event.at for event in events if event.kind in ("ended", "refused")}
    for batch in job.emulator.batches:
        told = batch.metadata or {}
        if int(told["shard"]) != shard or batch.status == "failed":
            continue
        assert batch.status in (*OVER, "cancelling"), f"{_name(batch)} goes on"
        if batch.id != kept.get(int(told["send"])) and batch.id not in cancelled:
            shown_at = batch.created_at + job.world.scenario.list_lag_s
            assert shown_at > ended_at[int(told["send"])], f"nobody took notice of {_name(batch)}"


def _name(batch: Batch) -> str:
    return f"{batch.id[:12]} ({batch.created_at - START:.1f} s)"


def _check_ledgers(job: Job, plan: Plan, output: Location) -> None:
    for shard in plan.shards:
        content = Content(sha256=shard.sha256, bytes=shard.bytes, requests=shard.requests, input_tokens=0)
        events = _read_events(output, shard.shard)
        state = fold_events(content, events)
        assert state.done is not None, f"shard {shard.shard} is not done: {[e.kind for e in events]}"
        sends = sorted({event.send for event in events})
        assert sends == list(range(1, len(sends) + 1)), f"sends are numbered with gaps: {sends}"


def _check_failures(job: Job) -> None:
    """A task fails for good only where something that was drawn explains it."""
    for failure in job.failures:
        assert _is_explained(job, failure.error), (
            f"{failure.task} failed at {failure.at - START:.1f}: {type(failure.error).__name__}: {failure.error}"
        )


def _is_explained(job: Job, error: Exception) -> bool:
    scenario = job.world.scenario
    # Together gives no codes, so that an account that cannot pay is told by its words alone.
    codeless = scenario.settings.get("server") == "together"
    if isinstance(error, FatalAccountError) or (codeless and isinstance(error, BatchRejectedError)):
        codes = ("insufficient_quota", "billing_hard_limit_reached")
        return bool(scenario.spells) or any(
            fault.get("status") in (401, 403) or fault.get("code") in codes for fault in scenario.faults
        )
    if isinstance(error, BudgetError):
        return scenario.max_cost_usd is not None
    if isinstance(error, ConfigError) and "there is no flex for" in str(error):
        return scenario.mode == "flex" and not scenario.settings.get("flex_models")
    if isinstance(error, OpenAIBatchError) and not error.permanent:
        return bool(scenario.spells) or scenario.count_faults("http") > 0
    if isinstance(error, JobError) and "finish_within_h" in str(error):
        return scenario.finish_within_s is not None
    if isinstance(error, JobError) and "was to be cancelled" in str(error):
        hangs = [
            scenario.settings["cancelling_s"],
            *(fault.get("cancelling_s", 0.0) for fault in scenario.faults),
        ]
        return max(hangs) > Policy().grace_s
    if isinstance(error, JobError) and "makes no progress" in str(error):
        at_odds = (
            scenario.finish_within_s is not None and len(scenario.runs) > 1
        )  # one cancels what another sends
        return at_odds or scenario.count_faults("batch") + scenario.count_faults("line") > 0
    if isinstance(error, ListError):
        return any(fault.get("forget_after") for fault in scenario.faults)
    if isinstance(error, JobError) and "Nothing is sent again" in str(error):
        spoilt = ("file_ids_late_s", "keep_lines", "page", "truncate_bytes")
        return any(fault.get(name) is not None for fault in scenario.faults for name in spoilt)
    return job.world.storage_failures > 0


def _count_faults(job: Job) -> Counter[str]:
    counts: Counter[str] = Counter()
    for rule in job.emulator.script.rules:
        fault = rule.fault
        kind = next(name for name in ("batch", "line", "http") if hasattr(fault, name))
        counts[f"{kind} {getattr(fault, kind)}"] += rule.hits
    return counts
