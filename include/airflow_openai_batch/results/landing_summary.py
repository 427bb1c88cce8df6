"""What a landing found, small enough for the ledger: counts and a few examples, no bodies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import JobLedger
from airflow_openai_batch.results.lanes import HurriedSend, LaneSpending  # noqa: TC001 - msgspec reads them
from airflow_openai_batch.results.media_files import MediaCount
from airflow_openai_batch.server_words import clean_words
from airflow_openai_batch.storage.read_ahead import read_ahead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_openai_batch.job.plan import Plan
    from airflow_openai_batch.openai_api.answer_parts import Usage
    from airflow_openai_batch.openai_api.prices import Cost
    from airflow_openai_batch.storage.location import Location

EXAMPLES_PER_PROBLEM = 3
PROBLEMS_KEPT = 20
"""More codes than these are counted under ``other``."""
ID_CHARS = 200
MESSAGE_CHARS = 300


def count_bad(rows: Mapping[str, int]) -> int:
    """Rows without a good answer, of rows by status."""
    return sum(count for status, count in rows.items() if status != "ok")


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One request with a problem. Both texts are cut; neither is a body."""

    custom_id: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """How often an error code stands in the rows."""

    code: str
    count: int
    examples: tuple[Example, ...] = ()


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over answers; ``cached`` and ``written`` are part of ``input``, ``reasoning`` of ``output``."""

    input: int = 0
    cached: int = 0
    """Read from OpenAI's cache."""
    written: int = 0
    """Written to it."""
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            input=self.input + other.input,
            cached=self.cached + other.cached,
            written=self.written + other.written,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
        )


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of answers used and cost."""

    answers: int = 0
    tokens: Tokens = Tokens()
    cost_usd: float = 0.0
    """Of the answers whose price is known."""
    standard_cost_usd: float = 0.0
    """The same answers at the price of real time."""
    unpriced: int = 0
    """Answers of models whose price is not known."""

    def __add__(self, other: Spending) -> Spending:
        return Spending(
            answers=self.answers + other.answers,
            tokens=self.tokens + other.tokens,
            cost_usd=self.cost_usd + other.cost_usd,
            standard_cost_usd=self.standard_cost_usd + other.standard_cost_usd,
            unpriced=self.unpriced + other.unpriced,
        )


class LandingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of one landed shard."""

    requests: int
    rows: dict[str, int]
    """Rows by status."""
    problems: tuple[Problem, ...] = ()
    spending: Spending = Spending()
    """Of the answers that stand in rows."""
    replaced: Spending = Spending()
    """Of answers that were paid for and then replaced by those of a later send."""
    lanes: dict[str, LaneSpending] = {}
    """Of both, by the way they came; empty in ledgers of earlier releases."""
    unpriced_models: tuple[str, ...] = ()
    attempts: dict[int, int] = {}
    """Requests by number of attempts."""
    strays: int = 0
    """Raw lines that belong to no request of the shard."""
    duplicates: int = 0
    """Raw lines beyond the first for one request in one send."""
    retryable: int = 0
    """Requests that may be sent again; 0 means the shard is done."""
    refused_for_account: int = 0
    """Requests that the last send left over because the account may not ask or cannot pay."""
    account_errors: int = 0
    """Lines that say the account may not ask or cannot pay."""
    media: MediaCount = MediaCount()
    """Files in ``media/``."""
    unchecked: int = 0
    """Answers that could not be checked because the request's schema cannot be used."""
    part_bytes: int = 0
    part_sha256: str = ""


class ProblemTally:
    """Counts problems by code, keeping the first examples."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[Example]] = {}

    def add(self, code: str, custom_id: str, message: str) -> None:
        if code not in self._counts and len(self._counts) >= PROBLEMS_KEPT:
            code = "other"
        self._counts[code] = self._counts.get(code, 0) + 1
        examples = self._examples.setdefault(code, [])
        if len(examples) < EXAMPLES_PER_PROBLEM:
            examples.append(
                Example(custom_id=custom_id[:ID_CHARS], message=clean_words(message, MESSAGE_CHARS))
            )

    def list(self) -> tuple[Problem, ...]:
        """Most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(
            Problem(code=code, count=count, examples=tuple(self._examples[code])) for code, count in ordered
        )


class SpendingTally:
    """Adds up answers, one at a time."""

    def __init__(self) -> None:
        self.answers = self.input = self.cached = self.written = 0
        self.output = self.reasoning = self.unpriced = 0
        self.cost_usd = self.standard_cost_usd = 0.0

    def add(self, usage: Usage | None, cost: Cost | None, *, answers: int = 1) -> None:
        """One more answer; without a cost it counts as unpriced.

        :param answers: 0 for a further piece of the one before.
        """
        self.answers += answers
        if usage is not None:
            self.input += usage.input_tokens or 0
            self.cached += usage.cached_input_tokens or 0
            self.written += usage.cache_write_tokens or 0
            self.output += usage.output_tokens or 0
            self.reasoning += usage.reasoning_tokens or 0
        if cost is None:
            self.unpriced += 1
        else:
            self.cost_usd += cost.actual_usd
            self.standard_cost_usd += cost.standard_usd

    def add_all(self, spending: Spending) -> None:
        """Many answers."""
        self.answers += spending.answers
        self.input += spending.tokens.input
        self.cached += spending.tokens.cached
        self.written += spending.tokens.written
        self.output += spending.tokens.output
        self.reasoning += spending.tokens.reasoning
        self.unpriced += spending.unpriced
        self.cost_usd += spending.cost_usd
        self.standard_cost_usd += spending.standard_cost_usd

    def sum(self) -> Spending:
        return Spending(
            answers=self.answers,
            tokens=Tokens(
                input=self.input,
                cached=self.cached,
                written=self.written,
                output=self.output,
                reasoning=self.reasoning,
            ),
            cost_usd=self.cost_usd,
            standard_cost_usd=self.standard_cost_usd,
            unpriced=self.unpriced,
        )


class ShardSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one shard when the report is written; goes into the ledger's ``done`` event."""

    shard: int
    landed: LandingSummary | None = None
    """None where the shard is not done."""
    state: str = "done"
    """``done``, or a few words on where it stands and what to clear."""
    sends: int = 1
    batch_ids: tuple[str, ...] = ()
    hurried: tuple[HurriedSend, ...] = ()
    """Sends that a deadline has made."""
    phases_s: dict[str, float] = {}
    """Seconds by phase, see `phases.measure_phases`."""

    def to_dict(self) -> dict[str, Any]:
        """For the ledger's ``done`` event."""
        found: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return found

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ShardSummary:
        """:raises msgspec.ValidationError: if it is no summary."""
        return msgspec.convert(value, cls, strict=False)


def read_done(ledger: JobLedger, shard: int, plan: Plan) -> ShardSummary | None:
    """What a shard that is done came to; None where it is not, or where another plan left its ledger behind."""
    done = ledger.read_last(shard, "done")
    if done is None or done.plan != plan.name or not ledger.is_done(shard):
        return None
    return ShardSummary.from_dict(done.summary)


def find_unfinished(plan: Plan, output: Location) -> Iterator[int]:
    """The shards that are not done. One listing, and one small file for each shard."""
    ledger = JobLedger(output.child(directory.STATE), len(plan.shards))
    numbers = range(len(plan.shards))
    found = read_ahead(lambda shard: read_done(ledger, shard, plan), numbers, output)
    yield from (shard for shard, done in zip(numbers, found, strict=True) if done is None)
