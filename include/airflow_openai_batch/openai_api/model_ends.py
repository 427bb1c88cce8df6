"""When models end: by what the installed ``openai`` client says of them, else by ``models.toml``.

The client is mostly younger than this package and tells the dates of its day. But an old one (2.37) tells none, and
what it tells are words below a list, which may be written otherwise one day. Its file is read, not imported: planning
works without the client.

The dates are OpenAI's, so they hold where OpenAI itself is asked: another server may serve any name for as long as it
likes. ``{"model_ends": {"gpt-4o": "2027-06-01", "gpt-4.1-nano": null}}`` in a connection's extra wins over both, for a
date that has moved, an account that keeps a model, and for the models of another server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.openai_api.model_table import read_model_table
from airflow_openai_batch.openai_api.models import (
    COMPARED_MODEL,
    DEFAULT_MODEL,
    base_model,
    undated_model,
    untuned_model,
)

ENDS_SOON = timedelta(days=60)
_MAX_NAMED = 5

OwnEnds = Mapping[str, date | None]
"""What a connection says, by model; None: it does not end."""

_LIST = re.compile(r'^    "([^"]+)",$', re.MULTILINE)
_DATE = re.compile(r"shutdown\s+date:\s+(\d{4}-\d\d-\d\d)")


class ModelEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Of a model that ends, or has ended. Part of a plan."""

    model: str
    ends_on: date
    """The first day without it."""
    successor: str = ""
    """One that does not end soon, to ask instead; empty where none is known, as of another server."""

    def is_past(self, today: date) -> bool:
        """Whether it is gone."""
        return self.ends_on <= today

    def describe(self, today: date) -> str:
        """A sentence for whoever goes on asking it."""
        ask = f"Ask {self.successor}, for instance." if self.successor else "Ask another model."
        if self.is_past(today):
            return f"{self.model} was shut down on {self.ends_on}: what it has not answered will fail. {ask}"
        days = (self.ends_on - today).days
        return f"{self.model} ends in {days} {'day' if days == 1 else 'days'}, on {self.ends_on}. {ask}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEnds:
    """What is known of ends, as a connection has it."""

    is_openai: bool = False
    """Whether OpenAI itself is asked."""
    own: OwnEnds = field(default_factory=dict)

    def find(self, models: Iterable[str], today: date) -> tuple[ModelEnd, ...]:
        """Of those that end or have ended, however far away that is; sorted."""
        return tuple(
            ModelEnd(
                model=model, ends_on=end, successor=find_successor(model, today) if self.is_openai else ""
            )
            for model in sorted(set(models))
            if (end := self._find(model)) is not None
        )

    def _find(self, model: str) -> date | None:
        for name in _list_names(model):
            if name in self.own:
                return self.own[name]
        return find_end(model) if self.is_openai else None


NO_MODEL_ENDS = ModelEnds()
"""Of a server of which nothing is known."""


def find_end(model: str) -> date | None:
    """The day on which OpenAI shuts a model down, or has; None where none is known."""
    client, names = _read_client(), _list_names(model)
    if client.ends:
        for name in names:
            if name in client.names:
                return client.ends.get(name)
    table = read_model_table().ends
    return next((table[name].date for name in names if name in table), None)


def list_client_models() -> frozenset[str]:
    """Chat models that the installed client names."""
    return _read_client().names


def find_successor(model: str, today: date) -> str:
    """What to ask instead: what OpenAI recommends, where that lives on."""
    table = read_model_table().ends
    recommended = next((table[name].successor for name in _list_names(model) if name in table), None)
    for each in (recommended, DEFAULT_MODEL, COMPARED_MODEL):
        if each is not None and ((end := find_end(each)) is None or end - today > ENDS_SOON):
            return each
    return DEFAULT_MODEL


def describe_ends(ends: Iterable[ModelEnd], today: date) -> Iterator[str]:
    """A sentence for each that is gone or ends soon."""
    for end in ends:
        if end.ends_on - today <= ENDS_SOON:
            yield end.describe(today)


def refuse_gone(ends: Sequence[ModelEnd], today: date, where: str) -> None:
    """:param where: what asks for them, for the message.
    :raises InputError: where a model is gone: each of its requests would fail, after a day of waiting.
    """
    gone = [end for end in ends if end.is_past(today)]
    if not gone:
        return
    named = ", ".join(f"{end.model} (shut down on {end.ends_on})" for end in gone[:_MAX_NAMED])
    more = f" and {len(gone) - _MAX_NAMED:,} more" if len(gone) > _MAX_NAMED else ""
    successors = ", ".join(dict.fromkeys(end.successor for end in gone if end.successor))
    ask = f"Ask for {successors} instead, for instance." if successors else "Ask for another model."
    raise InputError(
        f"{where}: asks for {named}{more}; nothing was sent. {ask} Where the account still has it, say so in the "
        f'connection\'s extra: {{"model_ends": {{"{gone[0].model[:100]}": null}}}}.'
    )


def read_own_ends(extra: Mapping[str, Any], where: str) -> OwnEnds:
    """``model_ends`` of a connection's extra.

    :param where: for messages, for instance ``connection 'openai_default'``.
    :raises ConfigError: for what is no date.
    """
    value = extra.get("model_ends")
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{where}: model_ends in its extra must be an object of dates by model, for instance "
            f'{{"{DEFAULT_MODEL}": "2030-01-31"}}.'
        )
    return {str(model): _read_date(end, f"{where}: model_ends[{model!r}]") for model, end in value.items()}


def day_of(at: float) -> date:
    """:param at: Unix seconds.
    :returns: the day, UTC."""
    return datetime.fromtimestamp(at, UTC).date()


def _read_date(value: Any, what: str) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{what}={value!r:.60} in its extra must be a date like 2030-01-31, or null where it does not end."
        ) from None


def _list_names(model: str) -> tuple[str, ...]:
    """What a model may be called in a list, the most exact name first. What is fine-tuned ends with its base."""
    names = (model, undated_model(model), untuned_model(model), base_model(model))
    return tuple(dict.fromkeys(names))


class _ClientModels(NamedTuple):
    names: frozenset[str]
    ends: dict[str, date]


@cache
def _read_client() -> _ClientModels:
    """The list of chat models of the installed client, and the dates in the words below it; empty where it has none."""
    spec = find_spec("openai")
    try:
        folder = Path(spec.origin if spec is not None and spec.origin else "").parent
        source = folder.joinpath("types", "shared", "chat_model.py").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return _ClientModels(frozenset(), {})
    models, _, words = source.partition('"""')
    return _ClientModels(frozenset(_LIST.findall(models)), dict(_read_notes(words)))


def _read_notes(words: str) -> Iterator[tuple[str, date]]:
    r"""``- "o1", "o1-2024-12-17": Announced shutdown date: 2026-10-23. See ...``"""
    for note in words.split("\n- "):
        if found := _DATE.search(note):
            for model in re.findall(r'"([^"]+)"', note):
                yield model, date.fromisoformat(found[1])
