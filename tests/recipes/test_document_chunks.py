"""How documents are cut: nothing is lost, nothing is too long, and a change stays in its section."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_openai_batch.recipes.qdrant.document_chunks import DocumentChunk, cut_document

GUIDE = """# Tent

Keep it dry.

## Wind

First paragraph.

Second paragraph.

```
# no heading
```

### Pegs
At an angle.
## Rain
Vents open.
"""


def test_pieces_know_the_headings_above_them() -> None:
    assert list(cut_document(GUIDE, max_chars=200)) == [
        DocumentChunk("Tent", "Keep it dry."),
        DocumentChunk("Tent > Wind", "First paragraph.\n\nSecond paragraph.\n\n```\n# no heading\n```"),
        DocumentChunk("Tent > Wind > Pegs", "At an angle."),
        DocumentChunk("Tent > Rain", "Vents open."),
    ]


def test_long_sections_are_cut_between_paragraphs_then_sentences_then_words() -> None:
    text = "One two. Three four.\n\nFive six seven eight nine ten eleven.\n\n" + "x" * 30
    pieces = [chunk.text for chunk in cut_document(text, max_chars=20)]
    assert pieces == ["One two. Three four.", "Five six seven eight", "nine ten eleven.", "x" * 20, "x" * 10]


def test_a_change_in_one_section_leaves_the_others_as_they_are() -> None:
    before = set(cut_document(GUIDE, max_chars=200))
    after = set(cut_document(GUIDE.replace("First", "A new beginning.\n\nFirst"), max_chars=200))
    assert {chunk.heading for chunk in before ^ after} == {"Tent > Wind"}


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab .!?\n#`x", max_size=400), st.integers(1, 60))
def test_no_letter_is_lost_and_no_piece_is_too_long(text: str, max_chars: int) -> None:
    chunks = list(cut_document(text, max_chars=max_chars))
    assert all(0 < len(chunk.text) <= max_chars for chunk in chunks)
    without_headings = "".join(chunk.text for chunk in chunks)
    headings = "".join(chunk.heading for chunk in chunks)
    letters = [each for each in text if each in "abx"]
    assert without_headings.count("x") <= letters.count("x")
    if "#" not in text:
        assert headings == ""
        assert [each for each in without_headings if each in "abx"] == letters


def test_a_long_table_is_cut_between_its_rows_and_keeps_its_head() -> None:
    head = ["| part | where it is |", "| --- | --- |"]
    rows = [f"| valve {n} | shelf {n}. Left. |" for n in range(40)]
    chunks = [chunk.text for chunk in cut_document("\n".join([*head, *rows]), max_chars=200)]
    assert all(len(chunk) <= 200 for chunk in chunks)
    assert all(chunk.splitlines()[:2] == head for chunk in chunks)
    assert [line for chunk in chunks for line in chunk.splitlines()[2:]] == rows


def test_a_row_that_is_too_long_is_cut_like_any_text() -> None:
    table = "| part |\n| --- |\n| " + "word " * 100 + "|"
    chunks = [chunk.text for chunk in cut_document(table, max_chars=150)]
    assert all(len(chunk) <= 150 for chunk in chunks)
    assert sum(chunk.count("word") for chunk in chunks) == 100
