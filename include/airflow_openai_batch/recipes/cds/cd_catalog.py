"""The steps from photographs of CDs to a catalogue, each from file to file, so that each can be run alone.

::

    <output>/
      covers/round-001/      what was asked about which photographs, and the answers; a round for each run that asked
      cleaned.jsonl          one line per photograph: what was read, cleaned
      candidates.jsonl       the same with the records of the catalogue that it may be
      choices/round-001/     what was asked about which candidates, and the answers
      checked.jsonl          the result, with what is wrong with it
      catalogue.xlsx         the same for people
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import EmptyInputError
from airflow_openai_batch.recipes.cds.cd_catalogues import find_candidates, open_catalogue
from airflow_openai_batch.recipes.cds.cd_checks import Checker, CheckLimits
from airflow_openai_batch.recipes.cds.cd_covers import FIELDS, Cover, clean_cover
from airflow_openai_batch.recipes.cds.rounds import open_round, read_answers, read_latest
from airflow_openai_batch.recipes.cds.workbook import WorkbookSheet, write_workbook
from airflow_openai_batch.recipes.json_rows import Row, read_rows, write_rows
from airflow_openai_batch.tables.reading.read_objects import list_objects
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

COVERS = "covers"
CLEANED = "cleaned.jsonl"
CANDIDATES = "candidates.jsonl"
CHOICES = "choices"
CHECKED = "checked.jsonl"
WORKBOOK = "catalogue.xlsx"

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_RESULT_COLUMNS = (
    *("photo", *FIELDS),
    *("state", "problems", "taken_from", "catalogue_id", "match_score", "confidence"),
    *("as_read", "reason", "cost_usd"),
)
_PROBLEM_COLUMNS = ("photo", "title", "artist", "step", "code", "detail", "way_out")

log = logging.getLogger(__name__)


def list_photos(
    photos_uri: str, output_uri: str, *, only_failed: bool = False, restart_of: str | None = None
) -> str | None:
    """Begin a round with the photographs that have no good answer yet, new and changed ones among them.

    :param only_failed: new ones wait.
    :param restart_of: the id of a run that asks about all of them anew.
    :returns: the round's directory; None where there is nothing to ask.
    :raises EmptyInputError: if there is no photograph below ``photos_uri``.
    """
    prefix = open_place(photos_uri.rstrip("/"), "input", find_giver_of(photos_uri, "photos_uri"))
    found = [each for each in list_objects(prefix) if each.uri.lower().endswith(_ENDINGS)]
    if not found:
        raise EmptyInputError(f"{photos_uri}: has no photograph ({', '.join(_ENDINGS)}) below it.")
    start = len(prefix.uri.rstrip("/")) + 1
    rows = (
        {"photo": each.uri[start:], "photo_uri": each.uri, "photo_version": f"{each.size}-{each.etag}"}
        for each in found
    )
    place, asked = open_round(
        _open(output_uri).child(COVERS), rows, _photo_key, only_failed=only_failed, restart_of=restart_of
    )
    log.info("%s of %s to be read.", f"{asked:,}", number_of(len(found), "photograph"))
    return None if place is None else place.uri


def clean_covers(output_uri: str) -> dict[str, Any]:
    """One clean line per photograph, from the answers of all rounds; an answer that failed says so."""
    output = _open(output_uri)
    counts: Counter[str] = Counter()

    def clean() -> Iterator[Row]:
        for answer in read_latest(output.child(COVERS), lambda row: str(row["photo_uri"])):
            counts[answer["answer_status"]] += 1
            is_read = answer["answer_status"] == "ok"
            cover = clean_cover(answer) if is_read else Cover()
            yield {
                **{name: answer[name] for name in ("photo", "photo_uri", "answer_status", "answer_error")},
                **{name: getattr(cover, name) for name in FIELDS},
                "confidence": answer.get("confidence") if is_read else None,
                "cost_usd": answer.get("answer_cost_usd"),
            }

    total = write_rows(output.child(CLEANED), clean())
    log.info("%s cleaned: %s.", number_of(total, "cover"), _list(counts))
    return {"covers": total, "statuses": dict(counts)}


def search_catalogue(output_uri: str, *, catalogue_conn_id: str, catalogue_uri: str) -> dict[str, Any]:
    """Beside each cover the records of the catalogue that it may be; see `open_catalogue`."""
    output = _open(output_uri)
    counts: Counter[str] = Counter()

    def search() -> Iterator[Row]:
        with open_catalogue(catalogue_conn_id, catalogue_uri) as catalogue:
            for row in read_rows(output.child(CLEANED), made_by="clean_covers"):
                found = find_candidates(catalogue, Cover.from_row(row))
                counts["with candidates" if found else "without"] += 1
                candidates = [
                    {"id": each.id, "score": each.score, "text": str(each.cover), **_to_dict(each.cover)}
                    for each in found
                ]
                yield {**row, "candidates": candidates}

    total = write_rows(output.child(CANDIDATES), search())
    log.info("%s looked up: %s.", number_of(total, "cover"), _list(counts))
    return {"covers": total, "with_candidates": counts["with candidates"]}


def list_choices(output_uri: str, *, restart_of: str | None = None) -> str | None:
    """Begin a round with the covers that have candidates and no good judgement of just these yet.

    :param restart_of: the id of a run that asks about all of them anew.
    :returns: the round's directory; None where there is nothing to ask.
    """
    output = _open(output_uri)
    rows = (
        {
            "choice_key": _choice_key(row),
            "photo": row["photo"],
            "cover": _describe(row),
            "records": _texts(row),
        }
        for row in read_rows(output.child(CANDIDATES), made_by="find_candidates")
        if row["candidates"]
    )
    place, asked = open_round(
        output.child(CHOICES), rows, lambda row: str(row["choice_key"]), restart_of=restart_of
    )
    log.info("%s to be judged.", number_of(asked, "cover"))
    return None if place is None else place.uri


def check_catalogue(output_uri: str, limits: CheckLimits) -> dict[str, Any]:
    """The result: what was chosen, and what is wrong with it. Holds the judgements in memory, about 500 bytes each."""
    output = _open(output_uri)
    judged: dict[str, Row] = {}
    for row in read_answers(output.child(CHOICES)):
        known = judged.get(row["choice_key"])
        if known is None or row["answer_status"] == "ok":
            judged[row["choice_key"]] = {
                **{name: row.get(name) for name in ("answer_status", "answer_error", "choice", "reason")},
                "cost_usd": row.get("answer_cost_usd"),
            }
    checker = Checker(limits)
    counts: Counter[str] = Counter()
    codes: Counter[str] = Counter()

    def check() -> Iterator[Row]:
        for row in read_rows(output.child(CANDIDATES), made_by="find_candidates"):
            checked = checker.check(row, judged.get(_choice_key(row)))
            counts[checked["state"]] += 1
            codes.update(found["code"] for found in checked["findings"])
            yield checked

    total = write_rows(output.child(CHECKED), check())
    log.info(
        "%s: %s. %s", number_of(total, "CD"), _list(counts), f"Problems: {_list(codes)}." if codes else ""
    )
    return {"cds": total, "states": dict(counts), "problems": dict(codes)}


def write_catalogue(output_uri: str) -> str:
    """The workbook, with a sheet of results and one of problems. Returns its URI."""
    output = _open(output_uri)
    place = output.child(WORKBOOK)
    checked = output.child(CHECKED)

    def problems() -> Iterator[Row]:
        for row in read_rows(checked, made_by="check"):
            for found in row["findings"]:
                yield {**row, **found}

    written = write_workbook(
        place,
        (
            WorkbookSheet("results", _RESULT_COLUMNS, read_rows(checked, made_by="check")),
            WorkbookSheet("problems", _PROBLEM_COLUMNS, problems()),
        ),
    )
    log.info("%s: %s, %s.", place.uri, number_of(written[0], "CD"), number_of(written[1], "problem"))
    return place.uri


def _open(output_uri: str) -> Location:
    return open_place(output_uri.rstrip("/"), "output", find_giver_of(output_uri, "output_uri"))


def _photo_key(row: Row) -> str:
    return f"{row['photo_uri']}\n{row['photo_version']}"


def _choice_key(row: Row) -> str:
    """Of what the second model step sees: other candidates are another question."""
    seen = msgspec.json.encode([row["photo"], _describe(row), _texts(row)])
    return hashlib.blake2b(seen, digest_size=12).hexdigest()


def _describe(row: Row) -> str:
    return str(Cover.from_row(row))


def _texts(row: Row) -> list[str]:
    return [each["text"] for each in row["candidates"]]


def _to_dict(cover: Cover) -> Row:
    return {name: getattr(cover, name) for name in FIELDS}


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"
