"""What is known of OpenAI's models: the encoding they count with, how much they can read and write.

From `genai-prices` (windows) and ``models.toml`` (the rest). A newer model than those is taken for the youngest of its
family among them; one without a family is counted with the newest encoding and not checked against a context window.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow_openai_batch.openai_api.model_table import EncodingName, read_model_table

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

DEFAULT_MODEL = "gpt-6-luna"
"""What the demo, the example DAGs, the prompts and the docs ask: the cheapest chat model that is not about to end."""
COMPARED_MODEL = "gpt-5.4-mini"
"""What an example compares it with."""

DEFAULT_ENCODING: EncodingName = "o200k_base"
"""Of every model since gpt-4o."""

_MOST_NAMES = 1_024
"""That are remembered: requests and answers may hold any."""
_DATED = re.compile(r"-20\d\d-\d\d-\d\d$")
_FINE_TUNED = re.compile(r"^ft:([^:]+):")
_FAMILY = re.compile(r"(?P<line>gpt-|o|text-embedding-)(?P<version>\d+(?:\.\d+)?)(?P<size>(?:-[a-z]+)?)")


def undated_model(model: str) -> str:
    """The model without its date."""
    return _DATED.sub("", model)


def untuned_model(model: str) -> str:
    """The model without what fine-tuning adds to the name."""
    tuned = _FINE_TUNED.match(model)
    return tuned[1] if tuned else model


def base_model(model: str) -> str:
    """The model without its date and without what fine-tuning adds to the name."""
    return undated_model(untuned_model(model))


@lru_cache(maxsize=_MOST_NAMES)
def find_price_entry(model: str) -> ModelInfo | None:
    """What `genai-prices` has of a model of OpenAI's; None where it does not know it."""
    import genai_prices  # a third of a second of imports, for nothing where a DAG is parsed

    try:
        usage = genai_prices.Usage(input_tokens=1, output_tokens=1)
        return genai_prices.calc_price(usage, model_ref=model, provider_id="openai").model
    except LookupError:
        return None


def list_priced_models() -> tuple[str, ...]:
    """Names of models that read and write text, in `genai-prices`."""
    from genai_prices.data_snapshot import get_snapshot

    openai = next(each for each in get_snapshot().providers if each.id == "openai")
    return tuple(entry.id for entry in openai.models if entry.context_window is not None)


@lru_cache(maxsize=_MOST_NAMES)
def encoding_of(model: str) -> tuple[EncodingName, bool]:
    """The encoding of a model, and whether that is known.

    False: tiktoken names none (0.14 none for gpt-6), and the newest one is assumed, as users found it to be.
    """
    name = base_model(model)
    for prefix, encoding in read_model_table().encodings:
        if name.startswith(prefix):
            return encoding, True
    return DEFAULT_ENCODING, False


@lru_cache(maxsize=_MOST_NAMES)
def most_output_tokens(model: str) -> int | None:
    """The most tokens a model can write in one answer, or None where that is not known here."""
    rows = read_model_table().models
    name = find_youngest_of_family(base_model(model), rows)
    return None if name is None else rows[name].output_tokens


@lru_cache(maxsize=_MOST_NAMES)
def context_tokens(model: str) -> int | None:
    """The most tokens a model can read, of embeddings in each input, or None where that is not known here."""
    name = base_model(model)
    own = _find_window(name)
    if own is not None or find_price_entry(name) is not None:
        return own
    relative = find_youngest_of_family(name, read_model_table().models)
    return None if relative is None else _find_window(relative)


def _find_window(name: str) -> int | None:
    row = read_model_table().models.get(name)
    if row is not None and row.context_tokens is not None:
        return row.context_tokens
    entry = find_price_entry(name)
    return None if entry is None else entry.context_window


@lru_cache(maxsize=_MOST_NAMES)
def find_stand_in(model: str) -> str | None:
    """The model that an unknown one is counted and limited like; None where it is known, or has no family."""
    name, rows = base_model(model), read_model_table().models
    if name in rows or find_price_entry(name) is not None:
        return None
    return find_youngest_of_family(name, rows)


def find_youngest_of_family(name: str, known: Collection[str]) -> str | None:
    """The name itself where it is known; else the youngest of its family (``luna`` of ``gpt-``) that is not younger.

    None where it has no family, as names of other servers have none.
    """
    if name in known:
        return name
    wanted = read_family(name)
    if wanted is None:
        return None
    found = {each: family for each in known if (family := read_family(each)) is not None}
    older = [
        each for each, (family, version) in found.items() if family == wanted[0] and version <= wanted[1]
    ]
    return max(older, key=lambda each: found[each][1], default=None)


def read_family(name: str) -> tuple[tuple[str, str], tuple[int, int]] | None:
    """Family and version: (``gpt-``, ``-luna``) and (6, 1); None where the name has none."""
    found = _FAMILY.fullmatch(name)
    if found is None:
        return None
    major, _, minor = found["version"].partition(".")
    return (found["line"], found["size"]), (int(major), int(minor or 0))
