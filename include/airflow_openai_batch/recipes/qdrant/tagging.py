"""What the tasks of ``tag_transcripts`` do: find what wants tags, look at a sample, write tags into the points, judge.

Each reads from the form: ``output_uri``, ``qdrant_conn_id``, ``collection``, and the names of the payload's keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.recipes.dag_prompt import Prompt, read_dag_prompt
from airflow_openai_batch.recipes.job_folder import find_restart, open_folder
from airflow_openai_batch.recipes.qdrant.qdrant_points import find_store
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
from airflow_openai_batch.recipes.qdrant.tags import TagRules, clean_tag
from airflow_openai_batch.recipes.qdrant.transcripts import ROWS, read_transcripts, seed_transcripts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_openai_batch.tables.prompts import PromptSpec

__all__ = [
    "JOB",
    "PREPARED",
    "TABLE",
    "TagRules",
    "clean_tag",
    "find_untagged",
    "judge_sample",
    "judge_tags",
    "report_tags",
    "seed_samples",
    "write_answers",
]


@task_failures()
def seed_samples(context: Context, samples: str) -> int:
    """Put the samples into a collection in files on this machine, once; how many.

    :param samples: folder of the ``.jsonl`` files.
    """
    return 0 if context["params"]["qdrant_conn_id"] else seed_transcripts(find_store(context), Path(samples))


@task_failures()
def find_untagged(context: Context, prompt: Prompt, rules: TagRules) -> int:
    """Write what is to be asked about into a table, whose URI is pushed as ``rows``; how many.

    It reads the form: ``filters``, ``retag``, ``retry_failed``, ``overwrite``, ``on_existing``.

    :param prompt: that of the DAG's preparation.
    """
    params = context["params"]
    folder, spec = open_folder(context), _read_prompt(context, prompt)
    rules.read_schema(spec.response_schema)
    found = read_transcripts(
        find_store(context),
        folder,
        spec,
        filters=params["filters"] or {},
        fields=_read_fields(params),
        choice=TagChoice(
            retag=params["retag"], overwrite=params["overwrite"], retry_failed=params["retry_failed"]
        ),
        restart_of=find_restart(context),
    )
    context["ti"].xcom_push("rows", folder.child(ROWS).uri)
    return found.read


@task_failures()
def judge_sample(context: Context, prompt: Prompt, rules: TagRules) -> bool:
    """Fail where half of the sample or more cannot be used, see `check_sample`; whether the others are asked about."""
    check_sample(
        open_folder(context),
        find_store(context),
        fields=_read_fields(context["params"]),
        rules=_fit(rules, context, prompt),
    )
    return not context["params"]["only_sample"]


@task_failures()
def write_answers(context: Context, prompt: Prompt, rules: TagRules) -> dict[str, Any]:
    """Write tags and summaries into the points; see `write_tags`."""
    params = context["params"]
    done = write_tags(
        open_folder(context),
        find_store(context),
        fields=_read_fields(params),
        rules=_fit(rules, context, prompt),
        overwrite=params["overwrite"],
    )
    return {
        "read": done.read,
        "written": done.written,
        "skipped": done.skipped,
        "cost_usd": done.cost_usd,
    }


@task_failures()
def judge_tags(context: Context) -> None:
    """Fail where more than ``max_failed_fraction`` of the points got no tags; see `check_skipped`."""
    check_skipped(open_folder(context), context["params"]["max_failed_fraction"])


@task_failures()
def report_tags(context: Context, prompt: Prompt) -> None:
    """Write what a person is told of the run; see `write_summary`."""
    spec = _read_prompt(context, prompt)
    write_summary(open_folder(context), store=find_store(context), prompt=spec)


def _read_prompt(context: Context, prompt: Prompt) -> PromptSpec:
    params = context["params"]
    return read_dag_prompt(context, prompt, {"model": params["model"], "system": params["instructions"]})


def _fit(rules: TagRules, context: Context, prompt: Prompt) -> TagRules:
    return rules.read_schema(_read_prompt(context, prompt).response_schema)


def _read_fields(params: Mapping[str, Any]) -> Fields:
    return Fields(
        text=params["text_field"],
        title=params["title_field"] or "",
        tags=params["tags_field"],
        summary=params["summary_field"],
        tagging=params["tagging_field"],
    )
