"""Transcripts in Qdrant get tags and a summary, written into the payload of the same points."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Param, TriggerRule, get_current_context, task

from airflow_openai_batch.dag_params import make_form, prepare_arguments, sample_path
from airflow_openai_batch.operators.own_tasks import check_joined
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.recipes.qdrant import tagging
from airflow_openai_batch.task_group import openai_batch_task_group

DAG_ID = "tag_transcripts"
PROMPT = "tags.yaml"
RULES = tagging.TagRules(clean=tagging.clean_tag, max_tag_chars=40, max_summary_chars=500)
"""What an answer must keep, besides the number of tags, which the prompt says."""
SAMPLES = sample_path("transcripts")

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
  where more than `max_failed_fraction` of the points were skipped; `repair` with the same *Output* asks about those
  alone that got no valid answer. A later run sets aside what was asked in vain, answers against the rules too
  (`set_aside.jsonl`), until text, prompt or model change, or `retry_failed` asks again, after all others.

**Try it**: trigger it with the form as it is. The first run puts 22 sample transcripts into a collection in files on
this machine (`.qdrant/tag_transcripts` below `output_root`). The second finds nothing to do. Then raise `version` in
`include/prompts/tags.yaml` and run it again. *Only the sample* stops after the sample; the same *Output* again goes on
from there.

**Clear any red task**: what was answered is kept, and writing twice writes the same.

**Make it your own**
1. A connection of type Qdrant in *Qdrant* (`pip install 'airflow-provider-openai-batch[qdrant]'`), your *Collection*,
   and the keys of its payload in *Text* and *Title*; a list of texts or of segments (`[{"start": 0.0, "text": ...}]`)
   is one text. Files on this machine are for trying: one process at a time, all in memory.
2. `include/prompts/tags.yaml` is the prompt, and says how many tags there are; a file of that name beside this one
   takes its place. Raise its `version` with each change that should reach tagged points. Words that it lists for the
   tags (`enum`) are written as they are. To try other words, type them into *Instructions*, with *Tag again* on
   `changed`. A property that you add to its schema stands below *Mark*, in `answers`: filter by `tagging.answers.mood`.
3. `RULES`: what makes a tag of the model's words (`clean=str.strip` leaves them), and how long they may be.
4. A `schedule`, and `const=` in those parameters that nobody should type, with the same value as `default=`. A run
   without new transcripts ends at once and costs nothing. The task **seed_samples** can go.
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
    def seed_samples() -> int:
        return tagging.seed_samples(get_current_context(), SAMPLES)

    # The report comes all the same: it says that there was nothing to do.
    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def read() -> int:
        return tagging.find_untagged(get_current_context(), PROMPT, RULES)

    @task.short_circuit(task_id="check_sample", ignore_downstream_trigger_rules=False)
    def check() -> bool:
        return tagging.judge_sample(get_current_context(), PROMPT, RULES)

    @task
    def write() -> dict[str, Any]:
        return tagging.write_answers(get_current_context(), PROMPT, RULES)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def judge(written: Any) -> None:
        if not written:
            raise AirflowSkipException("Nothing was written in this run.")
        check_joined("join")
        tagging.judge_tags(get_current_context())

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def report() -> None:
        tagging.report_tags(get_current_context(), PROMPT)

    output: Any = "{{ params.output_uri.rstrip('/') }}"
    prepare = OpenAIBatchPrepareOperator(
        task_id="prepare",
        source="{{ ti.xcom_pull(task_ids='read', key='rows') }}",
        prompt=PROMPT,
        # Typed words hold templates over a transcript's columns at most, filled in in a sandbox.
        prompt_overrides={"model": "{{ params.model }}", "system": "{{ params.instructions or '' }}"},
        output_uri=f"{output}/{tagging.PREPARED}",
        dedupe=True,
        **prepare_arguments(),
    )
    asking: dict[str, Any] = {
        "input_uri": prepare.output,
        "output_uri": f"{output}/{tagging.JOB}",
        "from_params": True,
        "max_failed_fraction": 1,  # good answers are written whatever became of the others; `judge` judges
    }
    # A repair is of all that was asked.
    few: Any = "{{ '' if params.repair else params.sample_requests }}"
    sample = openai_batch_task_group("sample", **asking, sample_requests=few)
    tag = openai_batch_task_group("tag", **asking, sample_requests=None)
    # `judge` judges, once what has its answer is written.
    join = tag.join_rows(prepare, f"{output}/{tagging.TABLE}", max_rejected_fraction=1)
    written = write()

    seed_samples() >> read() >> prepare >> sample >> check() >> tag
    join >> written >> report()
    [tag.report, written] >> judge(written)
