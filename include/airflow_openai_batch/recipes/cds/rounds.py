"""Rounds of asking: each holds only the rows that have no good answer yet, so that nothing is paid for twice.

A round is a directory ``round-001``: ``rows.jsonl`` (what is asked), ``prepared/`` and ``job/`` (the sending), and
``answers.jsonl``, written last. Once its requests are prepared, a round stays as it is until all of them have been
answered or refused; what is new meanwhile waits for the next one.

A round that asks about everything anew, with another prompt, is the first that counts: the rounds before it are put
aside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from airflow_openai_batch.recipes.cds.round_prompts import check_same_prompt, note_prompt
from airflow_openai_batch.recipes.json_rows import Row, read_rows, write_rows
from airflow_openai_batch.tables.join.answer_columns import REJECTED
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED
from airflow_openai_batch.tables.preparation import read_manifest

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

ROWS = "rows.jsonl"
ANSWERS = "answers.jsonl"
PREPARED = "prepared"
JOB = "job"
_COMMITTED = f"{PREPARED}/manifest.json"
_RESTART = "restarted_by"
"""The id of the run that began the round with everything anew."""
SETTLED = frozenset({"ok", REJECTED})
"""``answer_status`` of rows that are not asked again as they are: good, or not fit to be sent."""

Key = Callable[[Row], str]


def open_round(
    folder: Location,
    rows: Iterable[Row],
    key: Key,
    *,
    is_final: Callable[[Row], bool] = lambda row: True,
    before: Iterable[Row] = (),
    only_failed: bool = False,
    restart_of: str | None = None,
    prompt: PromptSpec | None = None,
) -> tuple[Location | None, int]:
    """The round to go on with, and its rows; None where every row is settled.

    Holds the keys of what was asked in memory, and one row.

    :param rows: everything that there is to ask about.
    :param key: equal for rows that are equal to the model, of a row before and after it was asked.
    :param is_final: whether a row that was rejected would be so again.
    :param before: answers of before there were rounds.
    :param only_failed: what was never asked waits.
    :param restart_of: the id of a run that asks about everything anew, once.
    :param prompt: that is asked with. None where it may be another one than before.
    :raises InputChangedError: if it is another one, and neither everything is asked anew nor what failed alone.
    """
    number = _count_rounds(folder)
    last = folder.child(_name(number))
    is_open = number > 0 and _is_open(last)
    restarts = restart_of is not None and _read_restart(last) != restart_of
    if prompt is not None and not restarts and not only_failed:
        check_same_prompt(filter(_is_prepared, list_rounds(folder)), prompt)
    if is_open and _is_prepared(last) and not restarts:
        return last, sum(1 for _ in read_rows(last.child(ROWS), made_by="before it"))
    settled: dict[str, bool] = {}
    if not restarts:
        for row in itertools.chain(before, read_answers(folder)):
            if row["answer_status"] != UNFINISHED:
                status = row["answer_status"]
                settled[key(row)] = status in SETTLED and (status != REJECTED or is_final(row))
    wanted = (row for row in rows if not settled.get(key(row), only_failed))
    first = next(wanted, None)
    if first is None:
        return None, 0
    place = last if is_open else folder.child(_name(number + 1))
    asked = write_rows(place.child(ROWS), itertools.chain([first], wanted))
    if restarts:
        place.child(_RESTART).write_bytes(str(restart_of).encode())
    if prompt is not None and not only_failed:
        note_prompt(place, prompt)
    return place, asked


def list_rounds(folder: Location) -> list[Location]:
    """Directories of those that count, the first round first."""
    return [folder.child(_name(number)) for number in _number_rounds(folder)]


def find_first_round(folder: Location) -> int:
    """The number of the first that counts; 0 where all do, and what is older than rounds."""
    rounds = {number: folder.child(_name(number)) for number in range(1, _count_rounds(folder) + 1)}
    restarted = [number for number, place in rounds.items() if place.child(_RESTART).exists()]
    if not restarted:
        return 0
    first, asked = 0, None
    for number, place in {0: folder, **rounds}.items():
        manifest = read_manifest(place.child(PREPARED))
        if manifest is None:
            continue
        prompt = manifest.prompt.sha256
        if asked is None:
            asked = prompt
        elif number in restarted and prompt != asked:
            first, asked = number, prompt
    return first


def _number_rounds(folder: Location) -> range:
    return range(max(1, find_first_round(folder)), _count_rounds(folder) + 1)


def _is_prepared(place: Location) -> bool:
    return place.child(_COMMITTED).exists()


def _is_open(place: Location) -> bool:
    """Whether some of its requests were not asked or not answered yet: its job goes on."""
    answers = place.child(ANSWERS)
    if not answers.exists():
        return True
    return any(row["answer_status"] == UNFINISHED for row in read_rows(answers, made_by="join"))


def _read_restart(place: Location) -> str | None:
    note = place.child(_RESTART)
    return note.read_bytes().decode() if note.exists() else None


def read_answers(folder: Location) -> Iterator[Row]:
    """All answers of all rounds that count and have some, the first round first."""
    for number in _number_rounds(folder):
        answers = folder.child(f"{_name(number)}/{ANSWERS}")
        if answers.exists():
            yield from read_rows(answers, made_by="join")


def read_latest(
    folder: Location, key: Key, is_present: Callable[[Row], bool] = lambda row: True
) -> Iterator[Row]:
    """Of rows that were asked in several rounds the last answer alone, where the row first stood.

    Holds the rows of all rounds but the first in memory: few, since only what has no good answer is asked again.

    :param is_present: whether an answer is to what there is now: one that is not gives way to one that is, also where
        it came later. What was changed and changed back is not asked again.
    """
    rounds = _number_rounds(folder)
    later: dict[str, Row] = {}
    for number in rounds[1:]:
        for row in _read_finished(folder, number):
            known = later.get(key(row), row)
            later[key(row)] = row if is_present(row) or not is_present(known) else known
    for row in _read_finished(folder, rounds.start):
        last = later.pop(key(row), row)
        yield last if is_present(last) or not is_present(row) else row
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
