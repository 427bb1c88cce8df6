"""What of a day is still to be asked: first all of it, later what came late or was corrected, alone.

::

    days/2025-06-02/
      prepared/ job/ answers.parquet       the first round: the day's file as it was
      late/1764400000000-002/
        rows.parquet round.json            rows that nothing like was asked before, and what the prompt reads of them
        prepared/ job/ answers.parquet

The number is the time of the first preparation: after ``on_existing=restart`` the late rows of before are no part of
the day any more.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.parquet as pq

from airflow_openai_batch.access.locations import make_resolver
from airflow_openai_batch.job import directory
from airflow_openai_batch.recipes.job_folder import read_note, write_note
from airflow_openai_batch.recipes.reviews.known_answers import KnownAnswers
from airflow_openai_batch.recipes.reviews.late_rows import (
    LINES,
    TYPED,
    LateCounts,
    find_late_rows,
    write_late_rows,
)
from airflow_openai_batch.report.report import Report
from airflow_openai_batch.results.landing_summary import find_unfinished
from airflow_openai_batch.tables.join.answer_columns import REJECTED
from airflow_openai_batch.tables.preparation import Manifest, read_manifest
from airflow_openai_batch.tables.preparation.renderer import Renderer
from airflow_openai_batch.tables.preparation.source_note import note_files
from airflow_openai_batch.tables.reading import RowBlock, find_row_files, open_row_files
from airflow_openai_batch.tables.reading.row_table import read_rows
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.access.givers import Giver
    from airflow_openai_batch.recipes.reviews.nights import Night
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec
    from airflow_openai_batch.tables.reading import RowFiles

log = logging.getLogger(__name__)

ANSWERS = "answers.parquet"
_BATCH_ROWS = 2_000


class RoundNote(msgspec.Struct, frozen=True, kw_only=True):
    """What ``round.json`` holds: the columns that the prompt reads. In ``001`` alone where the file has changed since
    the first round and nothing in it was new."""

    columns: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRound:
    """One asking of a day.

    :param number: from 1.
    :param source: what the rows are read from.
    :param late: of a round of late rows that begins.
    """

    place: Location
    number: int
    source: str
    late: LateCounts | None = None

    @property
    def job(self) -> Location:
        return self.place.child("job")

    def read_manifest(self) -> Manifest | None:
        return read_manifest(self.place.child("prepared"))

    def is_done(self) -> bool:
        """Whether every request of it has landed."""
        manifest = self.read_manifest()
        if manifest is not None and not manifest.counts.requests:
            return True
        plan = directory.read_plan(self.job)
        has_answers = self.place.child(ANSWERS).exists()
        return has_answers and plan is not None and not any(find_unfinished(plan, self.job))

    def read_report(self) -> Report | None:
        try:
            return Report.from_json(self.job.child(directory.REPORT_JSON).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def to_xcom(self, max_rejected_fraction: float) -> dict[str, str]:
        """Where the tasks that ask find what they need.

        :param max_rejected_fraction: of the day's rows. What of a round may be rejected follows from it: of a few late
            rows perhaps all.
        """
        root = self.place.uri
        if self.late is not None:
            max_rejected_fraction = self.late.allow_rejected(max_rejected_fraction)
        return {
            "max_rejected_fraction": repr(max_rejected_fraction),
            "on_none_left": "fail" if self.number == 1 else "skip",
            "source": self.source,
            "prepared": f"{root}/prepared",
            "job": f"{root}/job",
            "answers": f"{root}/{ANSWERS}",
        }


def open_round(
    night: Night, spec: PromptSpec, giver: Giver, *, restart: bool = False, repair: bool = False
) -> DayRound:
    """The round to go on with: the one that is not done, a new one of rows that are new, or the last.

    :param giver: who named the day's files.
    :param restart: the whole day is asked again.
    :param repair: the first round that has requests without a good answer.
    """
    rounds = list_rounds(night)
    first, last = rounds[0], rounds[-1]
    manifest = first.read_manifest()
    if manifest is None or restart or manifest.prompt.sha256 != spec.sha256:
        return first  # where it was prepared with another prompt, preparing says so
    if repair:
        return next((each for each in rounds if _has_bad(each)), last)
    found = find_day_rows(night, giver)
    is_same = len(rounds) == 1 and note_files(found, [night.source]).sha256 == manifest.source.sha256
    if is_same or not last.is_done():
        return last
    return _open_late_round(night, rounds, manifest, spec, found) or last


def list_rounds(night: Night) -> list[DayRound]:
    """Those of a day that were begun; the first is always there."""
    first = DayRound(place=night.open_folder(), number=1, source=night.source)
    manifest = first.read_manifest()
    if manifest is None:
        return [first]
    later = (_make_late_round(night, manifest, number) for number in itertools.count(2))
    return [first, *itertools.takewhile(lambda each: each.read_manifest() is not None, later)]


def find_day_rows(night: Night, giver: Giver) -> RowFiles:
    """The day's files, read as the preparation reads them.

    :raises InputError: if they cannot be read.
    """
    return find_row_files([night.source], night.open_folder(), make_resolver("input", giver))


def collect_answers(rounds: list[DayRound], known: KnownAnswers) -> None:
    """Put the answers of all rounds that have some into ``known``; one batch in memory."""
    for each in rounds:
        for row, cells in _read_answers(each):
            known.add(row, cells, each.number)


def read_columns(night: Night, rounds: list[DayRound]) -> list[str] | None:
    """What the prompt reads, as it was noted when the file had changed; None where it never had."""
    manifest = rounds[0].read_manifest()
    if manifest is None:
        return None
    note = read_note(_note_place(night, manifest, len(rounds)), RoundNote)
    if note is None:
        return None if len(rounds) == 1 else []
    return note.columns


def _open_late_round(
    night: Night, rounds: list[DayRound], manifest: Manifest, spec: PromptSpec, found: RowFiles
) -> DayRound | None:
    late = _make_late_round(night, manifest, len(rounds) + 1)
    for name in (LINES, TYPED, "prepared", "job", ANSWERS):
        late.place.child(name).check_bounds()
    with open_row_files(found) as table:
        columns = Renderer(spec, table.schema.names).columns
        as_lines = found.format == "jsonl"
        with KnownAnswers(columns, as_lines=as_lines) as known:
            collect_answers(rounds, known)
            counts = write_late_rows(late.place, table, known, as_lines=as_lines)
    note = RoundNote(columns=columns)
    if not counts.late:
        log.info("%s has changed; nothing in it is new to the prompt.", night.source)
        # The table is that of the file all the same.
        write_note(_note_place(night, manifest, len(rounds)), note)
        return None
    write_note(_note_place(night, manifest, late.number), note)
    log.info("%s has changed: %s new or corrected.", night.source, number_of(counts.late, "row"))
    return replace(_make_late_round(night, manifest, late.number), late=counts)


def _read_answers(each: DayRound) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    manifest = each.read_manifest()
    if manifest is None:
        return
    width = len(manifest.columns)
    if not manifest.counts.requests:  # then nothing was joined
        for note in manifest.rows:
            for row, own in _read_table(each.place.child(f"prepared/{note.name}"), width):
                yield row, [None, REJECTED, own[-1]]
    elif (place := each.place.child(ANSWERS)).exists():
        yield from _read_table(place, width)


def _read_table(place: Location, width: int) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """The first so many cells of each row by name, and the others."""
    with place.open_read() as file, pq.ParquetFile(file) as table:
        names = table.schema_arrow.names
        for batch in table.iter_batches(_BATCH_ROWS):
            for row in read_rows(RowBlock(batch), names):
                cells = list(row.values())
                yield dict(zip(names[:width], cells[:width], strict=True)), cells[width:]


def _make_late_round(night: Night, manifest: Manifest, number: int) -> DayRound:
    name = f"late/{int(manifest.created_at * 1000)}-{number:03d}"
    place = night.open_folder().child(name)
    return DayRound(place=place, number=number, source=find_late_rows(place).uri)


def _note_place(night: Night, manifest: Manifest, number: int) -> Location:
    """Of the first round, too: what was noted before ``on_existing=restart`` is nothing to the day any more."""
    return _make_late_round(night, manifest, number).place.child("round.json")


def _has_bad(each: DayRound) -> bool:
    report = each.read_report()
    return report is not None and bool(report.counts.bad or report.counts.unfinished)
