"""Registers the plugin where the package lies in ``include/`` and is not installed.

An installed package registers itself through its entry point; a second registration would show everything
twice, so this file then does nothing. It must stay this small: Airflow executes every file below
``plugins/`` under its bare name.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

try:  # by name: to ask all that is installed for its entry points took a task 0.03 s
    _is_installed = bool(distribution("airflow-provider-openai-batch").entry_points)
except PackageNotFoundError:
    _is_installed = False

if not _is_installed:
    from airflow_openai_batch.plugin import OpenAIBatchPlugin  # noqa: F401 - Airflow looks it up here
