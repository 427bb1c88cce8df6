"""What a request body has that costs tokens, what its answer may have, and how certain a number of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job.plan import CERTAINTIES
from airflow_openai_batch.requests.tokens.images import image_tokens

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Certainty


MAX_ALLOWED_TOKENS = 2**32 - 1
"""Whatever a request says beyond this is no bound on anything, and sums of it must fit into 64 bits."""
MAX_CHOICES = 128
"""Of one request. Source: the chat reference."""
DEFAULT_COMPLETION_TOKENS = 16
"""Of ``/v1/completions``, the only endpoint with a default. Source: its reference."""


def less_certain(a: Certainty, b: Certainty) -> Certainty:
    """What holds for a sum of both."""
    return a if CERTAINTIES.index(a) >= CERTAINTIES.index(b) else b


class Measure(msgspec.Struct):
    """The parts of a request that cost input tokens."""

    fixed_tokens: int = 0
    texts: list[str] = []
    repeated: list[str] = []
    """Texts that probably come again in other requests: instructions, tools, schemas."""
    certainty: Certainty = "exact"
    embedding_inputs: int = 0
    longest_tokens: int = 0
    """The longest embedding input that was given as token numbers."""
    output_tokens: int | None = None
    """The most its answer can have; None where the request does not say. Of a video: its seconds."""
    choices: int = 1
    """Answers that are written and billed."""
    is_dearer: bool = False
    """It asks for a service tier above the standard price."""
    image_texts: list[str] = []
    """Images that stand in the request itself, as data URLs."""
    image_tokens: int = 0
    """What these cost by the formula; part of ``fixed_tokens``."""

    def doubt(self, certainty: Certainty) -> None:
        self.certainty = less_certain(self.certainty, certainty)

    def add_image(self, url: object, detail: object, model: str) -> None:
        tokens, certainty = image_tokens(url if isinstance(url, str) else None, detail, model)
        self.fixed_tokens += tokens
        self.doubt(certainty)
        if isinstance(url, str) and url[:5].lower() == "data:":
            self.image_texts.append(url)
            self.image_tokens += tokens


def as_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def allow_output(limit: object, choices: object = None, prompts: int = 1) -> int | None:
    """Output tokens of all choices together; None where the request does not say.

    What OpenAI would refuse (texts, fractions) says nothing; a negative number allows nothing.

    :param limit: ``max_tokens`` or what the endpoint calls it; for reasoning models it includes the reasoning.
    :param choices: ``n``, or ``best_of``: how many answers are written and billed.
    :param prompts: each of which is answered so often.
    """
    if type(limit) is not int:
        return None
    return min(max(0, limit) * count_choices(choices) * prompts, MAX_ALLOWED_TOKENS)


def count_choices(choices: object) -> int:
    """How many answers a request asks for; one where it does not say or says nonsense."""
    return min(max(1, choices), MAX_CHOICES) if type(choices) is int else 1
