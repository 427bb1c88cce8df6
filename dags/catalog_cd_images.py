"""Photographs of CD covers become a catalogue: two model steps with plain code before, between and after them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param, TriggerRule, task

from airflow_openai_batch.dag_params import (
    DEFAULT_MODEL,
    find_output_root,
    join_arguments,
    make_form,
    prepare_arguments,
    sample_path,
)
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.own_tasks import (
    check_joined,
    load_prompt,
    make_path_safe,
    task_failures,
)
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.task_group import openai_batch_task_group

DAG_ID = "catalog_cd_images"
SAMPLES = sample_path("cd_covers")
WORK = "{{ params.output_uri.rstrip('/') | replace('{run_id}', run_id | path_safe) }}"
"""The directory that all steps share, in whatever task it stands."""

READING = "include/prompts/cd_cover.yaml"
JUDGING = "include/prompts/cd_choice.yaml"

DOC_MD = """
### Photographs of CD covers -> a catalogue in Excel
| step | what it does | writes |
| --- | --- | --- |
| list_photos | what has no good answer yet | `covers/round-001/rows.jsonl` |
| prepare_photos → **read_covers** → join_photos | a model reads the covers | `covers/round-001/answers.jsonl` |
| clean_covers | plain code: spelling, years, "Lanterns, The" | `cleaned.jsonl` |
| find_candidates | looks each CD up in a library's catalogue | `candidates.jsonl` |
| list_choices | what has no good judgement yet | `choices/round-001/rows.jsonl` |
| prepare_choices → **judge** → join_choices | a model chooses a record, or none | `choices/round-001/answers.jsonl` |
| check | years plausible, match good enough, duplicates | `checked.jsonl` |
| write_workbook | a sheet of results, a sheet of problems | `catalogue.xlsx` |

**Try it**: trigger it with the form as it is. It reads thirteen drawn covers (one file is cut off, one CD is there
twice, one is in no catalogue) and looks them up in a small catalogue that comes with them.

**Batch or real time**: with `mode` = auto up to ten requests go out at once, more as a batch. Here the covers go
as a batch, and the fewer choices in real time.

**Run it again** with the same `output_uri`, which is what the form has by default: only photographs that are new,
changed, or had no good answer are sent, and only choices that are new. Nothing is asked twice. Where nothing is left
to ask, the steps of the model are skipped and the workbook is written anew. `repair` leaves new photographs for later,
`on_existing` = restart asks about everything anew, and pays again. With `sample_requests` = 10 ten come first.

**Run one step alone**: clear it, without what comes after it. Each step reads files and replaces its own as a whole, so
it may run at any time and in any order; clear `clean_covers` with everything after it when you changed a rule, `check`
with `write_workbook` when you changed a limit. No step but the two of the model costs anything. Clearing `list_photos`
when all is done sends what failed once more.

**Make it your own**
1. `photos_uri`: where your pictures lie (`s3://conn@bucket/covers/`): .png, .jpg, .webp, .gif, and converted .tif,
   .avif, .bmp, .jp2 and, with the extra `heic`, .heic. They are sent upright. One that is rejected is tried again when
   the prompt's `images` change or the extra is installed; one that is gone leaves the results, with a note.
2. `catalogue_conn_id`: a connection of type HTTP to a catalogue that answers with JSON; its extra says how to ask. For
   MusicBrainz, say, with host `https://musicbrainz.org`:

   ```
   {"path": "/ws/2/release", "items": "releases", "requests_per_second": 1, "headers": {"User-Agent": "me@example.com"},
    "query": {"query": "release:({title}) AND artist:({artist})", "fmt": "json", "limit": "10"},
    "fields": {"artist": "artist-credit.0.name", "year": "date", "label": "label-info.0.label.name",
               "catalogue_number": "label-info.0.catalog-number"}}
   ```

   Where it wants tokens, as OCLC does: id and secret of the client as login and password, and in the extra
   `"token_url": "https://oauth.oclc.org/token", "scope": "..."`.
3. `include/prompts/cd_cover.yaml`, `cd_choice.yaml`: what is asked. A property that you add to the schema is a column
   of the workbook. Photographs of a phone are large; `max_side: 1024` there makes them smaller and cheaper. Without it
   no pixel is sent that the model does not look at, where that is published. Answers to another prompt belong in
   another `output_uri`.
