"""The commands and their options; what they do is in the modules beside this one and below."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from airflow_openai_batch.cli.costs import estimate_models, read_prices
from airflow_openai_batch.cli.progress import show_scan
from airflow_openai_batch.cli.terminal import FINDINGS, GOOD, USAGE, Terminal
from airflow_openai_batch.cli.watch import show_job
from airflow_openai_batch.errors import ConfigError, OpenAIBatchError
from airflow_openai_batch.job.directory import REJECTED
from airflow_openai_batch.job.plan import ShardLimits
from airflow_openai_batch.job.rejected import write_rejected
from airflow_openai_batch.openai_api.model_ends import ModelEnds, describe_ends
from airflow_openai_batch.openai_api.model_list import list_models
from airflow_openai_batch.planning.count_chunks import Counting
from airflow_openai_batch.planning.input_check import survey_input
from airflow_openai_batch.server_words import describe_error
from airflow_openai_batch.storage.location import Location, resolve_plain
from airflow_openai_batch.wording import number_of

_NAME = "airflow-openai-batch"

app = typer.Typer(
    name=_NAME,
    help="Look at inputs and jobs of the OpenAI Batch API beside Airflow. "
    "Exit codes: 0 all is well, 1 findings, 2 it cannot be done as asked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT", help="Files, globs or URIs: .jsonl, .jsonl.gz, .jsonl.zst.", show_default=False
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]
MaxRequests = Annotated[int, typer.Option(help="Requests per shard, at most 50,000.")]
MaxBytes = Annotated[int, typer.Option(help="Bytes per shard, at most 200,000,000.")]
MaxTokens = Annotated[
    int | None, typer.Option(help="Input tokens per shard, for accounts whose batch queue is small.")
]
CountTokens = Annotated[
    str, typer.Option(help="auto: exact where a limit can bind or the input is small; exact; bound.")
]


@app.command()
def validate(inputs: Inputs, as_json: AsJSON = False) -> None:
    """Name every line that cannot be sent, with its file, number and reason."""
    terminal = Terminal(as_json)
    with (
        show_scan(terminal) as progress,
        survey_input(
            inputs,
            resolve=resolve_plain,
            limits=ShardLimits(max_bytes=200_000_000),
            counting=Counting(mode="bound"),
            progress=progress,
        ) as survey,
    ):
        draft = survey.draft
        counts = draft.counts
        summary = {
            "files": len(survey.listing.files),
            "lines": counts.positions + counts.blank,
            "requests": counts.requests,
            "bad": counts.rejected,
            "blank": counts.blank,
        }
        progress.close()
        terminal.notes(survey.listing.notices)
        if as_json:
            terminal.document_with(summary, "bad_lines", draft.bad_lines())
        else:
            for line in draft.bad_lines():
                terminal.line(draft.names.describe(line))
            terminal.line(
                f"{number_of(counts.requests, 'request')} in {number_of(len(survey.listing.files), 'file')}, "
                f"{counts.rejected:,} bad, {number_of(counts.blank, 'blank line')}."
            )
    raise typer.Exit(GOOD if counts.requests and not counts.rejected else FINDINGS)


@app.command()
def estimate(
    inputs: Inputs,
    max_requests: MaxRequests = 50_000,
    max_bytes: MaxBytes = 100_000_000,
    max_tokens: MaxTokens = None,
    count_tokens: CountTokens = "auto",
    output_tokens: Annotated[
        float | None, typer.Option(help="Output tokens that a request has on average, if you know.")
    ] = None,
    model_price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=IN:OUT",
            help="US dollars per million tokens of input and output in real time, for a model whose price is not "
            "known here or is not yours; as a batch it costs half. May be repeated.",
        ),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Count tokens and shards, and say what they cost by model. Nothing is sent."""
    terminal = Terminal(as_json)
    prices = read_prices(model_price or [])
    limits = ShardLimits(max_requests=max_requests, max_bytes=max_bytes, max_tokens=max_tokens)
    with (
        show_scan(terminal) as progress,
        survey_input(
            inputs,
            resolve=resolve_plain,
            limits=limits,
            counting=_read_counting(count_tokens),
            progress=progress,
        ) as survey,
    ):
        plan = survey.plan
        progress.close()
        terminal.notes(survey.listing.notices)
    today = datetime.now(UTC).date()
    ends = ModelEnds(is_openai=True).find((shard.model for shard in plan.shards), today)
    terminal.notes(f"At OpenAI: {told}" for told in describe_ends(ends, today))
    terminal.costs(plan, estimate_models(plan, prices, output_tokens=output_tokens))
    raise typer.Exit(FINDINGS if plan.counts.rejected or not plan.counts.requests else GOOD)


