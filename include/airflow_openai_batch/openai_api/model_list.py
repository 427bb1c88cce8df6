"""All models that something is known of, one line each: what a person chooses from."""

from __future__ import annotations

import re
from datetime import date

import msgspec

from airflow_openai_batch.openai_api.model_ends import find_end, find_successor, list_client_models
from airflow_openai_batch.openai_api.model_table import read_model_table
from airflow_openai_batch.openai_api.models import (
    context_tokens,
    find_stand_in,
    list_priced_models,
    most_output_tokens,
    read_family,
    undated_model,
)
from airflow_openai_batch.openai_api.prices import BATCH, find_known_prices, has_flex

_NO_BATCH = re.compile(r"audio|realtime|transcri|search|gpt-oss|:")
"""Names of models that the Batch API does not take, or that are not whole names."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model. US dollars per million tokens, of inputs that are not long; None where it is not known."""

    model: str
    context_tokens: int | None
    output_tokens: int | None
    """The most of one answer."""
    input_usd: float | None
    output_usd: float | None
    batch_input_usd: float | None
    batch_output_usd: float | None
    flex: bool | None
    """Whether it can be asked at the batch's price without a batch."""
    ends_on: date | None
    """The first day without it, where OpenAI has named one."""
    successor: str = ""
    """What to ask instead of a model that ends."""
    counted_like: str = ""
    """The model whose limits are taken for those of this one, which is newer than what is known."""


def list_models(today: date) -> list[ModelFacts]:
    """Those that live first, the youngest of a line first."""
    known = {*list_priced_models(), *read_model_table().models, *filter(find_stand_in, list_client_models())}
    names = {name for name in map(undated_model, known) if not _NO_BATCH.search(name)}
    facts = [_describe(name, today) for name in names]
    return sorted(facts, key=lambda each: _order(each, today))


def _describe(model: str, today: date) -> ModelFacts:
    day = (today - date(1970, 1, 1)).days
    found, ends_on = find_known_prices(model, day, BATCH), find_end(model)
    standard, batch = (None, None) if found is None else (found[0].base, found[1].base)
    return ModelFacts(
        model=model,
        context_tokens=context_tokens(model),
        output_tokens=most_output_tokens(model),
        input_usd=None if standard is None else standard.input,
        output_usd=None if standard is None else standard.output,
        batch_input_usd=None if batch is None else batch.input,
        batch_output_usd=None if batch is None else batch.output,
        flex=None if found is None else has_flex(model, day),
        ends_on=ends_on,
        successor="" if ends_on is None else find_successor(model, today),
        counted_like=find_stand_in(model) or "",
    )


def _order(facts: ModelFacts, today: date) -> tuple[object, ...]:
    gone = facts.ends_on is not None and facts.ends_on <= today
    family = read_family(facts.model)
    if family is None:
        return gone, 1, facts.model
    (line, size), version = family
    return gone, 0, line, tuple(-number for number in version), size
