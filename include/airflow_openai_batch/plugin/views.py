"""The page "OpenAI batches" in Airflow's own UI: in the menu, and as a tab on DAGs, runs and task instances.

All places show one React component, which ``static/page.js`` hands to Airflow's UI (``react_apps``). It is written
against ``globalThis.React`` alone: that is all that Airflow 3.1 shares with plugins (3.3 adds ChakraUI and
ReactRouterDOM, which is used for links where it is there), and it needs no build step. Light, dark and fonts come
with Airflow's CSS variables.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf

NAME = "OpenAI batches"
PREFIX = "/openai-batch"
"""Where the plugin's FastAPI app lies below Airflow's base path."""


def make_react_apps(base_url: str) -> list[dict[str, Any]]:
    """What Airflow's UI loads the page by.

    :param base_url: ``[api] base_url``. Airflow 3.1 imports ``bundle_url`` as it stands, so it has to begin with
        Airflow's base path; 3.3 resolves it against that path, which changes nothing then.
    """
    static = f"{urlsplit(base_url).path.rstrip('/')}{PREFIX}/static"
    shared = {
        "name": NAME,
        "bundle_url": f"{static}/page.js",
        "icon": f"{static}/icon.svg",
        "icon_dark_mode": f"{static}/icon-dark.svg",
    }
    # A route may stand in one view only, so each place has its own.
    return [
        {**shared, "destination": "nav", "category": "browse", "url_route": "openai-batches"},
        {**shared, "destination": "dag", "url_route": "openai-batches-of-dag"},
        {**shared, "destination": "dag_run", "url_route": "openai-batches-of-run"},
        {**shared, "destination": "task_instance", "url_route": "openai-batches-of-task"},
    ]


REACT_APPS = make_react_apps(conf.get("api", "base_url", fallback="") or "")
