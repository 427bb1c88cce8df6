"""What a tag and a summary must be before they go into a database: cleaned where that is safe, refused where not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

MIN_TAGS = 3
MAX_TAGS = 5
MAX_TAG_CHARS = 40
MAX_SUMMARY_CHARS = 500

_DROPPED = str.maketrans("", "", "'\u2019`")
_BETWEEN = re.compile(r"[\W_]+")


class Tagged(NamedTuple):
    """An answer that keeps the rules."""

    tags: list[str]
    summary: str


def clean_tag(text: str) -> str:
    """Lower case, words joined by hyphens, letters and digits of any script: ``Café culture!`` is ``café-culture``."""
    plain = unicodedata.normalize("NFKC", text).lower().translate(_DROPPED)
    return _BETWEEN.sub("-", plain).strip("-")


def check_answer(tags: Iterable[str] | None, summary: str | None) -> Tagged | str:
    """The cleaned answer, or in words what is wrong with it, which quotes nothing of it."""
    cleaned = list(dict.fromkeys(filter(None, (clean_tag(tag) for tag in tags or () if tag))))
    if not MIN_TAGS <= len(cleaned) <= MAX_TAGS:
        return f"has {len(cleaned)} different tags, must have {MIN_TAGS} to {MAX_TAGS}"
    longest = max(map(len, cleaned))
    if longest > MAX_TAG_CHARS:
        return f"has a tag of {longest} characters, limit {MAX_TAG_CHARS}"
    sentence = " ".join((summary or "").split())
    if not sentence:
        return "has no summary"
    if len(sentence) > MAX_SUMMARY_CHARS:
        return f"has a summary of {len(sentence):,} characters, limit {MAX_SUMMARY_CHARS}"
    return Tagged(cleaned, sentence)
