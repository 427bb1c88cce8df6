"""What a person or a machine reads: results on stdout, all else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from airflow_openai_batch.wording import BOUND_SIGNS, format_usd, number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_openai_batch.cli.costs import ModelCost
    from airflow_openai_batch.job.plan import Counts, Plan, Shard
    from airflow_openai_batch.openai_api.model_list import ModelFacts
    from airflow_openai_batch.report.progress import JobProgress
    from airflow_openai_batch.storage.location import Location

GOOD, FINDINGS, USAGE = 0, 1, 2
"""Exit codes."""

_WIDTH = 160


class Terminal:
    """Writes tables for people, or JSON documents for machines."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, soft_wrap=True)
        if not self.out.is_terminal:
            self.out.width = _WIDTH  # where no terminal says how wide it is, nothing is cut
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Not marked up: it may hold anything that stands in a file."""
        self.out.print(text, markup=False)

    def note(self, text: str) -> None:
        self.err.print(text, markup=False)

    def notes(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.note(text)

    def document(self, content: Any) -> None:
        sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
        sys.stdout.flush()

    def document_with(self, head: dict[str, Any], name: str, items: Iterable[Any]) -> None:
        """One document whose last key is a list of any length, which is not held in memory."""
        sys.stdout.write(f"{msgspec.json.encode(head).decode()[:-1]},{msgspec.json.encode(name).decode()}:[")
        for number, item in enumerate(items):
            sys.stdout.write(("," if number else "") + msgspec.json.encode(item).decode())
        sys.stdout.write("]}\n")
        sys.stdout.flush()

    def costs(self, plan: Plan, costs: list[ModelCost]) -> None:
        if self.as_json:
            counts = plan.counts
            self.document(
                {
                    "requests": counts.requests,
                    "bad": counts.rejected,
                    "shards": len(plan.shards),
                    "bytes": sum(shard.bytes for shard in plan.shards),
                    "models": costs,
                }
            )
            return
        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("model", overflow="fold")
        for name in ("requests", "shards", "tokens in", "batch", "at most", "real time"):
            table.add_column(name, justify="right", no_wrap=True)
        for cost in costs:
            amounts = (cost.batch_usd, cost.most_batch_usd, cost.standard_usd)
            table.add_row(
                _label(cost, costs),
                *(f"{cost.requests:,}", f"{cost.shards:,}"),
                f"{BOUND_SIGNS.get(cost.certainty, '~')}{cost.input_tokens:,}",
                *(format_usd(each, beside=amounts) for each in amounts),
            )
        self.out.print(table)
        self.line(_explain_costs(costs))
        if plan.counts.rejected:
            self.note(
                f"{number_of(plan.counts.rejected, 'line')} cannot be sent and cost nothing; `validate` lists them."
            )

    def shards(self, counts: Counts, written: Iterable[tuple[Shard, Location]]) -> None:
        """Each as soon as its file is there."""
        if self.as_json:
            found = (
                {
                    "file": place.uri,
                    "model": shard.model,
                    "endpoint": shard.endpoint,
                    "requests": shard.requests,
                    "bytes": shard.bytes,
                    "input_tokens": shard.input_tokens,
                    "tokens": shard.tokens,
                    "sha256": shard.sha256,
                }
                for shard, place in written
            )
            head = {"requests": counts.requests, "bad": counts.rejected}
            self.document_with(head, "shards", found)
            return
        for shard, place in written:
            self.line(
                f"{place.uri}: {number_of(shard.requests, 'request')}, {shard.bytes:,} bytes, "
                f"{BOUND_SIGNS.get(shard.tokens, '~')}{shard.input_tokens:,} input tokens, {shard.model}"
            )

    def models(self, models: Sequence[ModelFacts]) -> None:
        if self.as_json:
            self.document({"models": models})
            return
        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("model", overflow="fold")
        for name in ("reads", "writes", "in", "out", "batch in", "batch out"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("flex")
        table.add_column("ends", no_wrap=True)
        for each in models:
            prices = (each.input_usd, each.output_usd, each.batch_input_usd, each.batch_output_usd)
            table.add_row(
                each.model,
                *(
                    "?" if number is None else f"{number:,}"
                    for number in (each.context_tokens, each.output_tokens)
                ),
                *("?" if price is None else f"${price:g}" for price in prices),
                {None: "?", True: "yes", False: "no"}[each.flex],
                "" if each.ends_on is None else f"{each.ends_on} -> {each.successor}",
            )
        self.out.print(table)
        self.line(
            "reads, writes: the most tokens of a request and of its answer. Prices: US dollars per million tokens, of "
            "inputs that are not long. ?: not known here."
        )
        for each in models:
            if each.counted_like:
                self.line(
                    f"{each.model} is newer than what is known here: its limits are those of {each.counted_like}."
                )

    def job(self, progress: JobProgress) -> None:
        if self.as_json:
            self.document({**msgspec.to_builtins(progress), "complete": progress.complete})
        else:
            self.out.print(describe_job(progress))


def describe_job(progress: JobProgress) -> Table:
    """A job at one moment."""
    table = Table(show_header=False, title=progress.job, title_justify="left", title_style="bold")
    table.add_column(justify="right")
    table.add_column()
    for state, count in progress.shards.items():
        table.add_row(f"{count:,}", f"{'shard' if count == 1 else 'shards'} {state}")
    table.add_section()
    for status, count in progress.rows.items():
        table.add_row(f"{count:,}", f"{'row' if count == 1 else 'rows'} {status}")
    if progress.unfinished_requests:
        table.add_row(f"{progress.unfinished_requests:,}", "requests in shards that are not done")
    if progress.rejected:
        table.add_row(f"{progress.rejected:,}", "lines rejected, never sent")
    table.add_section()
    table.add_row(format_usd(progress.cost_usd), f"for {number_of(progress.answers, 'answer')} so far")
    if progress.reserved_usd:
        table.add_row(format_usd(progress.reserved_usd), "at most for what is under way")
    for refusal in progress.refusals:
        table.add_row("refused", refusal[:200])
    return table


def _label(cost: ModelCost, costs: list[ModelCost]) -> str:
    """The model, with the endpoint where it alone does not tell."""
    alone = sum(other.model == cost.model for other in costs) == 1
    return cost.model if alone else f"{cost.model} {cost.endpoint}"


def _explain_costs(costs: list[ModelCost]) -> str:
    assumed = sum(cost.output_tokens for cost in costs)
    output = f"with {assumed:,} output tokens, as you said" if assumed else "of the input alone"
    return (
        f"batch, real time: {output}.\n"
        "at most: as batch, with every output as long as its request allows or its model can write."
    )
