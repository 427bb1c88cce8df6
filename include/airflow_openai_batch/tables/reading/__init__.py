"""Rows to ask about, from files, query results or the objects below a prefix, as a stream of Arrow batches."""

from __future__ import annotations

from airflow_openai_batch.tables.reading.open_source import RowFiles, find_row_files, open_row_files
from airflow_openai_batch.tables.reading.row_table import RowBlock, RowTable

# With the modules that other folders may import from.
__all__ = [
    "RowBlock",
    "RowFiles",
    "RowTable",
    "column_types",
    "encodings",
    "find_row_files",
    "open_row_files",
    "open_source",
    "read_items",
    "read_objects",
    "read_query",
    "row_table",
    "spool",
]
