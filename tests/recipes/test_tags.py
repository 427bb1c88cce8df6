"""The rules that tags and summaries keep."""

from __future__ import annotations

import pytest

from airflow_openai_batch.recipes.qdrant.tags import Tagged, check_answer, clean_tag


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("Tide Mill", "tide-mill"),
        ("  #Open_Source! ", "open-source"),
        ("Café culture", "café-culture"),
        ("farmer's market", "farmers-market"),
        ("R&D / Budget 2026", "r-d-budget-2026"),
        ("STRASSE — Größe", "strasse-größe"),
        ("…", ""),
    ],
)
def test_tags_are_lower_case_and_hyphenated(given: str, clean: str) -> None:
    assert clean_tag(given) == clean


def test_a_good_answer_is_cleaned_and_equal_tags_count_once() -> None:
    found = check_answer(["Tide Mill", "tide-mill", "Flour", "!", "salt marsh"], " A mill\nturns. ")
    assert found == Tagged(["tide-mill", "flour", "salt-marsh"], "A mill turns.")


@pytest.mark.parametrize(
    ("tags", "summary", "problem"),
    [
        (["one", "One", "two"], "A sentence.", "has 2 different tags, must have 3 to 5"),
        (list("abcdef"), "A sentence.", "has 6 different tags"),
        (None, "A sentence.", "has 0 different tags"),
        (["a", "b", "c" * 41], "A sentence.", "has a tag of 41 characters, limit 40"),
        (["a", "b", "c"], " ", "has no summary"),
        (["a", "b", "c"], None, "has no summary"),
        (["a", "b", "c"], "x" * 501, "has a summary of 501 characters"),
    ],
)
def test_what_breaks_the_rules_is_said(tags: list[str] | None, summary: str | None, problem: str) -> None:
    found = check_answer(tags, summary)
    assert isinstance(found, str)
    assert problem in found
