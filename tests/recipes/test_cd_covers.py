"""Cleaning of what a model read on CD covers, and how a match is scored."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.cds.cd_checks import Checker, CheckLimits
from airflow_openai_batch.recipes.cds.cd_covers import Cover, clean_cover, read_year, score_match


@pytest.mark.parametrize(
    ("read", "clean"),
    [
        ({"title": "  “Slow  Weather” "}, Cover(title="Slow Weather")),
        ({"title": "BLUE OF THE HARBOUR"}, Cover(title="Blue of the Harbour")),
        ({"title": "ABBA"}, Cover(title="ABBA")),
        ({"artist": "Paper Lanterns, The"}, Cover(artist="The Paper Lanterns")),
        ({"artist": "N/A", "label": "unknown", "year": "?"}, Cover()),
        ({"catalogue_number": "fdr 7  21"}, Cover(catalogue_number="FDR 7 21")),
        ({"year": "(P) 1999 (C) 2001"}, Cover(year=2001)),
        ({"title": None, "artist": 1999}, Cover(artist="1999")),
    ],
)
def test_what_was_read_is_cleaned(read: dict[str, object], clean: Cover) -> None:
    assert clean_cover(read) == clean


@pytest.mark.parametrize(
    ("text", "year"), [("MCMXC", None), ("℗1994", 1994), ("No. 19941", None), ("", None), ("c. 1789", None)]
)
def test_years_are_found_where_they_are(text: str, year: int | None) -> None:
    assert read_year(text) == year


def test_a_match_is_scored_by_what_both_sides_say() -> None:
    read = Cover(title="Machines for Rain", artist="Copper Antenna", catalogue_number="OHM 33")
    same = Cover(title="machines for rain", artist="Copper  Antenna", year=2001, catalogue_number="ohm-33")
    other = Cover(title="Machines for Snow", artist="Copper Antenna", year=2005, catalogue_number="OHM-51")
    assert score_match(read, same) == 1
    assert 0.3 < score_match(read, other) < 0.75
    assert score_match(read, Cover(label="Ohm", year=2001)) == 0
    assert score_match(Cover(), same) == 0


def row(**changes: object) -> dict[str, object]:
    read = {"title": "Harbour", "artist": "Lanterns", "year": 1994, "label": None, "catalogue_number": None}
    candidates = [{"id": "a", **read}, {"id": "b", **read, "title": "Elsewhere", "year": 1971}]
    found = {"photo": "1.png", "answer_status": "ok", "confidence": 0.9, "candidates": candidates, **read}
    return found | changes


def judged(choice: object, status: str = "ok") -> dict[str, object]:
    return {"answer_status": status, "choice": choice, "reason": "r", "cost_usd": 0.1}


@pytest.mark.parametrize(
    ("given", "judgement", "codes"),
    [
        (row(), judged(1), []),
        (row(), judged(0), ["none_chosen"]),
        (row(), judged(7), ["no_such_candidate"]),
        (row(), judged(None, "failed"), ["not_judged"]),
        (row(), None, ["not_judged"]),
        (row(), judged(2), ["year_implausible", "year_differs", "weak_match"]),
        (row(year=2031), judged(0), ["none_chosen", "year_implausible"]),
        (row(confidence=None), judged(1), ["unsure"]),
        (row(candidates=[]), None, ["no_candidate"]),
        (row(answer_status="rejected", title=None, artist=None), None, ["photo_rejected"]),
    ],
)
def test_problems_are_found(
    given: dict[str, object], judgement: dict[str, object] | None, codes: list[str]
) -> None:
    checked = Checker(CheckLimits(first_year=1982, last_year=2026)).check(given, judgement)
    assert [found["code"] for found in checked["findings"]] == codes
    assert all(found["detail"] or found["code"] == "photo_rejected" for found in checked["findings"])
    assert (checked["state"] == "good") == (not codes)


def test_the_second_of_two_photographs_of_a_cd_is_named_with_the_first() -> None:
    checker = Checker(CheckLimits(first_year=1982, last_year=2026))
    assert checker.check(row(), judged(1))["problems"] is None
    second = checker.check(row(photo="2.png"), judged(1))
    assert [(found["code"], found["detail"]) for found in second["findings"]] == [
        ("duplicate", "the same CD as 1.png")
    ]


def test_a_limit_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"min_confidence=60: must be 0 to 1"):
        CheckLimits(first_year=1982, last_year=2026, min_confidence=60)