@app.command()
def split(
    inputs: Inputs,
    write_files: Annotated[
        str, typer.Option(metavar="DIR", help="Where the files go: shard-00000.jsonl ...", show_default=False)
    ],
    max_requests: MaxRequests = 50_000,
    max_bytes: MaxBytes = 100_000_000,
    max_tokens: MaxTokens = None,
    count_tokens: CountTokens = "auto",
    on_bad_line: Annotated[
        str, typer.Option(help="fail, or reject: to rejected.jsonl, the rest is written.")
    ] = "fail",
    as_json: AsJSON = False,
) -> None:
    """Write shard files within OpenAI's limits, for those who upload by hand. The DAGs need no files."""
    terminal = Terminal(as_json)
    if on_bad_line not in ("fail", "reject"):
        raise ConfigError(f"--on-bad-line={on_bad_line}: must be fail or reject.")
    folder = _open_folder(write_files)
    there = [name for name in folder.names() if name.startswith("shard-") and name.endswith(".jsonl")]
    if there:
        raise ConfigError(
            f"{write_files}: has {number_of(len(there), 'shard file')} already, which would be mixed with the new. "
            "Name another directory, or remove them."
        )
    limits = ShardLimits(max_requests=max_requests, max_bytes=max_bytes, max_tokens=max_tokens)
    with (
        show_scan(terminal) as progress,
        survey_input(
            inputs,
            resolve=resolve_plain,
            limits=limits,
            counting=_read_counting(count_tokens),
            progress=progress,
        ) as survey,
    ):
        progress.close()
        terminal.notes(survey.listing.notices)
        draft = survey.draft
        if draft.bad_count and on_bad_line == "fail":
            for line in draft.bad_lines():
                terminal.note(draft.names.describe(line))
            terminal.note(
                f"{number_of(draft.bad_count, 'line')} cannot be sent; no file was written. Mend them, or leave them "
                "out with --on-bad-line reject."
            )
            raise typer.Exit(FINDINGS)
        if draft.bad_count:
            rejected = folder.child(REJECTED)
            write_rejected(draft.bad_lines(), rejected)
            terminal.note(f"{number_of(draft.bad_count, 'line')} cannot be sent and are in {rejected.uri}.")
        terminal.shards(draft.counts, survey.write_shards(folder))
    raise typer.Exit(FINDINGS if draft.bad_count or not draft.shards else GOOD)


@app.command()
def report(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job directory.", show_default=False)],
    watch: Annotated[bool, typer.Option("--watch", help="Look again until every shard is done.")] = False,
    every: Annotated[float, typer.Option(metavar="S", help="Seconds between two looks.")] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON on stdout; with --watch a line whenever something changes.")
    ] = False,
) -> None:
    """Say how far a job has come: shards by state, rows, cost so far. Asks nobody but its directory."""
    if every <= 0:
        raise ConfigError(f"--every={every:g}: must be more than 0.")
    progress = show_job(Terminal(as_json), _open_folder(job), every_s=every if watch else None)
    raise typer.Exit(GOOD if progress.complete and not progress.bad_rows else FINDINGS)


@app.command()
def models(
    everything: Annotated[
        bool, typer.Option("--all", help="Those as well that OpenAI has shut down.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """List the models that something is known of: what they read and write, prices, flex, and when they end."""
    today = datetime.now(UTC).date()
    found = [
        each for each in list_models(today) if everything or each.ends_on is None or each.ends_on > today
    ]
    Terminal(as_json).models(found)


@app.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def emulator(context: typer.Context) -> None:
    """Serve an emulated OpenAI for tests and demos; --help lists its options."""
    from airflow_openai_batch.testing.__main__ import main

    raise typer.Exit(main(context.args))


def _open_folder(uri: str) -> Location:
    """:raises ConfigError: if nothing here can open it."""
    try:
        return resolve_plain(uri.rstrip("/") or "/")
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{uri}: cannot be opened ({describe_error(error)}).") from error


def _read_counting(count_tokens: str) -> Counting:
    if count_tokens not in ("auto", "exact", "bound"):
        raise ConfigError(f"--count-tokens={count_tokens}: must be auto, exact or bound.")
    return Counting(mode=count_tokens)  # type: ignore[arg-type] # checked above


def run(arguments: list[str]) -> int:
    """:returns: the exit code."""
    try:
        app(arguments, prog_name=_NAME)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else USAGE
    except OpenAIBatchError as error:
        typer.echo(f"{_NAME}: {error}", err=True)
        return USAGE
    except OSError as error:
        typer.echo(f"{_NAME}: {describe_error(error)}", err=True)
        return USAGE
    return GOOD
