"""The steps from photographs of CDs to a catalogue, each from file to file, so that each can be run alone.

::

    <output>/
      photos.jsonl           the photographs that there are
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
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.cds import cd_photos
from airflow_openai_batch.recipes.cds.answer_extras import find_extras, name_columns, take_extras
from airflow_openai_batch.recipes.cds.cd_catalogues import find_candidates, open_catalogue
from airflow_openai_batch.recipes.cds.cd_checks import EXTRAS, GONE, Checker, CheckLimits
from airflow_openai_batch.recipes.cds.cd_covers import FIELDS, Cover, clean_cover
from airflow_openai_batch.recipes.cds.cd_photos import COVERS, PresentPhotos
from airflow_openai_batch.recipes.cds.rounds import open_round, read_answers, read_latest
from airflow_openai_batch.recipes.cds.workbook import WorkbookSheet, write_workbook
from airflow_openai_batch.recipes.dag_prompt import Prompt, read_dag_prompt
from airflow_openai_batch.recipes.job_folder import find_restart, open_folder
from airflow_openai_batch.recipes.json_rows import Row, read_rows, write_rows
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow.sdk import Context

CLEANED = "cleaned.jsonl"
CANDIDATES = "candidates.jsonl"
CHOICES = "choices"
CHECKED = "checked.jsonl"
WORKBOOK = "catalogue.xlsx"

_ASKED = (*FIELDS, "confidence")
"""Of a cover, that is worked with."""
_JUDGED = ("reason", "choice")
_CHECK_COLUMNS = (
    *("state", "problems", "taken_from", "catalogue_id", "match_score", "confidence"),
    *("as_read", "reason"),
)
_RESULT_COLUMNS = ("photo", *FIELDS, *_CHECK_COLUMNS, "cost_usd")
_PROBLEM_COLUMNS = ("photo", "title", "artist", "step", "code", "detail", "way_out")

log = logging.getLogger(__name__)


@task_failures()
def list_photos(context: Context, prompt: Prompt) -> str | None:
    """See `cd_photos.list_photos`. It reads the form: ``photos_uri``, ``model``, ``repair``, ``on_existing``.

    :param prompt: that reads the covers.
    """
    params = context["params"]
    return cd_photos.list_photos(
        params["photos_uri"],
        open_folder(context),
        read_dag_prompt(context, prompt, {"model": params.get("model")}),
        only_failed=params["repair"],
        restart_of=find_restart(context),
    )


@task_failures()
def clean_covers(context: Context, clean: Callable[[dict[str, Any]], Cover] = clean_cover) -> dict[str, Any]:
    """One clean line per photograph, from the answers of all rounds; an answer that failed says so.

    :param clean: makes of an answer what may be compared.
    """
    output = open_folder(context)
    counts: Counter[str] = Counter()
    extras = find_extras(output.child(COVERS), _ASKED)
    photos = PresentPhotos(output)

    def clean_all() -> Iterator[Row]:
        for answer in read_latest(
            output.child(COVERS), lambda row: str(row["photo_uri"]), photos.is_of_present
        ):
            is_gone = photos.is_gone(answer["photo_uri"])
            counts[GONE if is_gone else answer["answer_status"]] += 1
            is_read = answer["answer_status"] == "ok"
            cover = clean(answer) if is_read else Cover()
            yield {
                **{name: answer[name] for name in ("photo", "photo_uri", "answer_status", "answer_error")},
                **{name: getattr(cover, name) for name in FIELDS},
                "confidence": answer.get("confidence") if is_read else None,
                "cost_usd": answer.get("answer_cost_usd"),
                "is_gone": is_gone,
                EXTRAS: take_extras(answer, extras),
            }

    total = write_rows(output.child(CLEANED), clean_all())
    log.info("%s cleaned: %s.", number_of(total, "cover"), _list(counts))
    return {"covers": total, "statuses": dict(counts)}


@task_failures()
def search_catalogue(context: Context, columns: Mapping[str, str]) -> dict[str, Any]:
    """Beside each cover the records of the catalogue that it may be; see `open_catalogue`.

    It reads the form: ``catalogue_conn_id``, ``catalogue_uri``.

    :param columns: of a catalogue that is a file, by the names that they have here.
    """
    output, params = open_folder(context), context["params"]
    counts: Counter[str] = Counter()

    def search() -> Iterator[Row]:
        conn_id = params["catalogue_conn_id"] or ""
        with open_catalogue(conn_id, params["catalogue_uri"], columns) as catalogue:
            for row in read_rows(output.child(CLEANED), made_by="clean_covers"):
                found = [] if row.get("is_gone") else find_candidates(catalogue, Cover.from_row(row))
                counts["with candidates" if found else "without"] += 1
                candidates = [
                    {"id": each.id, "score": each.score, "text": str(each.cover), **_to_dict(each.cover)}
                    for each in found
                ]
                yield {**row, "candidates": candidates}

    total = write_rows(output.child(CANDIDATES), search())
    log.info("%s looked up: %s.", number_of(total, "cover"), _list(counts))
    return {"covers": total, "with_candidates": counts["with candidates"]}


@task_failures()
def list_choices(context: Context, prompt: Prompt | None = None) -> str | None:
    """Begin a round with the covers that have candidates and no good judgement of just these yet.

    It reads the form: ``model``, ``repair``, ``on_existing``.

    :param prompt: that judges. Without it, it is not looked whether it is the one of before.
    :returns: the round's directory; None where there is nothing to ask.
    """
    output, params = open_folder(context), context["params"]
    asked_with = None
    if prompt is not None and not params["repair"]:
        asked_with = read_dag_prompt(context, prompt, {"model": params.get("model")})
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
        output.child(CHOICES),
        rows,
        lambda row: str(row["choice_key"]),
        restart_of=find_restart(context),
        prompt=asked_with,
    )
    log.info("%s to be judged.", number_of(asked, "cover"))
    return None if place is None else place.uri


@task_failures()
def check_catalogue(context: Context, first_year: int) -> dict[str, Any]:
    """The result: what was chosen, and what is wrong with it. Holds the judgements in memory, about 500 bytes each.

    It reads the form: ``min_confidence``, ``min_match_score``.

    :param first_year: none is older.
    """
    output, params = open_folder(context), context["params"]
    limits = CheckLimits(
        first_year=first_year,
        last_year=context["dag_run"].run_after.year,
        min_confidence=params["min_confidence"],
        min_match_score=params["min_match_score"],
    )
    extras = find_extras(output.child(CHOICES), _JUDGED)
    judged: dict[str, Row] = {}
    for row in read_answers(output.child(CHOICES)):
        known = judged.get(row["choice_key"])
        if known is None or row["answer_status"] == "ok":
            judged[row["choice_key"]] = {
                **{name: row.get(name) for name in ("answer_status", "answer_error", "choice", "reason")},
                "cost_usd": row.get("answer_cost_usd"),
                EXTRAS: take_extras(row, extras),
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


@task_failures()
def write_catalogue(context: Context) -> str:
    """The workbook, with a sheet of results and one of problems. Returns its URI.

    What the prompts ask beyond what is worked with here has columns of its own.
    """
    output = open_folder(context)
    place = output.child(WORKBOOK)
    checked = output.child(CHECKED)
    extras = find_extras(output.child(COVERS), _ASKED)
    said = [name for name in find_extras(output.child(CHOICES), _JUDGED) if name not in extras]
    columns = name_columns([*extras, *said], _RESULT_COLUMNS)

    def results() -> Iterator[Row]:
        for row in read_rows(checked, made_by="check"):
            if row["state"] != GONE:
                found = row.get(EXTRAS) or {}
                yield {**row, **{column: found.get(name) for name, column in columns.items()}}

    def problems() -> Iterator[Row]:
        for row in read_rows(checked, made_by="check"):
            for found in row["findings"]:
                yield {**row, **found}

    shown = (
        *("photo", *FIELDS, *(columns[name] for name in extras)),
        *(*_CHECK_COLUMNS, *(columns[name] for name in said), "cost_usd"),
    )
    written = write_workbook(
        place,
        (
            WorkbookSheet("results", shown, results()),
            WorkbookSheet("problems", _PROBLEM_COLUMNS, problems()),
        ),
    )
    log.info("%s: %s, %s.", place.uri, number_of(written[0], "CD"), number_of(written[1], "problem"))
    return place.uri


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
