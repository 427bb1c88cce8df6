"""The report adds up, survives a trip through JSON, and reads well whatever the ids are."""

from __future__ import annotations

import re

import msgspec
import pytest

from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.job.plan import Counts, Limits, Plan, Shard, Source
from airflow_openai_batch.report.markdown import escape, write_markdown
from airflow_openai_batch.report.report import Report, SampleLine, asset_extra, build_report
from airflow_openai_batch.report.row_check import RowCheck
from airflow_openai_batch.results.landing_summary import (
    Example,
    LandingSummary,
    Problem,
    ShardSummary,
    Spending,
    Tokens,
)
from airflow_openai_batch.results.phases import measure_phases
from airflow_openai_batch.wording import format_duration, format_usd

START = 1_790_000_000.0


def shard(number: int) -> Shard:
    return Shard(
        shard=number,
        model="gpt-4o-mini",
        endpoint="/v1/chat/completions",
        requests=1_000,
        bytes=1_000,
        input_tokens=100_000,
        sha256="",
        first_position=number * 1_000,
    )


PLAN = Plan(
    fingerprint="ab" * 32,
    generation=2,
    created_at=START,
    sources=(Source(uri="s3://bucket/in.jsonl", size=1, etag="e"),),
    limits=Limits(max_requests=1_000, max_bytes=1, max_tokens=None),
    counts=Counts(positions=3_002, requests=3_000, rejected=2, blank=1),
    shards=(shard(0), shard(1), shard(2)),
)


def summary(
    number: int, *, failed: int = 0, code: str = "invalid_value", ids: tuple[str, ...] = ("a",)
) -> ShardSummary:
    examples = tuple(Example(custom_id=custom_id, message="No.") for custom_id in ids)
    return ShardSummary(
        shard=number,
        batch_ids=(f"batch_{number}",),
        phases_s={"in_progress": 60.0 * (number + 1)},
        landed=LandingSummary(
            requests=1_000,
            rows={"ok": 1_000 - failed} | ({"failed": failed} if failed else {}),
            problems=(Problem(code=code, count=failed, examples=examples),) if failed else (),
            spending=Spending(
                answers=1_000, tokens=Tokens(input=99_000, output=50_000), cost_usd=1.5, standard_cost_usd=3.0
            ),
            attempts={1: 1_000},
        ),
    )


def build(*summaries: ShardSummary, accounts: RowCheck | None = None) -> Report:
    return build_report(
        PLAN, summaries, job_uri="s3://bucket/out", created_at=START + 9_000, accounts=accounts
    )


def test_report_adds_up() -> None:
    report = build(summary(0, failed=7), summary(1, failed=3, ids=("b", "c", "d", "e")), summary(2))
    assert report.complete
    assert (report.counts.good, report.counts.bad, report.counts.unfinished) == (2_990, 10, 0)
    assert report.counts.bad_fraction == pytest.approx(10 / 3_000)
    assert report.tokens == Tokens(input=297_000, output=150_000)
    assert (report.cost.actual_usd, report.cost.standard_usd, report.cost.saving_usd) == (4.5, 9.0, 4.5)
    assert report.cost.estimated_usd == pytest.approx(0.3 * 0.075)
    problem = report.problems[0]
    assert problem.count == 10
    assert [example.custom_id for example in problem.examples] == ["a", "b", "c"]
    spread = report.phases["in_progress"]
    assert (spread.min_s, spread.median_s, spread.max_s, spread.shards) == (60, 120, 180, 3)


def test_shard_that_is_not_done_is_said_and_counted() -> None:
    report = build(summary(0), ShardSummary(shard=1, state="waiting for batch_1"))
    assert not report.complete
    assert report.counts.unfinished == 2_000
    assert [line.state for line in report.shards] == ["done", "waiting for batch_1", "not begun"]
    text = write_markdown(report)
    assert "Not complete: 2,000 of 3,000 requests" in text
    assert "Shards that are not done: 1, 2." in text


def test_report_and_summary_survive_json() -> None:
    one = summary(0, failed=2)
    assert ShardSummary.from_dict(msgspec.json.decode(msgspec.json.encode(one.to_dict()))) == one
    report = build(one, summary(1), summary(2))
    assert Report.from_json(report.to_json()) == report


def test_asset_event_says_counts_and_cost() -> None:
    extra = asset_extra(build(summary(0, failed=1), summary(1), summary(2)))
    assert extra["rows"] == {"failed": 1, "ok": 2_999}
    assert extra["cost_usd"] == 4.5
    assert len(msgspec.json.encode(extra)) < 1_000


def test_unknown_price_is_unknown_not_zero() -> None:
    unknown = LandingSummary(
        requests=1_000,
        rows={"ok": 1_000},
        spending=Spending(answers=1_000, tokens=Tokens(input=5), unpriced=1_000),
        unpriced_models=("llama-at-home",),
    )
    report = build_report(
        PLAN, [ShardSummary(shard=0, landed=unknown)], job_uri="out", created_at=START, accounts=None
    )
    assert report.cost.actual_usd is None
    assert any(
        "1,000 answers are not in the costs" in note and "llama-at-home" in note for note in report.notes
    )
    assert "| **actual** | **unknown** |" in write_markdown(report)