4. `recipes/cds/cd_covers.py` (cleaning, how a match is scored) and `recipes/cds/cd_checks.py` (what is a problem).
"""

OWN = {
    "photos_uri": Param(
        default=f"{SAMPLES}/photos",
        type="string",
        title="Photographs",
        description="The directory or prefix that they lie below.",
    ),
    "output_uri": Param(
        default=f"{find_output_root()}/{DAG_ID}",
        type="string",
        title="Output",
        description="Directory of the catalogue. The same one again takes in what is new or failed; {run_id} "
        "stands for the id of this run.",
    ),
    "model": Param(
        default=DEFAULT_MODEL,
        type="string",
        title="Model",
        description="For both steps; it must be able to see.",
    ),
    "catalogue_conn_id": Param(
        default=None,
        type=["null", "string"],
        title="Catalogue",
        description="Connection of type HTTP to a library's catalogue, see the DAG's documentation. Empty: the "
        "file below.",
    ),
    "catalogue_uri": Param(
        default=f"{SAMPLES}/catalogue.jsonl",
        type="string",
        title="Catalogue as a file",
        description="JSON Lines with id, title, artist, year, label, catalogue_number.",
    ),
    "min_confidence": Param(
        default=0.6,
        type="number",
        minimum=0,
        maximum=1,
        title="Confidence wanted",
        description="Of the model, that it read the cover right; less is a problem.",
        section="Checks",
    ),
    "min_match_score": Param(
        default=0.75,
        type="number",
        minimum=0,
        maximum=1,
        title="Match wanted",
        description="Between cover and record, as code compares them; less is a problem.",
        section="Checks",
    ),
}


def ask(
    noun: str, group_id: str, prompt: str, begun: Any, **how: Any
) -> tuple[OpenAIBatchJoinOperator, BaseOperator]:
    """One model step: prepare, send, join, within the round that ``list_<noun>`` began; all skipped without one."""
    place = f"{{{{ ti.xcom_pull(task_ids='list_{noun}') }}}}"
    prepare = OpenAIBatchPrepareOperator(
        task_id=f"prepare_{noun}",
        source=f"{place}/rows.jsonl",
        prompt=prompt,
        prompt_overrides={"model": "{{ params.model }}"},
        output_uri=f"{place}/prepared",
        on_none_left="skip",  # all photographs may be damaged: then the join says so
        **prepare_arguments(),
        **how,
    )
    send = openai_batch_task_group(
        group_id,
        input_uri=prepare.output,
        output_uri=f"{place}/job",
        from_params=True,
        repair=False,  # a round of its own has what is asked again
    )
    join = OpenAIBatchJoinOperator(
        task_id=f"join_{noun}",
        prepared=f"{place}/prepared",
        job=send.begun_job,
        output_uri=f"{place}/answers.jsonl",
        max_rejected_fraction=1,  # a sheet of the workbook has the problems
        trigger_rule=TriggerRule.ALL_DONE,
        **join_arguments(),
    )
    # Beside the publish of the group, not after it: there is a workbook whatever failed, and the run is red.
    begun >> prepare >> send
    send.shards >> join
    return join, send.report


with DAG(
    dag_id=DAG_ID,
    dag_display_name="Catalogue of CD covers",
    description="Photographs of CD covers: read, cleaned, looked up, judged, checked, as an Excel workbook.",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["openai", "batch", "example"],
    user_defined_filters={"path_safe": make_path_safe},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=DOC_MD,
    # What has no good answer is a line in the sheet of problems, and is sent again by the next run.
    params=make_form(OWN, max_failed_fraction=1.0),
) as dag:

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def list_photos(photos_uri: str, output_uri: str, params: Any = None, run_id: Any = None) -> str | None:
        from airflow_openai_batch.recipes.cds import cd_catalog

        restart = run_id if params["on_existing"] == "restart" else None
        with task_failures():
            prompt = load_prompt(READING, {}, Path(__file__).parent)
            return cd_catalog.list_photos(
                photos_uri, output_uri, prompt, only_failed=params["repair"], restart_of=restart
            )

    @task(trigger_rule=TriggerRule.NONE_FAILED)  # also where there was nothing new to read
    def clean_covers(output_uri: str) -> dict[str, Any]:
        from airflow_openai_batch.recipes.cds import cd_catalog

        with task_failures():
            return cd_catalog.clean_covers(output_uri)

    @task
    def find_candidates(output_uri: str, catalogue_conn_id: str, catalogue_uri: str) -> dict[str, Any]:
        from airflow_openai_batch.recipes.cds import cd_catalog

        with task_failures():
            return cd_catalog.search_catalogue(
                output_uri, catalogue_conn_id=catalogue_conn_id, catalogue_uri=catalogue_uri
            )

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def list_choices(output_uri: str, params: Any = None, run_id: Any = None) -> str | None:
        from airflow_openai_batch.recipes.cds import cd_catalog

        restart = run_id if params["on_existing"] == "restart" else None
        with task_failures():
            return cd_catalog.list_choices(output_uri, restart_of=restart)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def check(output_uri: str, year: str, min_confidence: str, min_match_score: str) -> dict[str, Any]:
        from airflow_openai_batch.recipes.cds import cd_catalog
        from airflow_openai_batch.recipes.cds.cd_checks import CheckLimits

        with task_failures():
            limits = CheckLimits(
                year=int(year), min_confidence=float(min_confidence), min_match_score=float(min_match_score)
            )
            return cd_catalog.check_catalogue(output_uri, limits)

    @task
    def write_workbook(output_uri: str) -> str:
        from airflow_openai_batch.recipes.cds import cd_catalog

        with task_failures():
            return cd_catalog.write_catalogue(output_uri)

    join_photos, photos_report = ask(
        "photos",
        "read_covers",
        READING,
        list_photos("{{ params.photos_uri }}", WORK),
        images_root="{{ params.photos_uri }}",
    )
    candidates = find_candidates(WORK, "{{ params.catalogue_conn_id or '' }}", "{{ params.catalogue_uri }}")
    choices = list_choices(WORK)
    join_choices, choices_report = ask("choices", "judge", JUDGING, choices)
    join_photos >> clean_covers(WORK) >> candidates >> choices
    checked = check(
        WORK,
        "{{ dag_run.run_after.year }}",
        "{{ params.min_confidence }}",
        "{{ params.min_match_score }}",
    )
    workbook = write_workbook(WORK)
    [candidates, join_choices] >> checked >> workbook

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def verdict(params: Any = None) -> None:
        if not params["sample_requests"]:
            check_joined("join_photos", "join_choices")

    [photos_report, choices_report, workbook] >> verdict()
