"""The trigger form that the DAGs of this package share, and how it reaches the operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from airflow.sdk import Param

from airflow_openai_batch.access.settings import find_output_root, find_samples
from airflow_openai_batch.openai_api.models import COMPARED_MODEL, DEFAULT_MODEL
from airflow_openai_batch.operators.form_arguments import (
    landing_arguments,
    prepare_arguments,
    report_arguments,
    sending_arguments,
    split_arguments,
)
from airflow_openai_batch.operators.task.parameters import read_mode

__all__ = [
    "COMPARED_MODEL",
    "DEFAULT_MODEL",
    "DOC_MD",
    "DOC_MD_ONE_TASK",
    "FLOW",
    "find_output_root",
    "landing_arguments",
    "make_form",
    "make_params",
    "prepare_arguments",
    "report_arguments",
    "sample_path",
    "sending_arguments",
    "show_names",
    "split_arguments",
]

DRAFT = "http://json-schema.org/draft-07/schema#"
"""Of JSON Schema, for parameters: each start of a task holds every schema against its draft's own, twice, and
that of the newest draft, which it takes for one that names none, is three times the work: 5 ms a start for a form."""
_STEPS = "upload → create → wait → download → resend_leftovers"
# A table, since Airflow's UI folds the lines of a drawing in a code block into one.
FLOW = f"""
| once | for each shard | once |
| --- | --- | --- |
| split → | {_STEPS} | → publish |
"""

_ACCEPTABLE = ("content_filter", "refusal", "truncated")
_RETRYABLE = ("invalid_output", *_ACCEPTABLE)

DOC_MD = f"""
### A JSONL of OpenAI requests, of any size, at half price
Give it `input_uri` (each line one request in the Batch API's format) and find one row per request in
`<output_uri>/results/`, what went wrong in `report.md`, and the requests without a good answer in `failed.jsonl`.
{FLOW}
* **split** scans the input once and cuts it into shards within OpenAI's limits. Nothing is copied.
* **upload, create, wait, download** bring each shard through one batch; the wait holds no worker. (From Airflow 3.3 on
  *upload* creates the batch as well, where nothing has to be waited for first.)
* **resend_leftovers** sends again what may be sent again, alone; with nothing left, it is skipped (Airflow 3.3).
* **publish** checks that every request is accounted for and writes the report.

**Clear any task at any time**: it goes on from where the shard is, and nothing is sent twice. Triggering the DAG
again with the same `output_uri` goes on with the same job. The only way to pay again is `on_existing=restart`.

For 100 shards and more take *openai_batch_one_task*: five tasks for each of them keep Airflow's scheduler busy.
"""

DOC_MD_ONE_TASK = f"""
### As `openai_batch`, with one deferrable task per shard
The same job, parameters and results. For shards of up to 4 MB one worker start instead of two (from Airflow 3.3 on; two
instead of five before); which step a shard is at stands in the task's log instead of the grid. Take it for jobs of 100
shards and more: Airflow's scheduler has little to do while they wait.
{FLOW.replace(_STEPS, "shard")}
"""


def make_params() -> dict[str, Param]:
    """The typed, described parameters, in the order of the form.

    Those of the job itself have no section: only Airflow's own "Run Parameters" is unfolded from the start.
    ``output_uri`` starts below ``[openai_batch] output_root`` of Airflow's configuration, or ``$AIRFLOW_HOME``.
    """
    params = {
        "input_uri": Param(
            default="",
            type=["string", "array"],
            title="Input",
            description="URI or path of the requests: a .jsonl, .jsonl.gz or .jsonl.zst, or a glob. Several: one "
            "per line.",
        ),
        "output_uri": Param(
            default=f"{find_output_root()}/{{dag_id}}/{{run_id}}",
            type="string",
            title="Output",
            description="Directory of the job. {dag_id} and {run_id} stand for the ids of the DAG and of this run, fit "
            "for a path. The same directory again goes on with the same job.",
        ),
        "conn_id": Param(
            default="openai_default",
            type="string",
            title="Connection",
            description="Connection of type OpenAI: the API key as password, another base URL as host.",
        ),
        "dry_run": Param(
            default=False,
            type="boolean",
            title="Dry run",
            description="Plan, count tokens, show the cost, and stop. A later run goes on with this plan.",
        ),
        "on_existing": Param(
            default="resume",
            enum=["resume", "fail", "restart"],
            title="If the job exists",
            description="resume: go on with it, nothing is paid twice. fail: stop. restart: begin anew, which pays "
            "again.",
        ),
        "repair": Param(
            default=False,
            type="boolean",
            title="Repair",
            description="Of the job in the output directory, ask again only for what has no good result. The input is "
            "the one that it had.",
        ),
        **_shard_params(),
        **_answer_params(),
        **_sending_params(),
    }
    return show_names(params)


def sample_path(name: str) -> str:
    """Where a sample lies that comes with the package: ``sample_path("table/reviews.csv")``."""
    return f"{find_samples()}/{name}"


def make_form(
    own: Mapping[str, Param], *, leave_out: Collection[str] = (), **defaults: Any
) -> dict[str, Param]:
    """The form of a DAG that asks in its own words where the requests come from.

    First its own parameters, then every one of `make_params` but ``input_uri``, so that no message advises what the
    form does not have; what stands in a section comes folded, below. `openai_batch_task_group` takes them with
    ``from_params=True``, and so does its `join_rows`; the operator before it with `prepare_arguments`.

    :param own: one of a name that is there takes its place.
    :param leave_out: names of the shared ones that make no sense in this DAG.
    :param defaults: of shared parameters, where they are others here: ``max_failed_fraction=0.1``.
    :raises KeyError: for a default of a parameter that is not there.
    """
    shared = {**make_params(), **show_names(_table_params())}
    for name in {"input_uri", *own, *leave_out}:
        shared.pop(name, None)
    for name, value in defaults.items():
        shared[name].value = value
    named = show_names(dict(own))
    folded = {name for name, param in named.items() if param.schema.get("section")}
    first = {name: param for name, param in named.items() if name not in folded}
    return first | shared | {name: named[name] for name in folded}


def show_names(params: dict[str, Param]) -> dict[str, Param]:
    """With each parameter's name after its description, since messages and documentation use it, and with `DRAFT`."""
    for name, param in params.items():
        param.description = f"{param.description} ({name})"
        param.schema.setdefault("$schema", DRAFT)
    return params


def _shard_params() -> dict[str, Param]:
    return {
        "max_requests_per_shard": Param(
            default=50_000,
            type="integer",
            minimum=1,
            maximum=50_000,
            title="Requests per shard",
            description="At most 50,000, OpenAI's limit per batch.",
            section="Shards",
        ),
        "max_tokens_per_shard": Param(
            default=None,
            type=["null", "integer"],
            minimum=1,
            title="Tokens per shard",
            description="Input tokens. Empty: 95% of the account's queue limit, where it is known, else no limit.",
            section="Shards",
        ),
        "max_bytes_per_shard": Param(
            default=100_000_000,
            type="integer",
            minimum=1,
            maximum=200_000_000,
            title="Bytes per shard",
            description="At most 200,000,000, as OpenAI documents; above the default it has refused files (error 413).",
            section="Shards",
        ),
        "on_bad_line": Param(
            default="fail",
            enum=["fail", "reject"],
            title="Lines that cannot be sent",
            description="fail: nothing is sent. reject: they go to rejected.jsonl, the rest is sent.",
            section="Shards",
        ),
        "on_empty": Param(
            default="fail",
            enum=["fail", "skip"],
            title="Input without requests",
            description="fail the run, or skip what comes after the split.",
            section="Shards",
        ),
    }


def _answer_params() -> dict[str, Param]:
    return {
        "keep_response_body": Param(
            default=False,
            type="boolean",
            title="Keep whole answers",
            description="Each answer's JSON in the column response_body. raw/ has it anyway.",
            section="Results",
        ),
        "max_failed_fraction": Param(
            default=0.0,
            type="number",
            minimum=0,
            maximum=1,
            title="Failed rows allowed",
            description="The run is red, after all has landed, when more than this fraction of the rows is not ok. "
            "0: one bad row is enough.",
            section="Results",
        ),
        "max_attempts": Param(
            default=3,
            type="integer",
            minimum=1,
            maximum=10,
            title="Attempts per request",
            description="How often a request may really run; good answers are never asked again.",
            section="Results",
        ),
        "accept_codes": Param(
            default=[],
            type="array",
            items={"enum": list(_ACCEPTABLE)},
            examples=list(_ACCEPTABLE),  # makes the form offer them as a list
            title="Also count as ok",
            description="Answers that otherwise are bad rows. truncated is for requests that are meant to be cut off "
            "by max_tokens.",
            section="Results",
        ),
        "retry_codes": Param(
            default=["invalid_output"],
            type="array",
            items={"enum": list(_RETRYABLE)},
            examples=list(_RETRYABLE),
            title="Also ask again",
            description="Answers that are asked again, and paid for again. Server errors and rate limits always are.",
            section="Results",
        ),
    }


def _table_params() -> dict[str, Param]:
    return {
        "overwrite": Param(
            default=False,
            type="boolean",
            title="Overwrite",
            description="A file that lies where the table goes and was not written by this DAG.",
            section="Results",
        ),
    }


def _sending_params() -> dict[str, Param]:
    return {
        "poll_interval": Param(
            default=60,
            type="number",
            minimum=0.1,
            title="Poll interval",
            description="Seconds between two looks at all running batches of the connection.",
            section="Sending",
        ),
        "mode": Param(
            default=read_mode(None),
            enum=["auto", "batch", "flex", "realtime"],
            title="Batch, flex or real time",
            description="auto: up to the threshold one by one, through flex where the model has it, else in real time; "
            "more as a batch. Flex costs what a batch costs, and an answer takes up to 15 minutes. Real time costs "
            "twice as much and takes minutes for all. The default comes from USE_BATCH_PROCESSING.",
            section="Sending",
        ),
        "realtime_threshold": Param(
            default=10,
            type="integer",
            minimum=0,
            title="Real-time threshold",
            description="With auto: up to so many requests of one sending go out one by one, such as a handful "
            "of leftovers.",
            section="Sending",
        ),
        "realtime_concurrency": Param(
            default=None,
            type=["null", "integer"],
            minimum=1,
            title="Real-time concurrency",
            description="Requests in the air at once. Empty: what the connection's tier allows, or 5; through flex up "
            "to 50, as far as there is room.",
            section="Sending",
        ),
        "enqueued_token_limit": Param(
            default=None,
            type=["null", "integer"],
            minimum=1,
            title="Queue limit",
            description="The account's batch queue limit for the model, in input tokens. Bounds the shards; a full "
            "queue is waited out. Empty: the connection's extra.",
            section="Sending",
        ),
        "max_cost_usd": Param(
            default=None,
            type=["null", "number"],
            minimum=0,
            title="Budget",
            description="US dollars. Nothing is sent that could bring the job above it. Empty: no bound.",
            section="Sending",
        ),
        "sample_requests": Param(
            default=None,
            type=["null", "integer"],
            minimum=1,
            title="Sample",
            description="Send only the first so many requests, to see what the rest would cost. A later run of the "
            "same job without it goes on and uses their answers.",
            section="Sending",
        ),
        "finish_within_h": Param(
            default=None,
            type=["null", "number"],
            minimum=0,
            title="Finish within",
            description="Hours since the start of the run. Empty: no bound. With flex or realtime below, a batch is "
            "given up as soon as there is just time left for the rest.",
            section="Sending",
        ),
        "on_deadline": Param(
            default="fail",
            enum=["fail", "flex", "realtime", "publish"],
            title="After that",
            description="fail: the shard fails, its batch goes on. Otherwise the batch is cancelled, what is finished "
            "is kept, and the rest is sent in real time, or through flex (in real time where flex has no room for five "
            "minutes), or published as missing.",
            section="Sending",
        ),
        "keep_remote_files": Param(
            default=False,
            type="boolean",
            title="Keep files at OpenAI",
            description="Otherwise they are deleted once the rows are written. raw/ has them anyway.",
            section="Sending",
        ),
    }
