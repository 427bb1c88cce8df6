"""Prompt specs: what is asked about each row of a table, and how a row becomes a request body."""

from __future__ import annotations

from airflow_openai_batch.tables.prompts.spec import MAX_PROMPT_BYTES, ImageSpec, PromptSpec, read_prompt

# With the modules that other folders may import from.
__all__ = ["MAX_PROMPT_BYTES", "ImageSpec", "PromptSpec", "answer_columns", "read_prompt", "template_names"]
