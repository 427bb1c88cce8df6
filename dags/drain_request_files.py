"""Ready request files that are dropped into a directory: sent within the account's queue limit, answers beside them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, TriggerRule, XComArg, get_current_context, task, task_group

from airflow_openai_batch.dag_params import (
    find_output_root,
    landing_arguments,
    make_form,
    report_arguments,
    sample_path,
    sending_arguments,
    split_arguments,
)
from airflow_openai_batch.operators.report import OpenAIBatchReportOperator
from airflow_openai_batch.operators.shard import OpenAIBatchShardOperator
from airflow_openai_batch.operators.split import OpenAIBatchSplitOperator
from airflow_openai_batch.recipes.inbox import draining

DAG_ID = "drain_request_files"
SAMPLES = sample_path("request_files")
INBOX = f"{find_output_root()}/{DAG_ID}/inbox"

DOC_MD = """
### What gpt-batch-splitter and gpt-batch-manager do, in Airflow
| once | for each file | once | for each shard | for each file |
| --- | --- | --- | --- | --- |
| find_files → | split → | collect → | send → deliver | → publish |

Drop files of requests (`.jsonl`, `.jsonl.gz`, `.jsonl.zst`; one model and endpoint each or several) into the inbox
and trigger this DAG: each file is cut into shards that fit into the account's batch queue, as many shards are sent at
once as there is room for, and the answers appear beside the file as soon as its last shard is done:

| file | what it is |
| --- | --- |
| `shard-000-of-079.jsonl` | yours, as `gpt-batch-splitter` or anything else wrote it |
| `shard-000-of-079.output.jsonl` | OpenAI's lines, verbatim, one for each answered request, in the order of the file |
| `shard-000-of-079.error.jsonl` | the same for what was not answered; only where there is such |
| `_batch/` | the jobs: reports, tables of results, and what a later run goes on from |

* **A file that has its output is left alone**, also where gpt-batch-manager wrote it. A file dropped later is a new job
  of a later run; so is one whose content has changed. One that was copied, moved or touched, or whose output was
  removed, gets the answers that are there (*deliver_known*). A file keeps its name and place until its job is done:
  where only a renamed one or a copy is left, *deliver_known* is red and says which name it needs back.
* **Red where answers are not where they belong**: a file that cannot be split, or beside which nothing can be written,
  holds up no other one, but the run is not green.
* **Resumable**: clear a red task or trigger the DAG again, from whatever state. What was answered is never sent again.
* There is no need to split files beforehand: one large file is cut without being copied (*Tokens per shard* is the
  number that `gpt-batch-splitter` takes; empty means what the connection's `tier` or `enqueued_token_limit` says).

**Try it**: trigger it with the form as it is. It puts two small files into an inbox of its own and drains them.

**Make it your own**: set `inbox`, and a `schedule` below: `"*/15 * * * *"`, or the asset of what writes the files.
Let that write elsewhere and move files in when they are complete: a file that was written less than `min_age` seconds
ago, or grows while it is read, is left for the next run, and the log of *find_files* says so. Requests without a good
answer stand in the error file with their reason, and make the run red beyond `max_failed_fraction`; `repair` asks for
these alone and writes both files anew. To ask about a whole file again, remove its output and set `on_existing` to
restart. A sample is a beginning: outputs appear once all of a file is answered.
"""

OWN = {
    "inbox": Param(
        default=INBOX,
        type="string",
        title="Inbox",
        description="Directory or prefix with the request files; the answers are written beside them.",
    ),
    "min_age": Param(
        default=30,
        type="number",
        minimum=0,
        title="Leave alone for",
        description="Seconds since a file was written: it may still grow.",
        section="Inbox",
    ),
    "max_files": Param(
        default=100,
        type="integer",
        minimum=1,
        title="Files of a run",
        description="More wait for the next run.",
        section="Inbox",
    ),
}

with DAG(
    dag_id=DAG_ID,
    dag_display_name="Drain request files",
    description="Files of requests in a directory get their answers beside them, within the account's queue limit.",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two runs would look at the same files
    tags=["openai", "batch", "example"],
    # A job lies beside its file, and is one of many: no place to choose, no plan to look at first.
    params=make_form(OWN, leave_out=("output_uri", "dry_run", "overwrite")),
    doc_md=DOC_MD,
    default_args={"retry_delay": timedelta(minutes=1)},
    max_active_tasks=64,
) as dag:
    splitting = split_arguments()
    for name in ("input_uri", "output_uri", "plan_only"):
        del splitting[name]

    @task(task_id="find_files")
    def find() -> list[dict[str, str]]:
        params = get_current_context()["params"]
        return draining.find_files(params, SAMPLES if params["inbox"] == INBOX else None)

    found: Any = find()

    split = OpenAIBatchSplitOperator.partial(
        task_id="split",
        # Not by `expand_kwargs`: Airflow renders what a task hands to it, and a file may be "{{ conn.x }}.jsonl".
        output_uri="{{ ti.xcom_pull(task_ids='find_files')[ti.map_index]['output_uri'] }}",
        map_index_template="{{ task.input_uri.rpartition('/')[2][:250] }}",  # Airflow's database takes no more
        **splitting,
    ).expand(input_uri=found.map(lambda file: file["input_uri"]))

    # A file that cannot be split holds up no other.
    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    def collect(files: Any) -> Any:
        return draining.collect_shards(files)

    @task(task_id="deliver")
    def deliver_file(shard: Any) -> list[dict[str, Any]] | None:
        return draining.deliver(get_current_context()["params"]["inbox"], shard["job"])

    @task_group(group_id="shard")
    def drain(shard: Any) -> None:
        send = OpenAIBatchShardOperator(
            task_id="send", shard=shard, **sending_arguments(), **landing_arguments()
        )
        send >> deliver_file(shard)

    # Not of every file: one that cannot be split is red once, at its split.
    @task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    def list_jobs(jobs: Any, files: Any) -> list[str]:
        names = {file["output_uri"]: file["input_uri"].rpartition("/")[2] for file in files}
        get_current_context()["ti"].xcom_push("names", [names.get(job, job) for job in jobs])
        return list(jobs)

    publish = OpenAIBatchReportOperator.partial(
        task_id="publish",
        asset_uri="{{ params.inbox }}",
        **report_arguments(),
        map_index_template="{{ ti.xcom_pull(task_ids='list_jobs', key='names')[ti.map_index][:250] }}",
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
    ).expand(job=list_jobs(XComArg(split, key="job"), found))

    drained = drain.expand(shard=collect(split.output))
    drained >> publish

    @task(task_id=draining.DELIVER_KNOWN)
    def deliver_again(jobs: Any) -> list[dict[str, Any]]:
        return draining.deliver_known(get_current_context()["params"]["inbox"], jobs)

    known = deliver_again(XComArg(found.operator, key=draining.ANSWERED))

    # Red is the split of a bad file alone, or what could not be delivered, but the run is not green: this cannot begin
    # then. It runs nothing.
    [split, drained, known] >> EmptyOperator(
        task_id="all_files_delivered", trigger_rule=TriggerRule.NONE_FAILED
    )
