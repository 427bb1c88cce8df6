"""Which prompt the rounds of a folder were asked with: answers to two prompts never stand in one result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.errors import InputChangedError
from airflow_openai_batch.recipes.job_folder import read_note, write_note

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

_NOTE = "asked_with.json"


class AskedWith(msgspec.Struct, frozen=True, kw_only=True):
    """What ``asked_with.json`` of a round holds; those that earlier releases began, and repairs, have none."""

    name: str
    version: str
    model: str
    words: str
    """Digest of what is asked. Parameters and the limits of images are no part of it: they may be changed to get an
    answer where there was none."""


def note_prompt(place: Location, prompt: PromptSpec) -> None:
    """Beside the rows of a round that begins."""
    write_note(place.child(_NOTE), _describe(prompt))


def check_same_prompt(rounds: Iterable[Location], prompt: PromptSpec) -> None:
    """:param rounds: whose answers are in the result, the first round first.
    :raises InputChangedError: if they were asked with another prompt.
    """
    notes = ((place, read_note(place.child(_NOTE), AskedWith)) for place in rounds)
    place, then = next(((place, note) for place, note in notes if note is not None), (None, None))
    now = _describe(prompt)
    if place is None or then is None or then == now:
        return
    raise InputChangedError(
        f"{place.uri}: was asked before; since then changed: {', '.join(_name_changes(then, now))}. A result has "
        "answers to one prompt alone. Choose another output_uri, or set on_existing=restart, which asks about "
        "everything anew, and pays for it. Only what has no good answer goes to the prompt as it is now with "
        "repair=true."
    )


def _describe(prompt: PromptSpec) -> AskedWith:
    said = [prompt.url, prompt.system, prompt.user, prompt.input, prompt.response_schema, prompt.strict]
    seen = [[image.column, image.detail] for image in prompt.images]
    digest = hashlib.blake2b(msgspec.json.encode([said, seen], order="sorted"), digest_size=12)
    return AskedWith(
        name=prompt.name, version=str(prompt.version), model=prompt.model, words=digest.hexdigest()
    )


def _name_changes(then: AskedWith, now: AskedWith) -> list[str]:
    pairs = {
        "the prompt": (f"{then.name} version {then.version}", f"{now.name} version {now.version}"),
        "the model": (then.model, now.model),
    }
    found = [f"{name} (was {old}, now {new})" for name, (old, new) in pairs.items() if old != new]
    return found or [f"what the prompt {now.name} says, under the same version {now.version}"]
