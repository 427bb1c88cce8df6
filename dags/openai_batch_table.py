"""Any table and a prompt typed into the trigger form: the table comes back with answers beside its rows."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, TriggerRule, task

from airflow_openai_batch.dag_params import (
    DEFAULT_MODEL,
    make_form,
    prepare_arguments,
    sample_path,
)
from airflow_openai_batch.operators.own_tasks import check_joined
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.task_group import openai_batch_task_group

DAG_ID = "openai_batch_table"

DOC_MD = """
### Ask the same question about every row of a table
Trigger it as it stands: it asks a small sample of reviews. Then put in your own:

1. **Table**: a CSV, JSON Lines, Parquet or Excel file, a glob of them, or a query (*SQL* and *Database*).
2. **Prompt**: what to ask about a row. `{{ review }}` stands for the cell in the column *review*; a name with blanks is
   written `{{ row['Review text'] }}`. A name that is no column stops the run, which lists those that there are.
3. **Model**, and if you want the answer in columns of its own, **Answer columns**, one per line:
   `mood: one of good, bad` or `stars (integer): 1 to 5`. Types: text, integer, number, boolean, list.
4. **Preview** first: with 3, the log of *prepare* shows the first three requests, with tokens and cost, and nothing is
   sent. `sample_requests` (under *Sending*) sends the first few rows only; *Dry run* plans and prices all.

You find `answers.csv` (or what *Format* says) in the output directory: all rows in their order, each with `answer`,
`answer_status`, `answer_error`, `answer_model`, `answer_cost_usd` and the answer's columns. Rows that could not be
asked or answered say why; a row with an empty cell that the prompt names is one of these, unless the prompt says
`{{ price | default("unknown") }}`. Where more than 5% could not be asked about, the run is red once the table is
written. Up to 10 rows go out in real time, more as a batch at half the price (*Sending*, `mode`). The emulator of
`make up` makes its answers up: only OpenAI's mean something.

