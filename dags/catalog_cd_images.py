"""Photographs of CD covers become a catalogue: two model steps with plain code before, between and after them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param, TriggerRule, get_current_context, task

from airflow_openai_batch.dag_params import (
    DEFAULT_MODEL,
    find_output_root,
    make_form,
    prepare_arguments,
    sample_path,
)
from airflow_openai_batch.operators.own_tasks import check_joined
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.recipes.cds import cd_catalog
from airflow_openai_batch.task_group import openai_batch_task_group

DAG_ID = "catalog_cd_images"
SAMPLES = sample_path("cd_covers")
READING = "cd_cover.yaml"
JUDGING = "cd_choice.yaml"
FIRST_YEAR = 1982
"""The first CD was sold in October 1982; what is older is a problem."""
CATALOGUE_COLUMNS = {
    "id": "id",
    "title": "title",
    "artist": "artist",
    "year": "year",
    "label": "label",
    "catalogue_number": "catalogue_number",
}
"""Of a catalogue that is a file: what each is called there."""

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
`on_existing` = restart asks about everything anew, and pays again. **First ten photographs first**: with
`sample_requests` = 10 the workbook has these, and the report of *read_covers* says what all would cost; the same output
without it goes on with the others.

**Run one step alone**: clear it, without what comes after it. Each step reads files and replaces its own as a whole, so
it may run at any time and in any order; clear `clean_covers` with everything after it when you changed a rule, `check`
with `write_workbook` when you changed a limit. No step but the two of the model costs anything. Clearing `list_photos`
when all is done sends what failed once more.

**Make it your own**
1. `photos_uri`: where your pictures lie (`s3://conn@bucket/covers/`): .png, .jpg, .webp, .gif, and converted .tif,
   .avif, .bmp, .jp2 and, with the extra `heic`, .heic. They are sent upright. One that is rejected is tried again when
   the prompt's `images` change or the extra is installed; one that is gone leaves the results, with a note.
2. `catalogue_uri`: your catalogue as a table, with its columns in `CATALOGUE_COLUMNS`. Or `catalogue_conn_id`: a
   connection of type HTTP to a catalogue that answers with JSON; its extra says how to ask. For
   MusicBrainz, say, with host `https://musicbrainz.org`:

   ```
   {"path": "/ws/2/release", "items": "releases", "requests_per_second": 1, "headers": {"User-Agent": "me@example.com"},
    "query": {"query": "release:({title}) AND artist:({artist})", "fmt": "json", "limit": "10"},
    "fields": {"artist": "artist-credit.0.name", "year": "date", "label": "label-info.0.label.name",
               "catalogue_number": "label-info.0.catalog-number"}}
   ```

   Where it wants tokens, as OCLC does: id and secret of the client as login and password, and in the extra
   `"token_url": "https://oauth.oclc.org/token", "scope": "..."`.
3. `include/prompts/cd_cover.yaml`, `cd_choice.yaml`: what is asked; files of these names beside this one take their
   place. A property that you add to the schema is a column of the workbook. Photographs of a phone are large;
   `max_side: 1024` there makes them smaller and cheaper. Without it no pixel is sent that the model does not look at,
   where that is published. Answers to another prompt, or of another model, belong in another `output_uri`: the run is
   red that would mix them. `on_existing` = restart asks about everything anew, and `repair` takes another prompt or
   model to what has no good answer. `parameters` and the limits of `images` may change at any time.
4. `FIRST_YEAR`, and `clean_covers(get_current_context(), clean=...)` with a function of yours, which may call
   `cd_covers.clean_cover` first.
"""

OWN = {
    "photos_uri": Param(
        default=f"{SAMPLES}/photos",
        type="string",
        title="Photographs",
        description="The directory or prefix that they lie below.",
    ),
    "sample_requests": Param(
        default=None,
        type=["null", "integer"],
        minimum=1,
        title="Sample",
        description="So many photographs first, say 10, to look at the workbook and at what all would cost. Empty: "
        "all; the same output then goes on with the others.",
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
        description="A .csv, .jsonl, .parquet or .xlsx with id, title, artist, year, label, catalogue_number.",
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


def ask(noun: str, group_id: str, prompt: str, **how: Any) -> tuple[Any, BaseOperator, BaseOperator]:
    """One model step, within the round that ``list_<noun>`` began: prepare, send, join; all skipped without one."""
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
    # A sheet of the workbook has the problems: there is one whatever failed, and the run is red.
    join = send.join_rows(prepare, f"{place}/answers.jsonl", task_id=f"join_{noun}", max_rejected_fraction=1)
    return prepare, join, send.report


with DAG(
    dag_id=DAG_ID,
    dag_display_name="Catalogue of CD covers",
    description="Photographs of CD covers: read, cleaned, looked up, judged, checked, as an Excel workbook.",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["openai", "batch", "example"],
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=DOC_MD,
    # What has no good answer is a line in the sheet of problems, and is sent again by the next run.
    params=make_form(OWN, max_failed_fraction=1.0),
) as dag:

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def list_photos() -> str | None:
        return cd_catalog.list_photos(get_current_context(), READING)

    @task(trigger_rule=TriggerRule.NONE_FAILED)  # also where there was nothing new to read
    def clean_covers() -> dict[str, Any]:
        return cd_catalog.clean_covers(get_current_context())

    @task
    def find_candidates() -> dict[str, Any]:
        return cd_catalog.search_catalogue(get_current_context(), CATALOGUE_COLUMNS)

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def list_choices() -> str | None:
        return cd_catalog.list_choices(get_current_context(), JUDGING)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def check() -> dict[str, Any]:
        return cd_catalog.check_catalogue(get_current_context(), FIRST_YEAR)

    @task
    def write_workbook() -> str:
        return cd_catalog.write_catalogue(get_current_context())

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def verdict() -> None:
        if not get_current_context()["params"]["sample_requests"]:
            check_joined("join_photos", "join_choices")

    reading, covers, photos_report = ask(
        "photos", "read_covers", READING, images_root="{{ params.photos_uri }}"
    )
    judging, choices, choices_report = ask("choices", "judge", JUDGING)
    candidates, workbook = find_candidates(), write_workbook()

    list_photos() >> reading
    covers >> clean_covers() >> candidates >> list_choices() >> judging
    [candidates, choices] >> check() >> workbook
    [photos_report, choices_report, workbook] >> verdict()
