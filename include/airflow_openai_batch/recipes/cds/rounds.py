"""Rounds of asking: each holds only the rows that have no good answer yet, so that nothing is paid for twice.

A round is a directory ``round-001``: ``rows.jsonl`` (what is asked), ``prepared/`` and ``job/`` (the sending), and
``answers.jsonl``, written last. Once its requests are prepared, a round stays as it is until its answers are there;
what is new meanwhile waits for the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from airflow_openai_batch.recipes.json_rows import Row, read_rows, write_rows

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

ROWS = "rows.jsonl"
ANSWERS = "answers.jsonl"
PREPARED = "prepared"
JOB = "job"
_COMMITTED = f"{PREPARED}/manifest.json"
SETTLED = frozenset({"ok", "rejected"})
"""``answer_status`` of rows that are not asked again as they are: good, or not fit to be sent."""

Key = Callable[[Row], str]


def open_round(folder: Location, rows: Iterable[Row], key: Key) -> tuple[Location | None, int]:
    """The round to go on with, and its rows; None where every row is settled.

    Holds the keys of what is settled in memory, and one row.

    :param rows: everything that there is to ask about.
    :param key: equal for rows that are equal to the model, of a row before and after it was asked.
    """
    number = _count_rounds(folder)
    last = folder.child(_name(number))
    is_open = number > 0 and not last.child(ANSWERS).exists()
    if is_open and last.child(_COMMITTED).exists():
        return last, sum(1 for _ in read_rows(last.child(ROWS), made_by="before it"))
    settled = {
        key(row) for row in read_answers(folder) if row["answer_status"] in SETTLED
    }  # what is open has no answers
    wanted = (row for row in rows if key(row) not in settled)
    first = next(wanted, None)
    if first is None:
        return None, 0
    place = last if is_open else folder.child(_name(number + 1))
    return place, write_rows(place.child(ROWS), itertools.chain([first], wanted))


def read_answers(folder: Location) -> Iterator[Row]:
    """All answers of all finished rounds, the first round first."""
    for number in range(1, _count_rounds(folder) + 1):
        answers = folder.child(f"{_name(number)}/{ANSWERS}")
        if answers.exists():
            yield from read_rows(answers, made_by="join")


def read_latest(folder: Location, key: Key) -> Iterator[Row]:
    """Of rows that were asked in several rounds the last answer alone, where the row first stood.

    Holds the rows of all rounds but the first in memory: few, since only what has no good answer is asked again.
    """
    rounds = range(1, _count_rounds(folder) + 1)
    later: dict[str, Row] = {}
    for number in rounds[1:]:
        later |= {key(row): row for row in _read_finished(folder, number)}
    for row in _read_finished(folder, 1):
        yield later.pop(key(row), row)
    yield from later.values()


def _read_finished(folder: Location, number: int) -> Iterator[Row]:
    answers = folder.child(f"{_name(number)}/{ANSWERS}")
    if answers.exists():
        yield from read_rows(answers, made_by="join")


def _count_rounds(folder: Location) -> int:
    return next(
        number for number in itertools.count() if not folder.child(f"{_name(number + 1)}/{ROWS}").exists()
    )


def _name(number: int) -> str:
    return f"round-{number:03d}"
