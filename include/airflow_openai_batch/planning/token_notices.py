"""What a person should know of how tokens were counted, said once per plan."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_openai_batch.openai_api.deployments import NO_DEPLOYMENTS, Deployments
from airflow_openai_batch.openai_api.models import (
    DEFAULT_ENCODING,
    context_tokens,
    encoding_of,
    find_stand_in,
    most_output_tokens,
)
from airflow_openai_batch.requests.tokens.ranks import find_ranks_problem

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import CountImages, Shard
    from airflow_openai_batch.planning.chunk_tally import CountMode

_MAX_NAMED = 5
_IMAGES_COUNT: dict[CountImages, str] = {
    "formula": "by OpenAI's formula. If OpenAI refuses shards that should fit its queue, set count_images=text",
    "text": "as the text that they are in the file. If shards could be larger, set count_images=formula",
}


def describe_token_doubts(
    shards: Sequence[Shard], mode: CountMode, deployments: Deployments = NO_DEPLOYMENTS
) -> Iterator[str]:
    """Sentences about shards whose tokens are not simply counted; none where all are."""
    models = {deployments.find_model(shard.model) for shard in shards}
    unknown = sorted(model for model in models if not encoding_of(model)[1])
    if unknown:
        more = f" and {len(unknown) - _MAX_NAMED:,} more" if len(unknown) > _MAX_NAMED else ""
        yield (
            f"tiktoken names no encoding for {', '.join(unknown[:_MAX_NAMED])}{more}; tokens are counted with "
            f"{DEFAULT_ENCODING}, that of OpenAI's models since gpt-4o."
        )
    yield from _describe_stand_ins(models)
    lower = sum(shard.tokens == "lower" for shard in shards)
    if lower:
        yield (
            f"Input tokens of {lower:,} shards are a lower bound: some requests refer to what only OpenAI knows "
            "(earlier responses, stored prompts, files, audio, hosted tools). Leave room in max_tokens_per_shard."
        )
    if mode == "exact" and any(shard.tokens != "exact" for shard in shards):
        problem = find_ranks_problem()
        if problem is not None:
            yield (
                f"Tokens cannot be counted: {problem}. Every byte is taken for a token instead, which is safe but "
                "about four times too high: shards get smaller and estimates higher than they need be."
            )
        elif any(shard.tokens == "upper" for shard in shards):
            yield (
                "Images whose size is not known (web addresses, files, newer models) are counted with the most "
                "they can cost."
            )


def _describe_stand_ins(models: Collection[str]) -> Iterator[str]:
    """Of models that are newer than what is known here."""
    found = {model: like for model in models if (like := find_stand_in(model)) is not None}
    if not found:
        return
    named = [
        f"{model} like {like} ({_count(context_tokens(like))} tokens to read, {_count(most_output_tokens(like))} to "
        "write)"
        for model, like in sorted(found.items())[:_MAX_NAMED]
    ]
    more = f" and {len(found) - _MAX_NAMED:,} more" if len(found) > _MAX_NAMED else ""
    yield (
        "Not known here yet, so counted and limited like the youngest of the family that is: "
        f"{', '.join(named)}{more}. Prices are not taken over."
    )


def _count(tokens: int | None) -> str:
    return "any number of" if tokens is None else f"{tokens:,}"


def describe_images(images: int, count_images: CountImages) -> Iterator[str]:
    """One sentence where requests carry images; none otherwise.

    :param images: how many requests do.
    """
    if images:
        yield (
            f"{images:,} requests have images in them. Whether OpenAI's batch queue counts these as text is not "
            f"documented; they are counted {_IMAGES_COUNT[count_images]}."
        )
