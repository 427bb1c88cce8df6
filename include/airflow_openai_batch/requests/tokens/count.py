"""The input tokens of one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_openai_batch.errors import InputError
from airflow_openai_batch.openai_api.endpoints import BY_URL
from airflow_openai_batch.openai_api.models import encoding_of
from airflow_openai_batch.requests.tokens.counters import exact_counter
from airflow_openai_batch.requests.tokens.measure import measure_body
from airflow_openai_batch.requests.tokens.parts import less_certain

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Certainty


class TokenCount(NamedTuple):
    """Input tokens and how far they can be trusted."""

    tokens: int
    certainty: Certainty


def count_request_tokens(body: dict[str, Any], endpoint: str) -> TokenCount:
    """Count the input tokens of a request body as OpenAI's queue counts them.

    The first call for an encoding costs 0.5 s, later ones about 80 microseconds per KB of text.

    :param endpoint: the ``url`` of the request line, for instance ``/v1/chat/completions``.
    :raises InputError: for an endpoint that takes no batch.
    """
    known = BY_URL.get(endpoint)
    if known is None:
        raise InputError(f"{endpoint!r} is not an endpoint of batches; known are {', '.join(BY_URL)}.")
    measure = measure_body(body, known)
    counter = exact_counter(encoding_of(str(body.get("model")))[0])
    tokens = measure.fixed_tokens + sum(counter.count(measure.texts)) + sum(counter.count(measure.repeated))
    return TokenCount(tokens, less_certain(measure.certainty, counter.certainty))
