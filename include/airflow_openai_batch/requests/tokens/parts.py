"""What a request body has that costs tokens, and how certain a number of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.requests.tokens.images import image_tokens

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Certainty


_RANK: dict[Certainty, int] = {"exact": 0, "upper": 1, "lower": 2}


def less_certain(a: Certainty, b: Certainty) -> Certainty:
    """What holds for a sum of both: something unknown makes the whole a lower bound."""
    return a if _RANK[a] >= _RANK[b] else b


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
    """The most its answer can have; None where the request does not say."""
    choices: int = 1
    """Answers that are written and billed."""
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
