"""Transcripts in Qdrant get tags and a summary, written into the payload of the same points."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Param, TriggerRule, task

from airflow_openai_batch.dag_params import make_form, prepare_arguments, sample_path
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.own_tasks import PromptSpec, check_joined, load_prompt, task_failures
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.recipes.job_folder import open_folder
from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore
from airflow_openai_batch.recipes.qdrant.tag_choice import TagChoice
from airflow_openai_batch.recipes.qdrant.tag_marks import Fields
from airflow_openai_batch.recipes.qdrant.tag_writing import (
    JOB,
    PREPARED,
    TABLE,
    check_sample,
    check_skipped,
    write_summary,
    write_tags,
)
from airflow_openai_batch.recipes.qdrant.transcripts import ROWS, read_transcripts, seed_transcripts
from airflow_openai_batch.task_group import openai_batch_task_group

DAG_ID = "tag_transcripts"
PROMPT = "include/prompts/tags.yaml"
SAMPLES = Path(sample_path("transcripts"))

DOC_MD = """
### Transcripts in Qdrant → 3 to 5 tags and a summary, in the same points
| find what is untagged | try the prompt | ask about all | write back |
| --- | --- | --- | --- |
| seed_samples → read → prepare → | sample → check_sample → | tag → join → | write → report, judge |

* **read** scrolls through the collection and takes the points that *Filters* let through and that have no tags yet, or
  tags by an older version of the prompt (*Tag again* says otherwise). What has its tags is not asked about again,
  however often you run it. Values that this DAG did not write, or that somebody has changed since, are left alone and
  counted by key in the report: name other keys to write to (*Tags*, *Summary*, *Mark*), or *Overwrite*.
* **sample** asks about the first 5, **check_sample** stops the run where half of the answers or more cannot be used.
  **tag** asks about all others; the sample's answers are kept. More than 10 go out as a batch, at half the price.
* **write** sets `tags`, `summary` and `tagging` (prompt, version, model, cost) in each point's payload and touches
  nothing else. Tags are made lower case with hyphens; an answer that still breaks the rules is skipped, and so is a
  point whose text has changed meanwhile: `skipped.jsonl` says which and why.
* **report** leaves `summary.md`: read, written, skipped, cost and the most frequent tags. **judge** turns the run red
  where more than `max_failed_fraction` of the points were skipped; `repair` with the same *Output* asks about these
  alone. A later run sets aside what was asked in vain (`set_aside.jsonl`), until text, prompt or model change, or
  `retry_failed` asks again, after all others.

**Try it**: trigger it with the form as it is. The first run puts 22 sample transcripts into a collection in files on
this machine (`.qdrant/tag_transcripts` below `output_root`). The second finds nothing to do. Then raise `version` in
`include/prompts/tags.yaml` and run it again. *Only the sample* stops after the sample; the same *Output* again goes on
from there.

**Clear any red task**: what was answered is kept, and writing twice writes the same.

**Make it your own**
1. A connection of type Qdrant in *Qdrant* (`pip install 'airflow-provider-openai-batch[qdrant]'`), your *Collection*,
   and the keys of its payload in *Text* and *Title*; a list of texts or of segments (`[{"start": 0.0, "text": ...}]`)
   is one text. Files on this machine are for trying: one process at a time, all in memory.
2. `include/prompts/tags.yaml` is the prompt. Raise its `version` with each change that should reach tagged points. To
   try other words, type them into *Instructions*, with *Tag again* on `changed`.
3. `recipes/qdrant/tags.py` has the rules for tags, `recipes/qdrant/tag_writing.py` what is written into the payload.
4. A `schedule`, and constants in place of the parameters that nobody should type. A run without new transcripts ends at
   once and costs nothing. The task **seed_samples** can go.
