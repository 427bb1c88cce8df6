"""A document in pieces that are worth a vector each: by headings and paragraphs, so that a change in one section leaves
the pieces of the others, and with them their vectors, as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?\u2026])\s+")
_LONGEST_HEADING = 200


class DocumentChunk(NamedTuple):
    """A piece of a document."""

    heading: str
    """Those above it, outermost first: ``Espresso machine > Descaling``; empty before the first."""
    text: str


def cut_pages(
    pages: Iterable[tuple[int | None, str]], *, max_chars: int
) -> Iterator[tuple[int | None, DocumentChunk]]:
    """The pieces in their order, each with the number of its page; whole paragraphs as far as they fit. A heading
    holds for the pages after it, too.

    :param pages: number and text, plain or Markdown; without a number where there are none.
    :param max_chars: of a piece, without its heading. A longer paragraph is cut between sentences, a longer sentence
        between words.
    """
    headings: dict[int, str] = {}
    for number, text in pages:
        is_bare = number is not None  # a slide may be its title alone
        for heading, body in _read_sections(text, headings):
            packed = ""
            for paragraph in _read_paragraphs(body, max_chars):
                if packed and len(packed) + 2 + len(paragraph) > max_chars:
                    is_bare = False
                    yield number, DocumentChunk(heading, packed)
                    packed = ""
                packed = f"{packed}\n\n{paragraph}" if packed else paragraph
            if packed:
                is_bare = False
                yield number, DocumentChunk(heading, packed)
        if is_bare and headings:
            *above, title = headings.values()
            yield number, DocumentChunk(_join_headings(above), title[:max_chars])


def cut_document(text: str, *, max_chars: int) -> Iterator[DocumentChunk]:
    """The pieces of a document without pages, see `cut_pages`."""
    return (chunk for _, chunk in cut_pages([(None, text)], max_chars=max_chars))


def _read_sections(text: str, headings: dict[int, str]) -> Iterator[tuple[str, list[str]]]:
    """Headings and the lines below each; what stands in a code block is no heading.

    :param headings: those above the text; after it, those of its end.
    """
    lines: list[str] = []
    in_code = False
    for line in text.splitlines():
        if _FENCE.match(line):
            in_code = not in_code
        found = None if in_code else _HEADING.fullmatch(line)
        if found is None:
            lines.append(line)
            continue
        yield _join_headings(headings.values()), lines
        level = len(found.group(1))
        for each in [each for each in headings if each >= level]:
            del headings[each]
        headings[level] = found.group(2)
        lines = []
    yield _join_headings(headings.values()), lines


def _join_headings(headings: Iterable[str]) -> str:
    return " > ".join(headings)[:_LONGEST_HEADING]


def _read_paragraphs(lines: list[str], max_chars: int) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        paragraph = block.strip()
        if len(paragraph) <= max_chars:
            if paragraph:
                yield paragraph
        elif rows := _read_table(paragraph, max_chars):
            yield from _pack_rows(rows, max_chars)
        else:
            yield from _pack(_BETWEEN_SENTENCES.split(paragraph), max_chars)


def _read_table(paragraph: str, max_chars: int) -> list[str]:
    """The lines of a table; none where it is no table, or a row with the head is too long for a piece."""
    lines = paragraph.split("\n")
    is_table = len(lines) > 2 and all(line.startswith("|") for line in lines)
    longest = sum(map(len, lines[:2])) + 2 + max(map(len, lines[2:]), default=0)
    return lines if is_table and longest <= max_chars else []


def _pack_rows(lines: list[str], max_chars: int) -> Iterator[str]:
    """Whole rows, below the table's head each time: without it nobody knows what a number means."""
    head = "\n".join(lines[:2])
    packed = head
    for line in lines[2:]:
        if packed != head and len(packed) + 1 + len(line) > max_chars:
            yield packed
            packed = head
        packed = f"{packed}\n{line}"
    yield packed


def _pack(pieces: list[str], max_chars: int) -> Iterator[str]:
    packed = ""
    for piece in pieces:
        for part in [piece] if len(piece) <= max_chars else _cut_words(piece, max_chars):
            if packed and len(packed) + 1 + len(part) > max_chars:
                yield packed
                packed = ""
            packed = f"{packed} {part}" if packed else part
    if packed:
        yield packed


def _cut_words(sentence: str, max_chars: int) -> Iterator[str]:
    rest = sentence
    while len(rest) > max_chars:
        at = rest.rfind(" ", 1, max_chars + 1)
        cut = at if at > 0 else max_chars
        yield rest[:cut].rstrip()
        rest = rest[cut:].lstrip()
    if rest:
        yield rest
