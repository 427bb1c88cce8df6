"""The rules that tags and summaries keep."""

from __future__ import annotations

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.qdrant.tags import Tagged, TagRules, clean_tag, read_more

RULES = TagRules(min_tags=3, max_tags=5)


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
    found = RULES.check_answer(["Tide Mill", "tide-mill", "Flour", "!", "salt marsh"], " A mill\nturns. ")
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
    found = RULES.check_answer(tags, summary)
    assert isinstance(found, str)
    assert problem in found


def make_schema(**tags: object) -> dict[str, object]:
    return {"type": "object", "properties": {"tags": tags, "summary": {"type": "string"}}}


def test_the_prompt_says_how_many_tags_there_are() -> None:
    rules = TagRules().read_schema(make_schema(type="array", minItems=2, maxItems=3))
    assert rules.check_answer(["one"], "A sentence.") == "has 1 different tag, must have 2 to 3"
    assert isinstance(rules.check_answer(["one", "two"], "A sentence."), Tagged)
    any_number = TagRules().read_schema(make_schema(type="array"))
    assert isinstance(any_number.check_answer(["one"], "A sentence."), Tagged)


def test_words_that_the_prompt_lists_are_written_as_they_are() -> None:
    listed = make_schema(type="array", items={"enum": ["Late delivery", "Refund / return"]})
    found = TagRules().read_schema(listed).check_answer(["Refund / return"], "A sentence.")
    assert found == Tagged(["Refund / return"], "A sentence.")


@pytest.mark.parametrize("schema", [None, {}, {"properties": {"topics": {}, "summary": {}}}])
def test_a_prompt_whose_answers_have_no_tags_is_refused_before_anything_is_asked(schema: object) -> None:
    with pytest.raises(ConfigError, match="response_schema lacks tags"):
        TagRules().read_schema(schema)  # type: ignore[arg-type]


def test_what_a_prompt_asks_beyond_tags_and_summary_is_kept() -> None:
    assert read_more('{"tags": ["a"], "summary": "s", "mood": "calm", "resolved": true}') == {
        "mood": "calm",
        "resolved": True,
    }
    assert read_more("no object") == read_more("[1]") == read_more(None) == {}
