"""Registers the plugin where the package lies in ``include/`` and is not installed.

An installed package registers itself through its entry point; a second registration would show everything
twice, so this file then does nothing. It must stay this small: Airflow executes every file below
``plugins/`` under its bare name.
"""

from __future__ import annotations

from airflow_openai_batch.installed import is_installed

if not is_installed():
    from airflow_openai_batch.plugin import OpenAIBatchPlugin  # noqa: F401 - Airflow looks it up here
