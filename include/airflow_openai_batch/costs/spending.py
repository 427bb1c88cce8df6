"""What a job has paid so far, from one listing: every number stands in a name.

``spent/00003.2.paid.1234567.5000.900000.123456.json``: shard 3 had cost 1.234567 dollars when its send 2 had landed,
and has 5,000 answers of 900,000 input and 123,456 output tokens. ``spent/00003.2.reserved.250000.json``: its send 2
may cost 0.25 dollars. Files are written once and never changed; they hold the same numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job import directory
from airflow_openai_batch.job.ledger import JobLedger
from airflow_openai_batch.openai_api.endpoints import WITHOUT_OUTPUT
from airflow_openai_batch.results.landing_summary import ShardSummary, count_bad

if TYPE_CHECKING:
    from airflow_openai_batch.job.open_plan import Rows
    from airflow_openai_batch.job.plan import PlanHead, Shard
    from airflow_openai_batch.results.landing_summary import LandingSummary
    from airflow_openai_batch.storage.location import Location

_PAID = re.compile(r"(\d{5,})\.(\d+)\.paid\.(\d+)\.(\d+)\.(\d+)\.(\d+)\.json")
_RESERVED = re.compile(r"(\d{5,})\.(\d+)\.reserved\.(\d+)\.json")
MICRO = 1_000_000


class Paid(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What one shard has cost once a send of it has landed, all sends before it included."""

    send: int
    cost_usd: float
    answers: int
    """That stand in its rows."""
    input_tokens: int
    output_tokens: int
    """Of these answers."""


