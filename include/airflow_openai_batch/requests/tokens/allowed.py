"""How many output tokens a request allows: what its answer costs at most."""

from __future__ import annotations

MAX_ALLOWED_TOKENS = 2**32 - 1
"""Whatever a request says beyond this is no bound on anything, and sums of it must fit into 64 bits."""

MAX_CHOICES = 128
"""Of one request. Source: the chat reference."""

DEFAULT_COMPLETION_TOKENS = 16
"""Of ``/v1/completions``, the only endpoint with a default. Source: its reference."""


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