### Make it your own
Copy the file. Give `source`, `prompt` and `output_uri` as constants, a `schedule`, and drop the parameters that nobody
should type. A prompt that is worth keeping belongs into a YAML file: `prompt="prompts/sentiment.yaml"`.
"""


OWN = {
    "source": Param(
        default=sample_path("table/reviews.csv"),
        type=["null", "string", "array"],
        title="Table",
        description="URI or path of a .csv, .jsonl, .parquet or .xlsx, or a glob. Several: one per line.",
    ),
    "prompt": Param(
        default="Is this review of our {{ product }} good or bad for us, and what is it about?\n\n{{ review }}",
        type="string",
        format="multiline",
        minLength=1,
        title="Prompt",
        description="Asked about every row. {{ column }} stands for the row's cell in that column; a name with "
        "blanks is written {{ row['Its name'] }}.",
    ),
    "model": Param(
        default=DEFAULT_MODEL, type="string", minLength=1, title="Model", description="Of OpenAI."
    ),
    "answer_columns": Param(
        default="mood: one of good, bad, mixed\ntopics (list): one to three words each, lower case",
        type=["null", "string"],
        format="multiline",
        title="Answer columns",
        description="One per line: name (type): what is wanted. Types: text (default), integer, number, boolean, "
        "list. Empty: the answer is one text.",
    ),
    "format": Param(
        default="csv",
        enum=["csv", "xlsx", "parquet", "jsonl"],
        title="Format",
        description="Of answers.*.",
    ),
    "preview": Param(
        default=None,
        type=["null", "integer"],
        minimum=1,
        maximum=100,
        title="Preview",
        description="Show the first so many requests with tokens and cost in the log of prepare, cells readable, "
        "and send nothing.",
    ),
    "sql": Param(
        default=None,
        type=["null", "string"],
        format="multiline",
        title="SQL",
        description="One query that reads, in place of the table.",
    ),
    "sql_conn_id": Param(
        default=None,
        type=["null", "string"],
        title="Database",
        description="Connection that the query is for: one of [openai_batch] allowed_sql_conn_ids.",
    ),
    "system": Param(
        default=None,
        type=["null", "string"],
        format="multiline",
        title="System prompt",
        description="What holds for all rows.",
        section="Prompt",
    ),
    "answer_schema": Param(
        default=None,
        type=["null", "object"],
        title="Answer as JSON Schema",
        description="In place of the answer columns, for whoever needs more than they can say.",
        section="Prompt",
    ),
    "parameters": Param(
        default={"reasoning_effort": "none", "max_completion_tokens": 500},
        type="object",
        title="Request parameters",
        description="As OpenAI takes them: max_completion_tokens, reasoning_effort ... Reasoning "
        "counts within max_completion_tokens; old models do not know it.",
        section="Prompt",
    ),
    "dedupe": Param(
        default=True,
        type="boolean",
        title="Equal rows once",
        description="Rows that make the same request are asked once, and all get the answer.",
        section="Prompt",
    ),
    "encoding": Param(
        default=None,
        type=["null", "string"],
        title="Encoding",
        description="Of a CSV: utf-8, cp1252 (Excel in Western Europe), utf-16 ... Empty: found from the file.",
        section="Table",
    ),
    "delimiter": Param(
        default=None,
        type=["null", "string"],
        maxLength=1,
        title="Delimiter",
        description="Of a CSV. Empty: what a first line sep=; says, or what the header has most of.",
        section="Table",
    ),
    "sheet": Param(
        default=None,
        type=["null", "string"],
        title="Sheet",
        description="Of a workbook, by name. Empty: the first.",
        section="Table",
    ),
    "raw_csv": Param(
        default=False,
        type="boolean",
        title="CSV for machines",
        description="Leaves cells of answers.csv as they are. Otherwise an apostrophe stands before what a "
        "spreadsheet would run as a formula.",
        section="Table",
    ),
    "max_rejected_fraction": Param(
        default=0.05,
        type="number",
        minimum=0,
        maximum=1,
        title="Rejected rows allowed",
        description="The run is red, after the table is written, when more than this fraction of the rows could "
        "not be asked about.",
        section="Table",
    ),
}

with DAG(
    dag_id=DAG_ID,
    dag_display_name="Ask about every row of a table",
    description="A table, a prompt typed into the form, a model: the table with answers beside its rows.",
    schedule=None,
    catchup=False,
    tags=["openai", "batch", "example"],
    params=make_form(OWN),
    doc_md=DOC_MD,
    max_active_tasks=64,
) as dag:
    output: Any = "{{ params.output_uri.rstrip('/') }}"
    prepare = OpenAIBatchPrepareOperator(
        task_id="prepare",
        source="{{ ('' if params.sql else params.source) | tojson }}",
        sql="{{ params.sql or '' }}",
        conn_id="{{ params.sql_conn_id or '' }}",
        # What the form says takes the place of these. It holds templates of its own, which Airflow leaves alone.
        prompt={"name": "table", "model": DEFAULT_MODEL, "user": "{{ row | tojson }}"},
        prompt_overrides={
            "user": "{{ params.prompt }}",
            "model": "{{ params.model }}",
            "system": "{{ params.system or '' }}",
            "answer_columns": "{{ '' if params.answer_schema else params.answer_columns or '' }}",
            "response_schema": "{{ params.answer_schema | tojson }}",
            "parameters": "{{ params.parameters | tojson }}",
        },
        encoding="{{ params.encoding or '' }}",
        delimiter="{{ params.delimiter or '' }}",
        sheet="{{ params.sheet or '' }}",
        output_uri=f"{output}/prepared",
        dedupe="{{ params.dedupe }}",
        on_none_left="skip",
        **prepare_arguments(),
        preview="{{ params.preview }}",
    )

    ask = openai_batch_task_group(
        "ask",
        input_uri=prepare.output,
        output_uri=f"{output}/job",
        from_params=True,
        tooltip="One task per shard; each goes through upload, batch, download and what is left over.",
    )

    # Also where no row could be asked, or a shard failed: the table then says why, row by row.
    join = ask.join_rows(
        prepare,
        f"{output}/answers.{{{{ params.format }}}}",
        long_text="cut",
        raw_csv="{{ params.raw_csv }}",
        max_rejected_fraction="{{ params.max_rejected_fraction }}",
    )

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def judge(params: Any = None) -> None:
        if not params["sample_requests"]:
            check_joined("join")

    [ask.report, join] >> judge()