def test_markdown_is_readable_by_a_person() -> None:
    accounts = RowCheck(positions=3_002, rows=3_000, rows_by_status={}, rejected=2)
    text = write_markdown(build(summary(0, failed=1_000), summary(1), summary(2), accounts=accounts))
    assert (
        "**2,000 of 3,002 lines have a good answer** (66.62%); 2 were rejected before sending. "
        "Cost: $4.500, $4.500 less than in real time." in text
    )
    assert "| rejected before sending |  | 2 | 0.07% |" in text
    assert "| **all lines** |  | **3,002** |  |" in text
    assert "| blank lines, not counted |  | 1 |  |" in text
    assert "2 h 30 min after the split" in text
    assert "| failed | `failed` | 1,000 | 33.31% |" in text
    assert "| in progress | 3 | 1 min | 2 min | 3 min |" in text
    assert "Every one of the 3,002 positions of the input was found in exactly one place" in text
    assert "2 lines of the input could not be requests" in text


@pytest.mark.parametrize(
    "evil", ["a|b", "a\nb", "`rm`", "<script>alert(1)</script>", "*x* _y_ [z](u)", "\\|", "\x1b[31m"]
)
def test_ids_cannot_break_the_table(evil: str) -> None:
    text = write_markdown(build(summary(0, failed=1, ids=(evil,)), summary(1), summary(2)))
    rows = [line for line in text.splitlines() if line.startswith("| invalid_value")]
    assert len(rows) == 1
    cells = rows[0].replace("\\\\", "").replace("\\|", "").split("|")
    assert len(cells) == 6
    assert "<script>" not in text
    assert "\x1b" not in text


def test_nothing_that_comes_from_outside_is_mark_up() -> None:
    """Whatever the template shows: it is escaped unless the template says otherwise."""
    evil = "<img src=x> [a](b) `c` {{ 7 }} {% raw %} &lt;b&gt;"
    whole = build(summary(0, failed=1, code=evil, ids=(evil,)), summary(1), summary(2))
    line = msgspec.structs.replace(whole.shards[0], state=evil, model=evil, batch_ids=(evil, evil))
    sample = SampleLine(requests=1, answers=1, outlook=evil)
    report = msgspec.structs.replace(whole, job=evil, shards=(line,), notes=(evil,), sample=sample)
    text = write_markdown(report)
    assert text.count("{{ 7 }} {% raw %} &lt;b") == 9
    assert not re.search(r"(?<!\\)[\[\]<>]", text)
    assert not re.search(r"(?<!\\)`c", text)


def test_thousands_of_shards_keep_the_page_short_and_the_bad_ones_on_it() -> None:
    plan = msgspec.structs.replace(PLAN, shards=tuple(shard(i) for i in range(2_000)))
    summaries = [summary(i, failed=1 if i == 1_777 else 0) for i in range(2_000)]
    text = write_markdown(build_report(plan, summaries, job_uri="out", created_at=START))
    assert "| 1777 | done |" in text
    assert "1,950 more shards" in text
    assert len(text) < 20_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "250 ms"),
        (59.6, "1 min"),
        (12, "12 s"),
        (245, "4 min 5 s"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_humane(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "unknown"),
        (0, "$0.00"),
        (1234.567, "$1,234.57"),
        (0.0234, "$0.023"),
        (0.00000123, "$0.0000012"),
    ],
)
def test_dollars_keep_small_sums_visible(amount: float | None, text: str) -> None:
    assert format_usd(amount) == text


def test_amounts_that_are_read_together_have_the_same_number_of_digits() -> None:
    amounts = (0.003, 0.0061, None, 0.0)
    assert [format_usd(amount, beside=amounts) for amount in amounts] == [
        "$0.0030",
        "$0.0061",
        "unknown",
        "$0.0000",
    ]
    assert [format_usd(amount, beside=(4.5, 0.0000002)) for amount in (4.5, 0.0000002)] == [
        "$4.5000",
        "$0.0000",
    ]


def test_a_report_of_an_input_without_bad_lines_speaks_of_requests() -> None:
    plan = msgspec.structs.replace(PLAN, counts=Counts(positions=3_000, requests=3_000, rejected=0, blank=0))
    text = write_markdown(
        build_report(plan, [summary(0), summary(1), summary(2)], job_uri="out", created_at=START)
    )
    assert "**3,000 of 3,000 requests have a good answer** (100.00%). Cost: " in text
    assert "| **all requests** |  | **3,000** |  |" in text
    assert "rejected" not in text
    assert "blank" not in text


def test_words_with_underscores_stay_as_they_are() -> None:
    assert escape("s3://bucket/run_1/rate_limit_exceeded") == "s3://bucket/run_1/rate_limit_exceeded"


def test_phases_are_measured_over_all_sends() -> None:
    times = {
        "created_at": START + 100,
        "in_progress_at": START + 110,
        "finalizing_at": START + 400,
        "completed_at": START + 405,
    }
    expired = {"created_at": START + 1_000, "in_progress_at": START + 1_001, "expired_at": START + 1_101}
    events = [
        Event(kind="uploaded", send=1, at=START),
        Event(kind="intent", send=1, at=START + 1),
        Event(kind="refused", send=1, at=START + 20, status="queue_full"),
        Event(kind="intent", send=2, at=START + 99),
        Event(kind="ended", send=2, at=START + 420, times=times),
        Event(kind="landed", send=2, at=START + 430, leftover=5),
        Event(kind="uploaded", send=3, at=START + 990),
        Event(kind="ended", send=3, at=START + 1_110, times=expired),
        Event(kind="landed", send=3, at=START + 1_112),
        Event(kind="done", send=3, at=START + 1_115),
    ]
    assert measure_phases(events) == {
        "queued": 110.0,
        "validating": 11.0,
        "in_progress": 390.0,
        "finalizing": 5.0,
        "landing": 15.0,
    }
