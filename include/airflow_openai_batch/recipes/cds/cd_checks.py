"""What is wrong with a catalogued CD: each finding with the step it comes from and what a person can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.cds.cd_covers import FIELDS, Cover, score_match
from airflow_openai_batch.tables.join.answer_reader import UNFINISHED

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.json_rows import Row

GONE = "gone"
"""State of what was read from a photograph that is not there any more; the sheet of problems alone has it."""
EXTRAS = "extras"
"""What the prompts ask beyond what is checked here, by property."""


class Finding(NamedTuple):
    """A line of the sheet of problems."""

    step: str
    code: str
    detail: str
    way_out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLimits:
    """What a CD is held against.

    :param first_year: that a CD may be of.
    :param min_confidence: of the model, that it read the cover right; 0 to 1.
    :param min_match_score: of the record chosen, see `score_match`; 0 to 1.
    """

    first_year: int
    last_year: int
    min_confidence: float = 0.6
    min_match_score: float = 0.75

    def __post_init__(self) -> None:
        for name in ("min_confidence", "min_match_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be 0 to 1.")


class Checker:
    """Checks one CD after the other; remembers the records and names it has seen, about 200 bytes each."""

    def __init__(self, limits: CheckLimits) -> None:
        self._limits = limits
        self._seen: dict[str, str] = {}

    def check(self, row: Row, judgement: Row | None) -> Row:
        """The CD as it goes into the workbook, with its ``findings``.

        :param row: of the search: what was read, and the candidates.
        :param judgement: the answer of the second model step; None where there is none.
        """
        read = Cover.from_row(row)
        if row.get("is_gone"):
            return _describe_gone(row, read)
        findings = list(self._check_reading(row, read))
        chosen: Row | None = None
        if row["answer_status"] == "ok" and (read.title or read.artist):
            chosen, said = self._find_chosen(row, judgement)
            findings += said
        record = None if chosen is None else Cover.from_row(chosen)
        final = read if record is None else record
        score = None if record is None else score_match(read, record)
        if row["answer_status"] == "ok":
            findings += self._check_values(read, record, score)
            findings += self._check_repeated(row["photo"], final, chosen)
        return {
            "photo": row["photo"],
            **{name: getattr(final, name) for name in FIELDS},
            "taken_from": "catalogue" if record is not None else "cover",
            "catalogue_id": None if chosen is None else chosen["id"],
            "match_score": score,
            "confidence": row.get("confidence"),
            "as_read": str(read) or None,
            "reason": None if judgement is None else judgement.get("reason"),
            "state": _name_state(row["answer_status"], findings),
            "problems": "; ".join(found.code for found in findings) or None,
            "cost_usd": _add(row.get("cost_usd"), None if judgement is None else judgement.get("cost_usd")),
            EXTRAS: {**(row.get(EXTRAS) or {}), **((judgement or {}).get(EXTRAS) or {})},
            "findings": [found._asdict() for found in findings],
        }

    def _check_reading(self, row: Row, read: Cover) -> Iterator[Finding]:
        status, error = row["answer_status"], row.get("answer_error") or ""
        if status == "rejected":
            yield Finding(
                "read_covers",
                "photo_rejected",
                error,
                "Mend the file or the setting that it names, or take it again.",
            )
            return
        if status == UNFINISHED:
            yield Finding(
                "read_covers", "not_yet_read", error, "Run again: it goes on with what has no answer yet."
            )
            return
        if status != "ok":
            yield Finding(
                "read_covers", "not_read", f"{status}: {error}", "Run again: only this photograph is sent."
            )
            return
        confidence = row.get("confidence")
        if confidence is None or confidence < self._limits.min_confidence:
            detail = f"confidence {confidence}, limit {self._limits.min_confidence:g}"
            yield Finding("read_covers", "unsure", detail, "Compare with the photograph.")
        for name in ("title", "artist"):
            if getattr(read, name) is None:
                yield Finding("clean_covers", f"no_{name}", f"no {name} on the cover", "Type it in.")

    def _find_chosen(self, row: Row, judgement: Row | None) -> tuple[Row | None, list[Finding]]:
        """The candidate that the model chose."""
        candidates = row["candidates"]
        if not candidates:
            way_out = "Look for it by hand, or widen the search of the catalogue."
            return None, [
                Finding("find_candidates", "no_candidate", "the catalogue has nothing like it", way_out)
            ]
        if judgement is None or judgement["answer_status"] != "ok":
            why = (
                "no answer yet"
                if judgement is None
                else f"{judgement['answer_status']}: {judgement.get('answer_error') or ''}"
            )
            return None, [Finding("judge", "not_judged", why, "Run again: only what has no answer is sent.")]
        choice = judgement.get("choice")
        if choice == 0:
            detail = f"none of {len(candidates)} candidates is this CD"
            return None, [Finding("judge", "none_chosen", detail, "Look for it by hand.")]
        if not isinstance(choice, int) or not 1 <= choice <= len(candidates):
            detail = f"candidate {choice} of {len(candidates)}"
            return None, [Finding("judge", "no_such_candidate", detail, "Choose by hand.")]
        return candidates[choice - 1], []

    def _check_values(self, read: Cover, record: Cover | None, score: float | None) -> Iterator[Finding]:
        final = read if record is None else record
        if final.year is None:
            yield Finding("check", "no_year", "neither cover nor catalogue says one", "Type it in.")
        elif not self._limits.first_year <= final.year <= self._limits.last_year:
            detail = f"{final.year} is not within {self._limits.first_year} to {self._limits.last_year}"
            yield Finding(
                "check", "year_implausible", detail, "Is it the year of the recording, or of an LP?"
            )
        if record is None:
            return
        if read.year and record.year and abs(read.year - record.year) > 1:
            detail = f"cover {read.year}, catalogue {record.year}"
            yield Finding("check", "year_differs", detail, "Another edition? Compare with the photograph.")
        if score is not None and score < self._limits.min_match_score:
            detail = f"match {score:g}, limit {self._limits.min_match_score:g}"
            yield Finding("check", "weak_match", detail, "Compare with the catalogue's record.")

    def _check_repeated(self, photo: str, final: Cover, chosen: Row | None) -> Iterator[Finding]:
        if chosen is None and not (final.title and final.artist):
            return
        name = (
            f"id {chosen['id']}"
            if chosen
            else f"{final.artist}\n{final.title}\n{final.catalogue_number}".casefold()
        )
        first = self._seen.setdefault(name, photo)
        if first != photo:
            yield Finding(
                "check", "duplicate", f"the same CD as {first}", "Two copies, or one photographed twice?"
            )


def _name_state(status: str, findings: list[Finding]) -> str:
    if status == "ok":
        return "look at it" if findings else "good"
    return "not yet read" if status == UNFINISHED else "not read"


def _describe_gone(row: Row, read: Cover) -> Row:
    way_out = "Put it back as it was to have it among the results again; what was read of it is kept."
    found = Finding("list_photos", "photo_gone", "was read before; its file is not there any more", way_out)
    kept = {"photo": row["photo"], **{name: getattr(read, name) for name in FIELDS}}
    return {**kept, "state": GONE, "problems": found.code, "findings": [found._asdict()]}


def _add(first: Any, second: Any) -> float | None:
    known = [cost for cost in (first, second) if cost is not None]
    return round(sum(known), 8) if known else None
