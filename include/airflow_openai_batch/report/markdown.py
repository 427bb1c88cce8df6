"""``report.md``: the report as a person likes to read it. Its text is in ``report.md.jinja``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from airflow_openai_batch.results.phases import PHASES
from airflow_openai_batch.wording import format_duration, format_usd, number_of

if TYPE_CHECKING:
    from jinja2 import Template

    from airflow_openai_batch.report.report import Report, ShardLine

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
LANE_NAMES = {"batch": "in batches", "flex": "through flex", "realtime": "in real time"}
STATUS_NAMES = {
    "ok": "good answers",
    "failed": "failed",
    "invalid_output": "answers that break their format",
    "missing": "missing",
}


def write_markdown(report: Report) -> str:
    """The report as Markdown; what comes from outside (ids, messages, URIs) is escaped."""
    cost = report.cost
    listed = sorted(report.shards, key=lambda shard: (not _has_problem(shard), shard.shard))[:SHARDS_LISTED]
    rows = sorted(report.counts.rows.items(), key=lambda row: (row[0] != "ok", -row[1]))
    return _load_template().render(
        report=report,
        counts=report.counts,
        noun="line" if report.counts.rejected else "request",
        rows=rows,
        repeated=len(report.attempts) > 1 or any(attempts > 1 for attempts in report.attempts),
        written=datetime.fromtimestamp(report.created_at, UTC),
        took_s=max(0.0, report.created_at - report.started_at),
        cost=cost,
        amounts=(
            cost.estimated_usd, cost.actual_usd, cost.replaced_usd, cost.standard_usd, cost.saving_usd,
        ),
        hurried_answers={lane: found.hurried for lane, found in report.lanes.items() if found.hurried},
        hurried_usd=sum(found.hurried_usd for found in report.lanes.values()),
        phases=PHASES,
        shards=sorted(listed, key=lambda shard: shard.shard),
        shard_costs=[shard.cost_usd for shard in listed],
        hidden=len(report.shards) - len(listed),
    )  # fmt: skip


def escape(text: str) -> str:
    """Text from outside as one cell of a table: one line, and no mark-up of its own."""
    line = " ".join(text[:CELL_CHARS].split())
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line
    )
    return _MARKUP.sub(r"\\\g<0>", line) + ("…" if len(text) > CELL_CHARS else "")


@cache
def _load_template() -> Template:
    """Everything that it shows is escaped for Markdown; a value that it lacks is an error, not a gap."""
    environment = Environment(
        autoescape=True,  # so that macros hand out `Markup`; nothing is left to it that Jinja would escape for HTML
        finalize=_finish,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "duration": format_duration,
        "number": "{:,}".format,
        "number_of": number_of,
        "share": lambda number, total: f"{number / total:.2%}" if total else "",
        "usd": format_usd,
    }
    environment.globals |= {
        "status_names": STATUS_NAMES,
        "phase_names": PHASE_NAMES,
        "lane_names": LANE_NAMES,
        "moment": lambda at: "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}",
    }
    return environment.from_string(Path(__file__).with_name("report.md.jinja").read_text())


def _finish(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(escape(str(value)))  # noqa: S704 - for Markdown


def _has_problem(shard: ShardLine) -> bool:
    return shard.state != "done" or any(status != "ok" for status in shard.rows)
