"""``report.md``: the report as a person likes to read it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_openai_batch.results.phases import PHASES
from airflow_openai_batch.wording import format_duration, format_usd, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_openai_batch.report.report import Report, ReportCost, ReportCounts, ShardLine

SHARDS_LISTED = 50
"""Shards with a line of their own: those with something wrong first; the rest are in ``report.json``."""
CELL_CHARS = 300
_MARKUP = re.compile(r"[\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_])")
"""Characters with a meaning in Markdown; an underscore inside a word has none."""
PHASE_NAMES = {
    "queued": "waiting for its turn",
    "validating": "validating",
    "in_progress": "in progress",
    "finalizing": "finalizing",
    "landing": "landing",
}
STATUS_NAMES = {
    "ok": "good answers",
    "failed": "failed",
    "invalid_output": "answers that break their format",
    "missing": "missing",
}


def write_markdown(report: Report) -> str:
    """The report as Markdown; what comes from outside (ids, messages, URIs) is escaped."""
    sections = [_head(report), _requests(report), _problems(report), _money(report), _time(report)]
    sections += [_shards(report), _notes(report), _files(report)]
    return "\n".join(line for section in sections for line in section)


def escape(text: str) -> str:
    """Text from outside as one cell of a table: one line, and no mark-up of its own."""
    line = " ".join(text[:CELL_CHARS].split())
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line
    )
    return _MARKUP.sub(r"\\\g<0>", line) + ("…" if len(text) > CELL_CHARS else "")


def _head(report: Report) -> Iterator[str]:
    counts = report.counts
    yield "# OpenAI batch run"
    yield ""
    if report.sample is not None:
        yield (
            f"**A sample of {number_of(report.sample.requests, 'request')} has landed: the job has "
            f"{number_of(report.sample.answers, 'answer')} so far, {format_usd(report.cost.unfinished_usd)} of their "
            "cost for shards that are not done.** Trigger it again with the same output and a larger sample, or none, "
            "to send the rest. What follows counts shards that are done."
        )
        yield ""
        yield escape(report.sample.outlook)
        yield ""
    elif not report.complete:
        yield f"**Not complete: {counts.unfinished:,} of {counts.requests:,} requests are in unfinished shards.**"
        yield ""
    yield f"{_headline(counts)}. {_price(report.cost)}"
    yield ""
    yield f"* job: {escape(report.job)}"
    yield f"* fingerprint {report.fingerprint[:16]}, generation {report.generation}"
    written = datetime.fromtimestamp(report.created_at, UTC)
    took = format_duration(max(0.0, report.created_at - report.started_at))
    yield f"* written {written:%Y-%m-%d %H:%M:%S} UTC, {took} after the split"
    yield ""


def _headline(counts: ReportCounts) -> str:
    """Of everything that was in the input: a rejected line has no good answer either."""
    total = number_of(counts.positions, "line" if counts.rejected else "request")
    share = f" ({counts.good / counts.positions:.2%})" if counts.positions else ""
    have = "has" if counts.good == 1 else "have"
    text = f"**{counts.good:,} of {total} {have} a good answer**{share}"
    if not counts.rejected:
        return text
    return f"{text}; {counts.rejected:,} {'was' if counts.rejected == 1 else 'were'} rejected before sending"


def _price(cost: ReportCost) -> str:
    amounts = _read_together(cost)
    price = format_usd(cost.actual_usd, beside=amounts)
    more = f" {format_usd(cost.unfinished_usd)} more was paid for shards that are not done." * (
        cost.unfinished_usd > 0
    )
    if not cost.saving_usd:
        return f"Cost: {price}.{more}"
    return f"Cost: {price}, {format_usd(cost.saving_usd, beside=amounts)} less than in real time.{more}"


def _read_together(cost: ReportCost) -> tuple[float | None, ...]:
    return (cost.estimated_usd, cost.actual_usd, cost.replaced_usd, cost.standard_usd, cost.saving_usd)


def _requests(report: Report) -> Iterator[str]:
    counts = report.counts
    rows = [
        (STATUS_NAMES.get(status, escape(status)), status, number) for status, number in counts.rows.items()
    ]
    rows.sort(key=lambda row: (row[1] != "ok", -row[2]))
    yield "## Requests"
    yield ""
    if counts.unfinished:
        rows.append(("in unfinished shards", "", counts.unfinished))
    if counts.rejected:
        rows.append(("rejected before sending", "", counts.rejected))
    noun = "lines" if counts.rejected else "requests"
    table = [
        [name, f"`{status}`" if status else "", f"{number:,}", _share(number, counts.positions)]
        for name, status, number in rows
    ]
    table.append([f"**all {noun}**", "", f"**{counts.positions:,}**", ""])
    if counts.blank_lines:
        table.append(["blank lines, not counted", "", f"{counts.blank_lines:,}", ""])
    yield from _table(["what became of it", "status", noun, "share"], table, "llrr")
    if counts.rejected:
        lines = number_of(counts.rejected, "line")
        yield f"{lines} of the input could not be requests; see `rejected.jsonl`."
        yield ""
    if len(report.attempts) > 1 or any(number > 1 for number in report.attempts):
        text = ", ".join(f"{number:,} with {attempts}" for attempts, number in report.attempts.items())
        yield f"Requests by attempts: {text}."
        yield ""


def _problems(report: Report) -> Iterator[str]:
    if not report.problems:
        return
    yield "## Problems"
    yield ""
    rows = []
    for problem in report.problems:
        for index, example in enumerate(problem.examples):
            first = index == 0
            rows.append(
                [
                    escape(problem.code) if first else "",
                    f"{problem.count:,}" if first else "",
                    escape(example.custom_id),
                    escape(example.message),
                ]
            )
    yield from _table(["code", "requests", "for example", "message"], rows, "lrll")


def _money(report: Report) -> Iterator[str]:
    cost = report.cost
    tokens = report.tokens
    yield "## Tokens and cost"
    yield ""
    yield from _table(
        ["tokens", "number"],
        [
            ["input, as planned", f"{report.planned_input_tokens:,}"],
            ["input, as billed", f"{tokens.input:,}"],
            ["of which read from the cache", f"{tokens.cached:,}"],
            ["of which written to the cache", f"{tokens.written:,}"],
            ["output", f"{tokens.output:,}"],
            ["of which reasoning", f"{tokens.reasoning:,}"],
        ],
        "lr",
    )
    basis = (
        f"with {cost.estimated_output_tokens:,} output tokens"
        if cost.estimated_output_tokens
        else "input alone"
    )
    amounts = _read_together(cost)
    actual = format_usd(cost.actual_usd, beside=amounts)
    rows = [
        [f"estimated before sending ({basis})", format_usd(cost.estimated_usd, beside=amounts)],
        ["**actual**", f"**{actual}**"],
        ["of which replaced by a later answer", format_usd(cost.replaced_usd, beside=amounts)],
        ["the same in real time", format_usd(cost.standard_usd, beside=amounts)],
        ["saved", format_usd(cost.saving_usd, beside=amounts)],
    ]
    if not cost.replaced_usd:
        del rows[2]
    yield from _table(["cost", "US dollars"], rows, "lr")


def _time(report: Report) -> Iterator[str]:
    if not report.phases:
        return
    yield "## Time in each phase"
    yield ""
    ordered = [phase for phase in PHASES if phase in report.phases]
    yield from _table(
        ["phase", "shards", "shortest", "median", "longest"],
        [
            [
                PHASE_NAMES.get(phase, phase),
                f"{(spread := report.phases[phase]).shards:,}",
                format_duration(spread.min_s),
                format_duration(spread.median_s),
                format_duration(spread.max_s),
            ]
            for phase in ordered
        ],
        "lrrrr",
    )


def _shards(report: Report) -> Iterator[str]:
    yield "## Shards"
    yield ""
    listed = sorted(report.shards, key=lambda shard: (not _has_problem(shard), shard.shard))[:SHARDS_LISTED]
    costs = [shard.cost_usd for shard in listed]
    yield from _table(
        ["shard", "state", "model", "requests", "good", "sends", "cost", "batches"],
        [
            [
                str(shard.shard),
                escape(shard.state),
                escape(shard.model),
                f"{shard.requests:,}",
                f"{shard.rows.get('ok', 0):,}",
                f"{shard.sends:,}",
                format_usd(shard.cost_usd, beside=costs),
                ", ".join(escape(batch_id) for batch_id in shard.batch_ids),
            ]
            for shard in sorted(listed, key=lambda shard: shard.shard)
        ],
        "rllrrrrl",
    )
    if hidden := len(report.shards) - len(listed):
        yield f"{number_of(hidden, 'more shard')}, none worse than these, in `report.json`."
        yield ""


def _notes(report: Report) -> Iterator[str]:
    if not report.notes:
        return
    yield "## Notes"
    yield ""
    yield from (f"* {escape(note)}" for note in report.notes)
    yield ""


def _files(report: Report) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield "* `results/part-*.parquet`: one row per request, in the order of the input"
    if report.counts.bad:
        yield (
            "* `failed.jsonl`: the requests without a good answer, ready to be an input of another job; a run with "
            "`repair=true` and this output asks for them alone, and puts the answers in their place here"
        )
    if report.counts.rejected:
        yield "* `rejected.jsonl`: the lines that could not be requests, with source, line number and reason"
    yield "* `raw/`: what OpenAI returned, verbatim"
    yield "* `report.json`: this report for machines"
    yield ""


def _has_problem(shard: ShardLine) -> bool:
    return shard.state != "done" or any(status != "ok" for status in shard.rows)


def _share(number: int, total: int) -> str:
    return f"{number / total:.2%}" if total else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---:" if side == "r" else "---" for side in align) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
