"""What a DAG's own tasks need of this package: its errors as Airflow takes them, prompts, names of runs in paths."""

from __future__ import annotations

from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.prompt_files import PromptSpec, load_prompt
from airflow_openai_batch.operators.task.run_place import make_path_safe

__all__ = ["PromptSpec", "load_prompt", "make_path_safe", "task_failures"]