class Reserved(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What a send that has not landed may cost."""

    send: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Spent:
    """By shard, what was paid last and what is reserved beyond."""

    paid: dict[int, Paid] = field(default_factory=dict)
    reserved: dict[int, Reserved] = field(default_factory=dict)

    @property
    def paid_usd(self) -> float:
        return sum(paid.cost_usd for paid in self.paid.values())

    @property
    def reserved_usd(self) -> float:
        return sum(reserved.cost_usd for reserved in self.reserved.values())

    @property
    def answers(self) -> int:
        return sum(paid.answers for paid in self.paid.values())


def record_spending(
    output: Location, shard: int, send: int, landed: LandingSummary, *, assumed_usd: float = 0.0
) -> float:
    """Write down what a shard has cost so far; to be called when a send of it has landed, before the ledger says so.

    May be repeated: landing again finds the same numbers. Ends the reservation of the send.

    :param send: the last that was really sent and is over; 0 where none was.
    :param landed: of the landing, over all sends up to this one.
    :param assumed_usd: for answers whose cost is not known; see `estimate.assume_unpriced`.
    :returns: what the shard has cost so far, US dollars.
    """
    spending, tokens = landed.spending, landed.spending.tokens
    paid = Paid(
        send=send,
        cost_usd=spending.cost_usd + landed.replaced.cost_usd + assumed_usd,
        answers=spending.answers,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
    )
    numbers = (to_micro(paid.cost_usd), paid.answers, paid.input_tokens, paid.output_tokens)
    name = f"{shard:05d}.{send}.paid.{'.'.join(map(str, numbers))}.json"
    output.child(f"{directory.SPENT}/{name}").write_bytes(msgspec.json.encode(paid))
    return paid.cost_usd


def find_paid_before(output: Location, shard: int, send: int) -> float:
    """What a shard had cost before this send landed, in US dollars. One short listing, none for its first send."""
    if send <= 1:
        return 0.0
    found = (_PAID.fullmatch(name) for name in output.child(directory.SPENT).names(prefix=f"{shard:05d}."))
    paid = [each for each in found if each and int(each[2]) < send]
    return max((int(each[3]) for each in paid), default=0) / MICRO


def reserve(output: Location, shard: int, send: int, cost_usd: float) -> Location:
    """Write down what a send may cost, before it is sent."""
    place = output.child(f"{directory.SPENT}/{shard:05d}.{send}.reserved.{to_micro(cost_usd)}.json")
    place.write_bytes(msgspec.json.encode(Reserved(send=send, cost_usd=cost_usd)))
    return place


def drop_reserved(output: Location, shard: int, *, after: int) -> None:
    """Let go of what later sends of a shard than this one reserved and never went out. One short listing."""
    folder = output.child(directory.SPENT)
    for name in folder.names(prefix=f"{shard:05d}."):
        found = _RESERVED.fullmatch(name)
        if found and int(found[2]) > after:
            folder.child(name).remove()


def read_spending(output: Location) -> Spent:
    """One listing, nothing is opened. A reservation counts while its send is the last of its shard: one that was
    refused has cost nothing, and hands what it carried to the next.
    """
    paid: dict[int, Paid] = {}
    reserved: dict[int, Reserved] = {}
    for name in output.child(directory.SPENT).names():
        if found := _PAID.fullmatch(name):
            shard, send, micro, answers, read, written = map(int, found.groups())
            this = Paid(
                send=send,
                cost_usd=micro / MICRO,
                answers=answers,
                input_tokens=read,
                output_tokens=written,
            )
            paid[shard] = max(this, paid.get(shard, this))
        elif found := _RESERVED.fullmatch(name):
            shard, send, micro = map(int, found.groups())
            wanted = Reserved(send=send, cost_usd=micro / MICRO)
            reserved[shard] = max(wanted, reserved.get(shard, wanted))
    last = {shard: found.send for shard, found in paid.items()}
    return Spent(paid, {shard: found for shard, found in reserved.items() if found.send > last.get(shard, 0)})


def measure_means(plan: PlanHead, shards: Rows[Shard], spent: Spent) -> dict[tuple[str, str], float]:
    """Output tokens per answered request, by model and endpoint.

    :param shards: of the plan; looked at only where they are not of one kind.
    """
    paid = {number: each for number, each in spent.paid.items() if number < len(shards)}
    kinds = [(bound.model, bound.endpoint) for bound in plan.outputs]
    if paid and len(kinds) != 1:
        kinds = [(shard.model, shard.endpoint) for shard in shards]
    answers: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    for number, each in paid.items():
        kind = kinds[number] if len(kinds) > 1 else kinds[0]
        if not each.output_tokens and kind[1] not in WITHOUT_OUTPUT:
            continue  # they do not say what they used: no measure of the others
        answers[kind] += each.answers
        tokens[kind] += each.output_tokens
    return {kind: tokens[kind] / count for kind, count in answers.items() if count}


def find_open_requests(output: Location, spent: Spent, wanted: dict[int, int]) -> dict[int, int]:
    """How many of the wanted requests of each shard have no answer yet, or are asked again by a repair.

    A shard that is done has none, even where some of its requests have failed for good; what is under way counts
    as open. One listing, and a small file for each shard that a repair has reopened.

    :param wanted: by shard, as in `estimate.estimate_plan`.
    :raises LedgerError: if the ledger of a reopened shard cannot be read.
    """
    ledger = JobLedger(output.child(directory.STATE), max(wanted, default=-1) + 1)
    return {
        shard: min(requests, _count_open(ledger, spent, shard, requests))
        for shard, requests in wanted.items()
        if not ledger.is_done(shard)
    }


def _count_open(ledger: JobLedger, spent: Spent, shard: int, requests: int) -> int:
    if "done" not in ledger.list_kinds(shard):
        return max(0, requests - (spent.paid[shard].answers if shard in spent.paid else 0))
    # A repair asks again for what was paid and is not ok, too.
    former = ledger.read_last(shard, "done")
    landed = ShardSummary.from_dict(former.summary).landed if former else None
    return count_bad(landed.rows) if landed else 0


def to_micro(cost_usd: float) -> int:
    """Millionths of a dollar, which names and counters take."""
    return round(cost_usd * MICRO)
