"""Documents become chunks, chunks become vectors in Qdrant; a query task shows that neighbours make sense."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Param, TriggerRule, get_current_context, task

from airflow_openai_batch.dag_params import make_form, prepare_arguments, sample_path
from airflow_openai_batch.operators.own_tasks import check_joined
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.recipes.qdrant.embedding import (
    TABLE,
    cut_documents,
    judge_vectors,
    show_neighbours,
    write_vectors,
)
from airflow_openai_batch.task_group import openai_batch_task_group

DAG_ID = "embed_documents"
PROMPT = "embed_chunks.yaml"
SAMPLES = sample_path("documents/guides")

DOC_MD = """
### Documents → chunks → vectors in Qdrant, at half the price
| cut | embed | keep | look |
| --- | --- | --- | --- |
| read → prepare → | embed → join → | write → | query, judge |

* **read** cuts every document into chunks, by headings and paragraphs, and takes those that have no vector yet. A chunk
  is known by its document and content, so a run pays for what is new or changed, and for nothing else.
* **embed** sends them: more than 10 requests (of 3 chunks) as a batch, fewer in real time. So **a single new document
  is there within seconds**, a collection of them comes overnight.
* **write** puts chunks and vectors into the collection, and deletes those that a document no longer has, once all its
  present ones are there. Twice the same is once.
* **judge** turns the run red where more than `max_failed_fraction` of the chunks got no vector (`without_vector.jsonl`
  says which, and why). A new run asks for these alone, and so does `repair` with the same *Output*.
* **query** embeds *Queries* with the same model and writes the nearest sections to `neighbours.md` and into the log,
  with a measure that needs no queries: how often a chunk's nearest neighbour is of its own document.

**Try it**: trigger it with the form as it is: eight household guides go into a collection in files on this machine
(`.qdrant/embed_documents` below `output_root`). Trigger it again: nothing is new. Change a paragraph, or name a
document of your own in *Documents*, and trigger it once more.

**Clear any red task**: what was answered is kept.

**Make it your own**
1. *Documents*: a prefix such as `s3://conn@bucket/handbook/`. Text, Markdown and e-mails (.eml) are read as they are;
   PDF, Word, PowerPoint, Excel and HTML with `pip install 'airflow-provider-openai-batch[documents]'`. Chunks of pages,
   slides and sheets have their number in `page`. What cannot be read is in `unread.csv`, with the reason: scans without
   text, passwords, more than 64 MiB or 60 s. A document that is gone from the prefix keeps its chunks; delete them by
   their `document` in the payload.
2. A connection of type Qdrant in *Qdrant* (`pip install 'airflow-provider-openai-batch[qdrant]'`). Files on this
   machine are for trying: one process at a time, all in memory.
3. `include/prompts/embed_chunks.yaml`: model, dimensions and what stands in front of a chunk. With another `input` all
   chunks are embedded anew. Another model wants another collection: vectors of two models cannot be compared.
4. `recipes/qdrant/document_chunks.py` cuts; give it your own rules. `recipes/qdrant/chunk_writing.py` says what is in
   the payload.
"""


OWN = {
    "documents": Param(
        default=f"{SAMPLES}/",
        type="string",
        minLength=1,
        title="Documents",
        description="URI or path: a prefix that ends in /, for all documents below it, or one.",
    ),
    "qdrant_conn_id": Param(
        default="",
        type=["null", "string"],
        title="Qdrant",
        description="Connection of type Qdrant. Empty: files on this machine.",
    ),
    "collection": Param(
        default="documents", type="string", minLength=1, title="Collection", description="In Qdrant."
    ),
    "queries": Param(
        default=[
            "My bread does not get sour",
            "How do I get rid of lime in the boiler?",
            "There is mould behind the wardrobe",
        ],
        type=["null", "array"],
        items={"type": "string"},
        title="Queries",
        description="One per line. Each is embedded in real time.",
    ),
    "max_chars": Param(
        default=800,
        type="integer",
        minimum=100,
        maximum=20_000,
        title="Characters per chunk",
        description="At most. A whole section where it fits.",
        section="Chunks",
    ),
    "neighbours": Param(
        default=3,
        type="integer",
        minimum=1,
        maximum=100,
        title="Neighbours",
        description="So many for each query.",
        section="Chunks",
    ),
}

with DAG(
    dag_id=DAG_ID,
    dag_display_name="Embed documents into Qdrant",
    description="New and changed chunks of documents get vectors by a batch, and Qdrant gets both.",
    schedule=None,
    catchup=False,
    max_active_runs=1,  # local files take one process at a time
    tags=["openai", "batch", "example"],
    params=make_form(OWN, on_bad_line="reject"),
    doc_md=DOC_MD,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
) as dag:
    # Where nothing is new, chunks may have gone all the same.
    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def read() -> int:
        return cut_documents(get_current_context(), PROMPT)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def write() -> dict[str, Any]:
        return write_vectors(get_current_context(), PROMPT)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def judge(written: Any) -> None:
        context = get_current_context()
        if not written:
            raise AirflowSkipException("Nothing was written in this run.")
        if not context["params"]["sample_requests"]:
            check_joined("join")
        judge_vectors(context)

    @task
    def query() -> None:
        show_neighbours(get_current_context(), PROMPT)

    output: Any = "{{ params.output_uri.rstrip('/') }}"
    prepare = OpenAIBatchPrepareOperator(
        task_id="prepare",
        source="{{ ti.xcom_pull(task_ids='read', key='chunks') }}",
        prompt=PROMPT,
        output_uri=f"{output}/prepared",
        dedupe=True,
        **prepare_arguments(),
    )
    embed = openai_batch_task_group(
        "embed",
        input_uri=prepare.output,
        output_uri=f"{output}/job",
        from_params=True,
        max_failed_fraction=1,  # what has a vector is written whatever became of the others; `judge` judges
    )
    join = embed.join_rows(prepare, f"{output}/{TABLE}", max_rejected_fraction=1)  # `judge` judges
    written = write()

    read() >> prepare
    join >> written >> query()
    [embed.report, written] >> judge(written)
    embed.get_child_by_label("split") >> written  # where it failed there is nothing to write
