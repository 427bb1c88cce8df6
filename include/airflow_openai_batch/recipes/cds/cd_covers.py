"""What a model read on CD covers, cleaned by plain code: rules that can be tested and no model need be told."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NOTHING = frozenset({"", "n/a", "na", "none", "null", "unknown", "unreadable", "not visible", "-", "?"})
_SPACES = re.compile(r"\s+")
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d)(?!\d)")
_ARTICLE_LAST = re.compile(
    r"^(?P<name>.+), (?P<article>the|a|an|les?|la|die|der|das|los|las|el)$", re.IGNORECASE
)
_QUOTES = "\"'“”„\u2018\u2019«»"
_SMALL = frozenset({"a", "an", "and", "at", "by", "for", "in", "of", "on", "or", "the", "to"})
_WORD = re.compile(r"[^\W_]+")
_NUMBER_PARTS = re.compile(r"[A-Z]+|\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """What is known of a CD; None where nothing is."""

    title: str | None = None
    artist: str | None = None
    year: int | None = None
    label: str | None = None
    catalogue_number: str | None = None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Cover:
        """:param row: with these names among its keys, clean already."""
        return cls(**{name: row.get(name) for name in FIELDS})

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Cover:
        """:param values: of a library's record, by these names, in whatever type they have there."""
        texts = {name: str(value) for name, value in values.items() if value not in (None, "")}
        year = read_year(texts.pop("year", None))
        return cls(**texts, year=year)

    def __str__(self) -> str:
        """``Title, Artist, 1994, Label, TW 1042``."""
        values = (self.title, self.artist, self.year, self.label, self.catalogue_number)
        return ", ".join(str(value) for value in values if value is not None)


FIELDS = ("title", "artist", "year", "label", "catalogue_number")


def clean_cover(read: dict[str, Any]) -> Cover:
    """One answer of the model as it may be compared.

    :param read: ``title``, ``artist``, ``year`` (as printed), ``label``, ``catalogue_number``: texts or None.
    """
    number = clean_text(read.get("catalogue_number"))
    return Cover(
        title=settle_case(clean_text(read.get("title"))),
        artist=settle_case(put_article_first(clean_text(read.get("artist")))),
        year=read_year(clean_text(read.get("year"))),
        label=settle_case(clean_text(read.get("label"))),
        catalogue_number=None if number is None else number.upper(),
    )


def clean_text(value: object) -> str | None:
    """Without quotes around it and double spaces; None where it says that there is nothing."""
    if value is None:
        return None
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", str(value))).strip().strip(_QUOTES).strip()
    return None if text.casefold() in _NOTHING else text


def put_article_first(name: str | None) -> str | None:
    """``Paper Lanterns, The`` as ``The Paper Lanterns``."""
    found = None if name is None else _ARTICLE_LAST.match(name)
    return name if found is None else f"{found['article'].capitalize()} {found['name']}"


def settle_case(text: str | None) -> str | None:
    """``BLUE OF THE HARBOUR`` as ``Blue of the Harbour``; abbreviations of one word (``ABBA``, ``EP``) stay."""
    if text is None or not text.isupper() or " " not in text:
        return text
    words = text.lower().split(" ")
    return " ".join(
        word if at and word in _SMALL else word[:1].upper() + word[1:] for at, word in enumerate(words)
    )


def read_year(text: str | None) -> int | None:
    """The latest year that stands there: of ``(P) 1999 (C) 2001`` that of this edition."""
    found = [int(year) for year in _YEAR.findall(text or "")]
    return max(found, default=None)


def fold(text: str | None) -> frozenset[str]:
    """The words of a text, without case and accents, for comparisons."""
    plain = unicodedata.normalize("NFKD", text or "")
    return frozenset(
        _WORD.findall("".join(each for each in plain if not unicodedata.combining(each)).casefold())
    )


def fold_number(text: str | None) -> str:
    """A catalogue number as its letters and digits alone: ``OHM-33`` and ``ohm 33`` are the same."""
    return " ".join(_NUMBER_PARTS.findall((text or "").upper()))


def score_match(read: Cover, record: Cover) -> float:
    """How well a record fits what was read, 0 to 1; only what both say counts, and it needs title or artist.

    Titles weigh most; a catalogue number that is the same says more than a year.
    """
    weighed: list[tuple[float, float]] = []
    for name, weight in (("title", 4.0), ("artist", 3.0), ("label", 0.5)):
        mine, theirs = fold(getattr(read, name)), fold(getattr(record, name))
        if mine and theirs:
            weighed.append((weight, len(mine & theirs) / len(mine | theirs)))
    if not weighed or weighed[0][0] < 1:
        return 0.0
    mine_number, their_number = fold_number(read.catalogue_number), fold_number(record.catalogue_number)
    if mine_number and their_number:
        weighed.append((2.0, float(mine_number == their_number)))
    if read.year and record.year:
        weighed.append((1.0, max(0.0, 1 - abs(read.year - record.year) / 5)))
    return round(sum(weight * share for weight, share in weighed) / sum(weight for weight, _ in weighed), 3)
