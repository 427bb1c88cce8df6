"""``max_cost_usd`` from OpenAI's side: what the emulator has billed and may still bill, whenever something is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from airflow_openai_batch.openai_api.prices import price_answer
from simulation.scenario import MAX_OUTPUT_TOKENS, MODEL

if TYPE_CHECKING:
    from airflow_openai_batch.job.shard_state import Content
    from airflow_openai_batch.openai_api.prices import SentAs
    from airflow_openai_batch.testing.emulator import Emulator

ROUNDING_USD = 20e-6
"""The job directory counts in millionths, send by send."""
MOST_RAISES = 8


@dataclass(slots=True)
class Purse:
    """The budget that a person gives the job, and raises when it was too small.

    :param max_cost_usd: ``None`` for no budget.
    """

    max_cost_usd: float | None = None
    raises: int = 0
    excess: str | None = None
    """The first send that could have brought the job above its budget, for `verdict`, which knows what to excuse."""

    def raise_budget(self) -> None:
        """Twice as much, and in the end whatever it takes."""
        self.raises += 1
        if self.max_cost_usd is not None:
            self.max_cost_usd = None if self.raises > MOST_RAISES else 2 * self.max_cost_usd

    def check_batch(self, emulator: Emulator, metadata: Mapping[str, str]) -> None:
        """Before a batch is created."""
        self._check(
            emulator, _price(int(metadata["input_tokens"]), int(metadata["requests"]), "batch"), metadata
        )

    def check_one_by_one(self, emulator: Emulator, content: Content, answered: int, *, flex: bool) -> None:
        """Before what is left of a send goes out request by request."""
        left = content.requests - answered
        tokens = content.input_tokens * left // content.requests
        self._check(emulator, _price(tokens, left, "flex" if flex else "realtime"), {})

    def _check(self, emulator: Emulator, cost_usd: float, metadata: Mapping[str, str]) -> None:
        if self.max_cost_usd is None or self.excess is not None:
            return
        running = {
            batch.metadata["job_key"]: batch.metadata
            for batch in emulator.batches
            if batch.metadata and batch.status not in ("completed", "failed", "expired", "cancelled")
        }
        running.pop(metadata.get("job_key", ""), None)
        billed = sum_up_bill(emulator)
        may_come = sum(
            _price(int(each["input_tokens"]), int(each["requests"]), "batch") for each in running.values()
        )
        if (total := billed + may_come + cost_usd) > self.max_cost_usd + ROUNDING_USD:
            self.excess = (
                f"${billed:.6f} billed, up to ${may_come:.6f} for {len(running)} batches and ${cost_usd:.6f} for what "
                f"was sent then: ${total:.6f}, over ${self.max_cost_usd:.6f}"
            )


def sum_up_bill(emulator: Emulator) -> float:
    """US dollars that the emulator would ask for so far."""
    total = 0.0
    for name, spent in emulator.books.tokens.items():
        sent_as = cast("SentAs", name.partition(" ")[0])
        total += _price_tokens(spent["input"], spent["output"], sent_as)
    return total


def _price(input_tokens: int, requests: int, sent_as: SentAs) -> float:
    return _price_tokens(input_tokens, requests * MAX_OUTPUT_TOKENS, sent_as)


def _price_tokens(input_tokens: int, output_tokens: int, sent_as: SentAs) -> float:
    cost = price_answer(MODEL, sent_as, input_tokens, output_tokens)
    assert cost is not None
    return cost.actual_usd
