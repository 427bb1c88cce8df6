"""Frames of a video, one per second, captioned by two models, in real time and as batches, and compared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, TaskGroup, TriggerRule, get_current_context, task

from airflow_openai_batch.dag_params import (
    COMPARED_MODEL,
    DEFAULT_MODEL,
    find_output_root,
    make_form,
    prepare_arguments,
    sample_path,
)
from airflow_openai_batch.operators.own_tasks import check_joined
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.recipes.captions import captioning
from airflow_openai_batch.task_group import openai_batch_task_group

DAG_ID = "caption_video_frames"
SAMPLE = sample_path("video/four_scenes.mp4")
PROMPT = "frame_caption.yaml"
MODELS = {"model_1": DEFAULT_MODEL, "model_2": COMPARED_MODEL}
"""What the form begins with; ``None`` is a field that begins empty. Add a line for a third."""
BY_CONNECTION = "by connection"
VIDEO = "{{ ti.xcom_pull(task_ids='extract_frames') or '' }}"
"""The directory of this video, in whatever task it stands."""

DOC_MD = """
### Frames of a video -> captions, comparing models and ways of sending
| once | for each model, and each way that `mode` asks for | once |
| --- | --- | --- |
| extract_frames → choose → | prepare → caption (split → shard → publish) → join | → compare → judge |

* **extract_frames** decodes the video once and writes one picture per second (needs the extra `video`).
* **choose** takes the frames that were not asked about yet, for each model and way in a round of its own, and skips
  what has nothing to ask.
* **caption** sends one request per frame: with `mode` = realtime at once, as fast as `tier` allows; as batch at half
  the price; with both, twice, which costs one and a half times as much as real time alone, to see the difference.
* **compare** writes `report.md` (also in its log) and `captions.xlsx`: each frame with the captions beside each other;
  time, cost and tokens by model and way; how far the models' words agree. It does so with what there is: a frame
  without a caption says why in the column `problems`, and the run is red where more than `max_failed_fraction` of a
  model's frames have none. `repair` asks for these alone.

**Try it**: trigger it with the form as it is. It captions the eight frames of a drawn video four times.

**Run it again** with the same `output_uri`, which is what the form has by default: what is there is not paid for again,
and what another run added (another model, the other way) stands in the report, too. Each video has a directory of its
own there, and within it each model. A sample is not paid for twice: with `max_frames` = 20 and then 200, the second run
asks about 180.

**Clear any task at any time**: it goes on from where it is.

**Make it your own**
1. `video_uri`, `start_s`, `every_s`, `max_frames`: an hour has 3,600 frames; begin with `max_frames` = 20.
2. `include/prompts/frame_caption.yaml`: what is asked; a file of that name beside this one takes its place. `detail:
   low` there is the cheap way to look at a picture; with `high`, set `max_side` to 1024 or so. With a `response_schema`
   its property `caption` is compared, and each other one (the shot, who is there) is a column of the workbook.
   Captions of another prompt belong in another `output_uri`: the run is red that would mix them. `on_existing` =
   restart puts those of the first aside and asks anew.
3. `tier`: the usage tier of your account. In the connection's extra, as `{"tier": "2"}`, it holds for all DAGs, and
   sets the requests and tokens per minute as well.
4. A model of another server, say your own: its connection of type OpenAI as `model_2_conn_id` (named in the DAG or in
   `[openai_batch] allowed_conn_ids`), and `model_2_mode` = realtime where it has no batches. A third model is a line in
   `MODELS`. When you have decided: set `mode` and drop the second.
