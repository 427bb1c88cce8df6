"""The prompt of a DAG, for its tasks before and after the one that prepares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.task.prompt_files import find_dag_folder, load_prompt

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.tables.prompts import PromptSpec

Prompt = str | Path | Mapping[str, Any]
"""Where it is, or its fields, as the operator takes it."""


def read_dag_prompt(
    context: Context, prompt: Prompt, overrides: Mapping[str, Any] | None = None
) -> PromptSpec:
    """The prompt as the preparation reads it. What that has as its prompt is the author's, who may name any place; of
    all else it cannot be said that whoever triggered the run did not name it.

    :param overrides: fields that take the place of those in it, as the preparation gets them.
    """
    prepares = [task for task in context["dag"].tasks if isinstance(task, OpenAIBatchPrepareOperator)]
    giver = Giver.CODE if any(task.prompt == prompt for task in prepares) else Giver.FORM
    return load_prompt(prompt, overrides or {}, find_dag_folder(context), giver)
