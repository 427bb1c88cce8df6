"""Prompt specs: what is asked about each row of a table, and how a row becomes a request body."""

from __future__ import annotations

from airflow_openai_batch.tables.prompts.spec import ImageSpec, PromptSpec, read_prompt

# With the modules that other folders may import from.
__all__ = ["ImageSpec", "PromptSpec", "answer_columns", "read_prompt", "template_names"]
