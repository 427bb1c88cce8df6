"""What a night of reviews leaves for people: the day's table, a report, and a few lines in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.permissions import check_uri
from airflow_openai_batch.recipes.reviews.sentiments import (
    DayCounts,
    encode_counts,
    select_rows,
    write_sentiments,
)
from airflow_openai_batch.recipes.reviews.trend import LOOK, describe_trend, read_trend, write_trend_table
from airflow_openai_batch.tables.writing.kept_files import KeptFile
from airflow_openai_batch.tables.writing.write_table import TableOptions, open_table
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.reviews.nights import Night
    from airflow_openai_batch.recipes.reviews.trend import NightFigures

log = logging.getLogger(__name__)


def report_night(night: Night, *, show_answers: int, trend_days: int) -> dict[str, Any]:
    """Write the day's table and ``report.md``, say in the log what is in them, and return what the asset event says.

    Run again, it writes the same files again.

    :param show_answers: so many of the first answers are **readable in the log**.
    :param trend_days: calendar days to look back.
    """
    counts = write_sentiments(
        night.open_folder().child("answers.parquet"), night.open_table(), show=show_answers
    )
    trend = read_trend(night, trend_days)
    figures = trend[-1]
    place = night.open_folder()
    place.child("report.json").write_bytes(
        encode_counts(counts, day=str(night.day), cost_usd=figures.cost_usd)
    )
    report = _write_report(night, counts, trend)
    place.child("report.md").write_bytes(report.encode())
    for row, answer in counts.first:
        log.info("Row %s: %s", row, answer)
    log.info("%s", report)
    for sentence in describe_trend(trend):
        if sentence.startswith(LOOK):
            log.warning("%s", sentence)
    return {
        "day": str(night.day),
        "root": night.root,
        "table": night.table,
        **counts.to_dict(),
        "cost_usd": figures.cost_usd,
    }


def write_followup(night: Night, sentiment: str) -> dict[str, Any]:
    """The day's reviews of one sentiment as a CSV that opens in Excel, for people who answer them.

    :raises ConfigError: for a place that is not allowed: whoever may create asset events names it in one.
    """
    check_uri(night.root, "output", find_giver_of(night.root))
    schema, batches = select_rows(night.open_table(), sentiment)
    place = night.open_root().child(f"followup/{night.day}.csv")
    kept = KeptFile(place, mark=schema.names[0])  # people write into it
    kept.check()
    with open_table(place, "csv", schema, TableOptions(for_excel=True)) as writer:
        for batch in batches:
            writer.write(batch)
        for notice in kept.put_aside():
            log.warning("%s", notice)
    kept.note()
    log.info("%s: %s with the sentiment %s.", place.uri, number_of(writer.rows, "review"), sentiment)
    return {"day": str(night.day), "uri": place.uri, "rows": writer.rows}


def _write_report(night: Night, counts: DayCounts, trend: list[NightFigures]) -> str:
    return "\n".join(_describe(night, counts, trend)) + "\n"


def _describe(night: Night, counts: DayCounts, trend: list[NightFigures]) -> Iterator[str]:
    yield f"# Reviews of {night.day}"
    yield ""
    yield "| sentiment | reviews | share |"
    yield "| --- | ---: | ---: |"
    answered = counts.sentiments.total()
    for word, number in counts.to_dict()["sentiments"].items():
        if number or word != "Other":
            yield f"| {word} | {number:,} | {number / answered if answered else 0:.0%} |"
    yield ""
    yield f"{number_of(counts.rows, 'review')}, {answered:,} with an answer." + _describe_rest(counts)
    yield ""
    yield "## The trend"
    yield ""
    yield write_trend_table(
        trend, {each.day: shares for each in trend if (shares := _read_shares(night, each.day))}
    )
    for sentence in describe_trend(trend):
        yield ""
        yield sentence


def _describe_rest(counts: DayCounts) -> str:
    if not counts.unanswered:
        return ""
    return (
        " Without one: "
        + ", ".join(f"{number:,} {status}" for status, number in counts.unanswered.items())
        + "."
    )


def _read_shares(night: Night, day: str) -> str | None:
    """How the answers of a day fell, from the report that it left."""
    try:
        found = msgspec.json.decode(night.open_root().child(f"days/{day}/report.json").read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return ", ".join(f"{number:,} {word.lower()}" for word, number in found["sentiments"].items() if number)
