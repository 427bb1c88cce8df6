"""What a night of reviews leaves for people: the day's table, a report, and a few lines in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.permissions import check_uri
from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.reviews.day_table import open_day_table
from airflow_openai_batch.recipes.reviews.day_words import DayCounts, encode_counts, select_rows, write_words
from airflow_openai_batch.recipes.reviews.nights import Night
from airflow_openai_batch.recipes.reviews.trend import LOOK, describe_trend, read_trend, write_trend_table
from airflow_openai_batch.tables.writing.kept_files import KeptFile
from airflow_openai_batch.tables.writing.write_table import TableOptions, open_table
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.reviews.trend import NightFigures

log = logging.getLogger(__name__)


def report_night(
    found: dict[str, str] | None, word: str, *, show_answers: int, trend_days: int, max_failed_fraction: float
) -> dict[str, Any]:
    """Write the day's table and ``report.md``, say in the log what is in them, and return what the asset event says.

    Run again, it writes the same files again.

    :param found: the night, as `begin_night` returned it; a quiet one is skipped.
    :param word: the property of the prompt's answers that is counted.
    :param show_answers: so many of the first answers are **readable in the log**.
    :param trend_days: calendar days to look back.
    :param max_failed_fraction: of the day's rows, that may be without a good answer from earlier askings.
        If more of them are, the task fails after all is written: the report of the last asking knows nothing of them.
    """
    if found is None:
        raise AirflowSkipException("A quiet night.")
    with task_failures():
        return _report(Night.from_xcom(found), word, show_answers, trend_days, max_failed_fraction)


def _report(
    night: Night, word: str, show_answers: int, trend_days: int, max_failed_fraction: float
) -> dict[str, Any]:
    with open_day_table(night, find_giver_of(night.source)) as day:
        counts = write_words(day, word, night.open_table(), show=show_answers)
    trend = read_trend(night, trend_days)
    figures = trend[-1]
    place = night.open_folder()
    place.child("report.json").write_bytes(
        encode_counts(counts, day=str(night.day), cost_usd=figures.cost_usd)
    )
    report = _make_report(night, counts, trend)
    place.child("report.md").write_bytes(report.encode())
    for row, answer in counts.first:
        log.info("Row %s: %s", row, answer)
    log.info("%s", report)
    for sentence in describe_trend(trend):
        if sentence.startswith(LOOK):
            log.warning("%s", sentence)
    if day.bad_before > max_failed_fraction * counts.rows:
        raise JobError(
            f"{number_of(day.bad_before, 'row')} of {counts.rows:,}, asked before, have no good answer: more than "
            f"max_failed_fraction={max_failed_fraction:g} allows. {night.table} is written, with the reason beside "
            "each; repair=true asks for them again."
        )
    return {
        "day": str(night.day),
        "root": night.root,
        "table": night.table,
        **counts.to_dict(),
        "cost_usd": figures.cost_usd,
    }


def write_followup(found: dict[str, str], column: str, word: str) -> dict[str, Any]:
    """The day's reviews with one word as a CSV that opens in Excel, for people who answer them.

    :param column: of the day's table, that has the word.
    :raises ConfigError: for a word that this day's prompt does not know, and for a place that is not allowed: whoever
        may create asset events names it in one.
    """
    with task_failures():
        return _write_followup(Night.from_xcom(found), column, word)


def _write_followup(night: Night, column: str, word: str) -> dict[str, Any]:
    check_uri(night.root, "output", find_giver_of(night.root))
    known = _read_report(night, night.day).get("words", {})
    if known and word not in known:
        raise ConfigError(f"{word!r}: no review of {night.day} has this word; there are {', '.join(known)}.")
    schema, batches = select_rows(night.open_table(), column, word)
    place = night.open_root().child(f"followup/{night.day}.csv")
    kept = KeptFile(place, mark=schema.names[0])  # people write into it
    kept.check()
    with open_table(place, "csv", schema, TableOptions(for_excel=True)) as writer:
        for batch in batches:
            writer.write(batch)
        for notice in kept.put_aside():
            log.warning("%s", notice)
    kept.note()
    log.info("%s: %s with the word %s.", place.uri, number_of(writer.rows, "review"), word)
    return {"day": str(night.day), "uri": place.uri, "rows": writer.rows}


def _make_report(night: Night, counts: DayCounts, trend: list[NightFigures]) -> str:
    return "\n".join(_describe(night, counts, trend)) + "\n"


def _describe(night: Night, counts: DayCounts, trend: list[NightFigures]) -> Iterator[str]:
    yield f"# Reviews of {night.day}"
    yield ""
    yield "| answer | reviews | share |"
    yield "| --- | ---: | ---: |"
    answered = counts.words.total()
    for word, number in counts.words.items():
        yield f"| {_cell(word)} | {number:,} | {number / answered if answered else 0:.0%} |"
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


def _cell(word: str) -> str:
    """One cell of a table in Markdown, whatever a model has written."""
    return " ".join(word.split()).replace("|", "/")[:100]


def _read_shares(night: Night, day: str) -> str | None:
    """How the answers of a day fell, from the report that it left."""
    found = _read_report(night, day)
    words = found.get("words") or found.get("sentiments")  # as earlier releases called them
    if words is None:
        return None
    return ", ".join(f"{number:,} {_cell(word).lower()}" for word, number in words.items() if number)


def _read_report(night: Night, day: object) -> dict[str, Any]:
    """Empty where the day has left none."""
    try:
        found = msgspec.json.decode(night.open_root().child(f"days/{day}/report.json").read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}
