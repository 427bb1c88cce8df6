"""What the tasks of ``caption_video_frames`` do before and after captions are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.captions import caption_report, frame_rounds, video_frames
from airflow_openai_batch.recipes.captions.account_tier import TIERS, find_concurrency, find_queue_limit
from airflow_openai_batch.recipes.captions.frame_rounds import WAYS
from airflow_openai_batch.recipes.dag_prompt import Prompt, read_dag_prompt
from airflow_openai_batch.recipes.job_folder import find_restart, open_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_openai_batch.tables.prompts import PromptSpec

__all__ = [
    "TIERS",
    "TIER_FILTERS",
    "WAYS",
    "begin_rounds",
    "compare_captions",
    "extract_frames",
]

TIER_FILTERS = {"concurrency": find_concurrency, "queue_limit": find_queue_limit}
"""For templates of a DAG: what a usage tier allows, empty where the connection says it."""


@task_failures()
def extract_frames(context: Context) -> str:
    """Write the frames that the form asks for; the directory of the video, see `video_frames.extract_frames`.

    It reads the form: ``video_uri``, ``output_uri``, ``start_s``, ``every_s``, ``max_frames``, ``max_side``.
    """
    params = context["params"]
    sampling = video_frames.Sampling(
        every_s=params["every_s"],
        most=params["max_frames"],
        max_side=params["max_side"],
        start_s=params["start_s"],
    )
    return video_frames.extract_frames(params["video_uri"], open_folder(context), sampling)


@task_failures()
def begin_rounds(
    context: Context, video: str, slots: Sequence[str], prompt: Prompt | None = None
) -> list[str]:
    """Begin a round for each model and way that has frames to ask about, and push its place under its name; the names.

    It reads the form: ``mode``, ``conn_id``, ``max_frames``, ``repair``, ``on_existing``, and of each slot the model,
    ``<slot>_conn_id`` and ``<slot>_mode``.

    :param video: what `extract_frames` returned.
    :param slots: names of the models in the form.
    :param prompt: that asks. Without it, it is not looked whether it is the one of before.
    """
    params = context["params"]

    def read_prompt_of(model: str) -> PromptSpec:
        return read_dag_prompt(context, prompt or {}, {"model": model})

    rounds = frame_rounds.open_rounds(
        video,
        frame_rounds.read_models(params, slots),
        most=params["max_frames"],
        repair=params["repair"],
        restart_of=find_restart(context),
        read_prompt_of=None if prompt is None else read_prompt_of,
    )
    for name, place in rounds.items():
        context["ti"].xcom_push(key=name, value=place)
    return list(rounds)


@task_failures()
def compare_captions(video: str) -> dict[str, Any] | None:
    """Write the report and the workbook, see `caption_report.compare_captions`; None where there is no video."""
    return caption_report.compare_captions(video) if video else None
