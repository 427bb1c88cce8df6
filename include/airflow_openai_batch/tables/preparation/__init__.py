"""From a table and a prompt to request files, with a map from every row to the request that answers it."""

from __future__ import annotations

from airflow_openai_batch.tables.preparation.manifest import Manifest, read_manifest
from airflow_openai_batch.tables.preparation.prepare import Preparation, Prepared, prepare_requests
from airflow_openai_batch.tables.preparation.preview import preview_requests

# With the modules that other folders may import from.
__all__ = [
    "Manifest",
    "Preparation",
    "Prepared",
    "manifest",
    "pictures",
    "prepare",
    "prepare_requests",
    "preview_requests",
    "read_manifest",
    "renderer",
    "source_note",
]