"""

OWN = {
    "video_uri": Param(
        default=SAMPLE,
        type="string",
        title="Video",
        description="URI or path of a file that FFmpeg can read: .mp4, .mkv, .webm, .mov ...",
    ),
    "output_uri": Param(
        default=f"{find_output_root()}/{DAG_ID}",
        type="string",
        title="Output",
        description="Directory of all videos. The same one again goes on with what is there; {run_id} stands for "
        "the id of this run.",
    ),
    "mode": Param(
        default="both",
        enum=["both", "realtime", "batch"],
        title="Batch or real time",
        description="realtime: at once, at full price. batch: at half price, within 24 hours. both: to compare "
        "them, paying for both.",
    ),
    "tier": Param(
        default=BY_CONNECTION,
        enum=[BY_CONNECTION, *captioning.TIERS],
        title="Tier",
        description="Usage tier of the account: how many real-time requests are in the air at once, and what the "
        "batch queue holds. by connection: what its extra says.",
    ),
    "start_s": Param(
        default=0,
        type="number",
        minimum=0,
        title="From second",
        description="Of the video.",
        section="Frames",
    ),
    "every_s": Param(
        default=1,
        type="number",
        minimum=0.04,
        title="A frame every",
        description="Seconds.",
        section="Frames",
    ),
    "max_frames": Param(
        default=None,
        type=["null", "integer"],
        minimum=1,
        title="Frames at most",
        description="From that second. Empty: all. A larger number later asks about the others alone.",
        section="Frames",
    ),
    "max_side": Param(
        default=512,
        type="integer",
        minimum=16,
        maximum=4096,
        title="Size",
        description="Pixels of the longer side.",
        section="Frames",
    ),
}

for slot, model in MODELS.items():
    title = slot.replace("_", " ").capitalize()
    OWN |= {
        slot: Param(
            default=model,
            type=["null", "string"],
            title=title,
            description="It must be able to see. Empty: none.",
        ),
        f"{slot}_conn_id": Param(
            default=None,
            type=["null", "string"],
            title=f"{title}: connection",
            description="Of type OpenAI, to the server that has it, for instance one of your own. Empty: conn_id.",
            section="Servers",
        ),
        f"{slot}_mode": Param(
            default=None,
            enum=[None, "both", "realtime", "batch"],
            type=["null", "string"],
            title=f"{title}: batch or real time",
            description="For a server that has no batches, say. Empty: mode.",
            section="Servers",
        ),
    }

with DAG(
    dag_id=DAG_ID,
    dag_display_name="Captions for video frames",
    description="One frame per second, captioned by two models in real time and as batches, compared.",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["openai", "batch", "example"],
    user_defined_filters=captioning.TIER_FILTERS,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    doc_md=DOC_MD,
    # A frame that is refused leaves a gap in the table, no more.
    params=make_form(OWN, max_failed_fraction=0.1),
) as dag:

    @task
    def extract_frames() -> str:
        return captioning.extract_frames(get_current_context())

    @task.branch
    def choose(video: str) -> list[str]:
        rounds = captioning.begin_rounds(get_current_context(), video, [*MODELS], PROMPT)
        return [f"{name}.prepare" for name in rounds]

    @task(trigger_rule=TriggerRule.ALL_DONE)  # with what there is
    def compare(video: str) -> dict[str, Any] | None:
        return captioning.compare_captions(video)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def judge() -> None:
        if not get_current_context()["params"]["sample_requests"]:
            check_joined(*(f"{slot}_{way}.join" for slot in MODELS for way in captioning.WAYS))

    chosen, compared, judged = choose(VIDEO), compare(VIDEO), judge()
    extract_frames() >> chosen
    # The table is there whatever failed; the run is red all the same.
    compared >> judged

    for slot in MODELS:
        for way in captioning.WAYS:
            place = f"{{{{ ti.xcom_pull(task_ids='choose', key='{slot}_{way}') or '' }}}}"
            limit = f"params.enqueued_token_limit or (params.{slot} | queue_limit(params.tier))"
            with TaskGroup(f"{slot}_{way}"):
                prepare = OpenAIBatchPrepareOperator(
                    task_id="prepare",
                    source=f"{place}/rows.jsonl",
                    prompt=PROMPT,
                    prompt_overrides={"model": f"{{{{ params.{slot} }}}}"},
                    output_uri=f"{place}/prepared",
                    images_root=f"{VIDEO}/frames",
                    **prepare_arguments(),
                )
                caption = openai_batch_task_group(
                    "caption",
                    input_uri=prepare.output,
                    output_uri=f"{place}/job",
                    from_params=True,
                    repair=False,  # a round of its own has what is asked again
                    conn_id=f"{{{{ params.{slot}_conn_id or params.conn_id }}}}",
                    send_mode=way,
                    realtime_concurrency="{{ params.realtime_concurrency or (params.tier | concurrency) }}",
                    enqueued_token_limit=f"{{{{ {limit} }}}}",
                )
                # A gap in the table, no more.
                join = caption.join_rows(prepare, f"{place}/answers.jsonl", max_rejected_fraction=1)
                chosen >> prepare
                [join, caption.report] >> compared
                [join, caption.report] >> judged