"""


OWN = {
    "qdrant_conn_id": Param(
        default="",
        type=["null", "string"],
        title="Qdrant",
        description="Connection of type Qdrant. Empty: files on this machine.",
    ),
    "collection": Param(
        default="transcripts", type="string", minLength=1, title="Collection", description="In Qdrant."
    ),
    "filters": Param(
        default={},
        type=["null", "object"],
        title="Filters",
        description='By key of the payload, all must hold: {"language": "en", "show": ["Field Notes", "Signal '
        'Path"], "minutes": {"gte": 25}}. Or a filter as Qdrant has it.',
    ),
    "sample_requests": Param(
        default=5,
        type="integer",
        minimum=1,
        title="Sample",
        description="So many are asked about first, and the run stops where half of the answers cannot be used.",
    ),
    "only_sample": Param(
        default=False,
        type="boolean",
        title="Only the sample",
        description="Stop after it; sample.jsonl has its answers. A run with the same output goes on.",
    ),
    "model": Param(
        default="",
        type=["null", "string"],
        title="Model",
        description="Empty: the one that the prompt names.",
    ),
    "instructions": Param(
        default="",
        type=["null", "string"],
        format="multiline",
        title="Instructions",
        description="In place of those in the prompt file (its `system`): what to find, in which words. Title and "
        "transcript follow by themselves. Empty: those of the file.",
    ),
    "retag": Param(
        default="version",
        enum=["version", "changed", "all", "never"],
        title="Tag again",
        description="Points that this DAG has tagged. version: by an older version of the prompt. changed: by another "
        "model or other words, too. all of them. never. What a newer version has tagged stays.",
    ),
    "retry_failed": Param(
        default=False,
        type="boolean",
        title="Failed ones again",
        description="Also points about which the same was asked in vain, after all others.",
    ),
    "overwrite": Param(
        default=False,
        type="boolean",
        title="Overwrite",
        description="Also tags and summaries that this DAG did not write, or that were changed since.",
    ),
    "text_field": Param(
        default="text",
        type="string",
        title="Text",
        description="Key of the payload with the transcript; a.b looks into an object.",
        section="Payload",
    ),
    "title_field": Param(
        default="title",
        type=["null", "string"],
        title="Title",
        description="Key of the payload with a title, if there is one.",
        section="Payload",
    ),
    "tags_field": Param(
        default="tags", type="string", title="Tags", description="Key that gets them.", section="Payload"
    ),
    "summary_field": Param(
        default="summary", type="string", title="Summary", description="Key that gets it.", section="Payload"
    ),
    "tagging_field": Param(
        default="tagging",
        type="string",
        title="Mark",
        description="Key that says by which prompt, version and model, at which cost.",
        section="Payload",
    ),
}


def open_store(params: dict[str, Any]) -> PointStore:
    return PointStore(collection=params["collection"], conn_id=params["qdrant_conn_id"] or "", name=DAG_ID)


def read_fields(params: dict[str, Any]) -> Fields:
    return Fields(
        text=params["text_field"],
        title=params["title_field"] or "",
        tags=params["tags_field"],
        summary=params["summary_field"],
        tagging=params["tagging_field"],
    )


def read_choice(params: dict[str, Any]) -> TagChoice:
    return TagChoice(
        retag=params["retag"], overwrite=params["overwrite"], retry_failed=params["retry_failed"]
    )


def read_prompt_file(params: dict[str, Any]) -> PromptSpec:
    typed = {"model": params["model"], "system": params["instructions"]}
    return load_prompt(PROMPT, typed, Path(__file__).parent)


with DAG(
    dag_id=DAG_ID,
    dag_display_name="Tag transcripts in Qdrant",
    description="Untagged transcripts from Qdrant, tags and a summary by a batch, back into the same points.",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # two would ask about the same points, and local files take one process at a time
    tags=["openai", "batch", "example"],
    # `reject`: a transcript beyond the model's context is one row. At most a tenth may come to nothing.
    params=make_form(OWN, max_failed_fraction=0.1, on_bad_line="reject"),
    doc_md=DOC_MD,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
) as dag:

    @task
    def seed_samples(params: Any = None) -> int:
        if params["qdrant_conn_id"]:
            return 0
        with task_failures():
            return seed_transcripts(open_store(params), SAMPLES)

    # The report comes all the same: it says that there was nothing to do.
    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def read(params: Any = None, ti: Any = None) -> int:
        with task_failures():
            folder = open_folder(params["output_uri"], ti.run_id)
            found = read_transcripts(
                open_store(params),
                folder,
                read_prompt_file(params),
                filters=params["filters"] or {},
                fields=read_fields(params),
                choice=read_choice(params),
                restart_of=ti.run_id if params["on_existing"] == "restart" else None,
            )
        ti.xcom_push("rows", folder.child(ROWS).uri)
        return found.read

    @task.short_circuit(task_id="check_sample", ignore_downstream_trigger_rules=False)
    def check(params: Any = None, run_id: Any = None) -> bool:
        with task_failures():
            folder = open_folder(params["output_uri"], run_id)
            check_sample(folder, open_store(params), fields=read_fields(params))
        return not params["only_sample"]

    @task
    def write(params: Any = None, run_id: Any = None) -> dict[str, Any]:
        with task_failures():
            folder = open_folder(params["output_uri"], run_id)
            done = write_tags(
                folder, open_store(params), fields=read_fields(params), overwrite=params["overwrite"]
            )
        return {
            "read": done.read,
            "written": done.written,
            "skipped": done.skipped,
            "cost_usd": done.cost_usd,
        }

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def judge(written: Any, params: Any = None, run_id: Any = None) -> None:
        if not written:
            raise AirflowSkipException("Nothing was written in this run.")
        check_joined("join")
        with task_failures():
            check_skipped(open_folder(params["output_uri"], run_id), params["max_failed_fraction"])

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def report(params: Any = None, run_id: Any = None) -> None:
        with task_failures():
            folder = open_folder(params["output_uri"], run_id)
            write_summary(folder, store=open_store(params), prompt=read_prompt_file(params))

    output: Any = "{{ params.output_uri.rstrip('/') }}"
    prepare = OpenAIBatchPrepareOperator(
        task_id="prepare",
        source="{{ ti.xcom_pull(task_ids='read', key='rows') }}",
        prompt=PROMPT,
        # Typed words hold templates over a transcript's columns at most, filled in in a sandbox.
        prompt_overrides={"model": "{{ params.model }}", "system": "{{ params.instructions or '' }}"},
        output_uri=f"{output}/{PREPARED}",
        dedupe=True,
        **prepare_arguments(),
    )
    asking: dict[str, Any] = {
        "input_uri": prepare.output,
        "output_uri": f"{output}/{JOB}",
        "from_params": True,
        "max_failed_fraction": 1,  # good answers are written whatever became of the others; `judge` judges
    }
    # A repair is of all that was asked.
    few: Any = "{{ '' if params.repair else params.sample_requests }}"
    sample = openai_batch_task_group("sample", **asking, sample_requests=few)
    tag = openai_batch_task_group("tag", **asking, sample_requests=None)
    join = OpenAIBatchJoinOperator(
        task_id="join",
        prepared="{{ ti.xcom_pull(task_ids='prepare', key='prepared') }}",
        job=tag.begun_job,
        output_uri=f"{output}/{TABLE}",
        max_rejected_fraction=1,  # `judge` judges
        trigger_rule=TriggerRule.ALL_DONE,
        on_unfinished="keep",
    )
    written = write()

    seed_samples() >> read() >> prepare >> sample >> check() >> tag
    # Beside the group's publish, not after it: what has its answer is written whatever failed.
    tag.shards >> join >> written >> report()
    [tag.report, written] >> judge(written)
