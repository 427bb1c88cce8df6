"""What tags and a summary must be before they go into a database: cleaned where that is safe, refused where not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.wording import number_of

TAGS, SUMMARY = "tags", "summary"
"""The properties of the prompt's answers."""
_DROPPED = str.maketrans("", "", "'\u2019`")
_BETWEEN = re.compile(r"[\W_]+")


class Tagged(NamedTuple):
    """An answer that keeps the rules."""

    tags: list[str]
    summary: str
    more: Mapping[str, Any] = MappingProxyType({})
    """What the prompt asks beyond these, by property."""


def clean_tag(text: str) -> str:
    """Lower case, words joined by hyphens, letters and digits of any script: ``Café culture!`` is ``café-culture``."""
    plain = unicodedata.normalize("NFKC", text).lower().translate(_DROPPED)
    return _BETWEEN.sub("-", plain).strip("-")


def read_more(answer: str | None) -> dict[str, Any]:
    """The properties of an answer beyond tags and summary."""
    try:
        said = msgspec.json.decode(answer or "")
    except msgspec.DecodeError:
        return {}
    return (
        {name: said[name] for name in said if name not in (TAGS, SUMMARY)} if isinstance(said, dict) else {}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRules:
    """What an answer must keep.

    :param clean: makes one tag fit; "" for what is none.
    :param min_tags: different ones, after cleaning. `read_schema` takes the numbers from the prompt.
    """

    clean: Callable[[str], str] = clean_tag
    max_tag_chars: int = 40
    max_summary_chars: int = 500
    min_tags: int = 1
    max_tags: int = 50

    def read_schema(self, schema: Mapping[str, Any] | None) -> TagRules:
        """With as many tags as the prompt asks for (``minItems``, ``maxItems``). Words that it lists (``enum``) stay as
        they are.

        :param schema: of the prompt's answers.
        :raises ConfigError: if its answers have no tags or no summary.
        """
        properties: Mapping[str, Any] = (schema or {}).get("properties") or {}
        if missing := [name for name in (TAGS, SUMMARY) if name not in properties]:
            raise ConfigError(
                f"The prompt's response_schema lacks {' and '.join(missing)}: its answers need the properties {TAGS} "
                f"(a list of texts) and {SUMMARY} (a text). What they are called in the payload is up to the form."
            )
        tags = properties[TAGS]
        return replace(
            self,
            clean=str.strip if "enum" in tags.get("items", {}) else self.clean,
            min_tags=tags.get("minItems", self.min_tags),
            max_tags=tags.get("maxItems", self.max_tags),
        )

    def check_answer(self, tags: Iterable[str] | None, summary: str | None) -> Tagged | str:
        """The cleaned answer, or in words what is wrong with it, which quotes nothing of it."""
        cleaned = list(dict.fromkeys(filter(None, (self.clean(tag) for tag in tags or () if tag))))
        if not self.min_tags <= len(cleaned) <= self.max_tags:
            found = number_of(len(cleaned), "different tag")
            return f"has {found}, must have {self.min_tags} to {self.max_tags}"
        longest = max(map(len, cleaned), default=0)
        if longest > self.max_tag_chars:
            return f"has a tag of {longest} characters, limit {self.max_tag_chars}"
        sentence = " ".join((summary or "").split())
        if not sentence:
            return "has no summary"
        if len(sentence) > self.max_summary_chars:
            return f"has a summary of {len(sentence):,} characters, limit {self.max_summary_chars}"
        return Tagged(cleaned, sentence)
