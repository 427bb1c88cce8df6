"""What stands beside tags in a payload: by which prompt they are, and what was asked in vain."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from airflow_openai_batch.errors import ConfigError

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.tags import Tagged

TAGS, SUMMARY, TAGGING = "tags", "summary", "tagging"
"""The keys of the payload by default; the third says by which prompt a point was tagged."""
ANSWERS = "answers"
"""Below the mark: what the prompt asks beyond tags and summary."""
FAILED = "failed"
"""Below the mark: the last question in vain."""
_OUTPUT_KEY = re.compile(r"[\w-]{1,100}")
_LONGEST_REASON = 200


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of the payload: where the transcript is read (``a.b`` looks into an object), and where answers go."""

    text: str = "text"
    title: str = "title"
    tags: str = TAGS
    summary: str = SUMMARY
    tagging: str = TAGGING

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ConfigError("text_field is empty: name the key of the payload that has the transcript.")
        for parameter in ("tags", "summary", "tagging"):
            if not _OUTPUT_KEY.fullmatch(getattr(self, parameter)):
                raise ConfigError(
                    f"{parameter}_field={getattr(self, parameter)[:40]!r}: must be a key of its own at the top of the "
                    "payload: letters, digits, '_' and '-', at most 100."
                )
        if len(set(self.written)) < len(self.written):
            raise ConfigError("tags_field, summary_field and tagging_field must be three different keys.")
        for name in self.names:
            if name.partition(".")[0] in self.written:
                raise ConfigError(
                    f"{name!r}: is where answers are written ({', '.join(self.written)}), so it cannot hold the "
                    "transcript or its title, too. Name another key."
                )

    @property
    def names(self) -> list[str]:
        """What is read."""
        return [name for name in (self.text, self.title) if name]

    @property
    def values(self) -> tuple[str, str]:
        """Where what was answered goes."""
        return self.tags, self.summary

    @property
    def written(self) -> tuple[str, str, str]:
        return self.tags, self.summary, self.tagging

    @property
    def are_usual(self) -> bool:
        """Whether answers go where they always went, so that their marks need not say where."""
        return self.values == (TAGS, SUMMARY)


class Prompt(Protocol):
    """A prompt as it was read or prepared."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str | int | float: ...
    @property
    def sha256(self) -> str: ...


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of answers, as marks have it."""

    prompt: str
    prompt_version: int | float | str
    prompt_digest: str
    """Of its words, model and parameters."""


def find_origin(prompt: Prompt) -> Origin:
    return Origin(
        prompt=prompt.name, prompt_version=read_version(prompt.version), prompt_digest=prompt.sha256[:16]
    )


def read_version(version: object) -> int | float | str:
    """A prompt's version as it goes into payloads: a number where it is one, so that older ones can be told."""
    text = str(version).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def find_foreign_keys(payload: Mapping[str, Any], fields: Fields) -> list[str]:
    """Those of our keys with values that others wrote: without our mark beside them, or not those any more that the
    mark was made for."""
    there = [name for name in fields.values if payload.get(name)]
    mark = payload.get(fields.tagging)
    if mark and not _is_ours(mark):
        return [*there, fields.tagging]
    if not mark or "prompt" not in mark or _read_keys(mark) != fields.values:
        return there
    seen = mark.get("values_digest")  # earlier releases wrote none
    return [] if seen is None or seen == _digest_values(*map(payload.get, fields.values)) else there


def make_payload(
    tagged: Tagged, fields: Fields, origin: Origin, *, model: str | None, cost_usd: float
) -> dict[str, Any]:
    """What is set in a point that has its answer."""
    mark: dict[str, Any] = {
        **msgspec.structs.asdict(origin),
        "model": model,
        "cost_usd": cost_usd,
        "values_digest": _digest_values(tagged.tags, tagged.summary),
    }
    if not fields.are_usual:
        mark["keys"] = list(fields.values)
    if tagged.more:
        mark[ANSWERS] = dict(tagged.more)
    return {fields.tags: tagged.tags, fields.summary: tagged.summary, fields.tagging: mark}


def mark_failure(
    payload: Mapping[str, Any], fields: Fields, origin: Origin, *, text: str, code: str, reason: str
) -> dict[str, Any]:
    """What is set in a point that was asked about in vain; what it has of an earlier prompt stays."""
    mark = payload.get(fields.tagging)
    failed = {
        **msgspec.structs.asdict(origin),
        "text_digest": _digest_text(text),
        "code": code,
        "reason": reason[:_LONGEST_REASON],
    }
    return {fields.tagging: {**(mark if isinstance(mark, Mapping) else {}), FAILED: failed}}


def find_failure(
    payload: Mapping[str, Any], fields: Fields, origin: Origin, text: str
) -> dict[str, Any] | None:
    """The note on the same question about the same text, asked in vain."""
    mark = payload.get(fields.tagging)
    failed = mark.get(FAILED) if isinstance(mark, Mapping) else None
    if not isinstance(failed, dict) or failed.get("prompt_digest") != origin.prompt_digest:
        return None
    return failed if failed.get("text_digest") == _digest_text(text) else None


def is_newer(mark: object, origin: Origin) -> bool:
    """Whether a later version of the prompt wrote the mark."""
    if not isinstance(mark, Mapping) or mark.get("prompt") != origin.prompt:
        return False
    theirs, ours = mark.get("prompt_version"), origin.prompt_version
    return isinstance(theirs, (int, float)) and isinstance(ours, (int, float)) and theirs > ours


def _is_ours(mark: object) -> bool:
    return isinstance(mark, Mapping) and (
        {"prompt", "prompt_version"} <= mark.keys() or mark.keys() == {FAILED}
    )


def _read_keys(mark: Mapping[str, Any]) -> tuple[str, ...]:
    keys = mark.get("keys")
    return tuple(map(str, keys)) if isinstance(keys, list) else (TAGS, SUMMARY)


def _digest_values(tags: Any, summary: Any) -> str:
    """Of what is written into a point, so that a change of somebody else's shows."""
    return hashlib.sha256(msgspec.json.encode([tags, summary], order="sorted")).hexdigest()[:16]


def _digest_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
