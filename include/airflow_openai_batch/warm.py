"""What tasks and DAG files import, for a process that forks one for each: what it has, its forks need not import.

Of the 1.7 seconds of a core that a short task took on Celery with S3, more than one went to imports. How to use it:
docs/many-machines.md, "Workers that fork". ``python -m airflow_openai_batch.warm COMPONENT [OPTION ...]`` is
``airflow COMPONENT [OPTION ...]`` of a process that is warm.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import sys

from airflow_openai_batch.installed import is_installed

IN_DAG_FILES = (
    "airflow.sdk.definitions.decorators",
    "airflow.sdk.definitions.timetables.interval",
    "airflow.sdk.definitions.timetables.trigger",
    "airflow_openai_batch.dag_params",
    "airflow_openai_batch.installed",
    "airflow_openai_batch.operators.create",
    "airflow_openai_batch.operators.download",
    "airflow_openai_batch.operators.report",
    "airflow_openai_batch.operators.shard",
    "airflow_openai_batch.operators.split",
    "airflow_openai_batch.plugin",
    "airflow_openai_batch.sensors.batch",
)
"""What the main DAG imports, and its parsing: light, since a DAG processor has no use for more."""
IN_TASKS = (
    *IN_DAG_FILES,
    "airflow.sdk.definitions.asset.metadata",
    "airflow_openai_batch.operators.prepare",
    "airflow_openai_batch.operators.whole_job",
    "airflow_openai_batch.hooks.openai_batch",
    "airflow_openai_batch.requests.json_schema",
    "airflow_openai_batch.results.landing",
    "airflow_openai_batch.sending.realtime.send",
    "airflow_openai_batch.task_group",
    "airflow_openai_batch.triggers.batch",
    "airflow_openai_batch.triggers.room",
    "jinja2.ext",
    "numpy.ma",  # at the first look for what is different
    "openai.resources.batches",
    "openai.resources.chat.completions",
    "openai.resources.files",
    "upath.implementations.local",
)

_kept: list[object] = []


def warm_up(*protocols: str) -> None:
    """Import and read what tasks need.

    Starts no thread and opens no connection, since neither would be whole in a fork.

    :param protocols: storages whose file systems are to be imported, as they stand in URIs: ``s3``, ``gs``.
    """
    _import(IN_TASKS)
    import fsspec
    import msgspec
    import openai
    from airflow.sdk.io.fs import has_fs
    from openai.pagination import SyncCursorPage
    from openai.types import Batch

    from airflow_openai_batch.hooks.certificates import read_certificates
    from airflow_openai_batch.job.ledger import Event
    from airflow_openai_batch.job.plan import Plan, PlanHead
    from airflow_openai_batch.openai_api.models import list_priced_models

    has_fs("file")  # reads what all providers say of themselves
    http = openai.DefaultHttpxClient(verify=read_certificates())
    openai.OpenAI(api_key="none", http_client=http).close()  # imports what the first client needs
    # pydantic makes the class of a list of batches at the first one, and forgets it unless somebody holds it.
    _kept.append(SyncCursorPage[Batch])
    platform.platform()  # which the client tells its server: asks another program
    list_priced_models()  # reads the prices
    for kind in (Plan, PlanHead, Event):
        msgspec.json.Decoder(kind)  # looks at the fields, once a process
    for protocol in protocols:
        fsspec.get_filesystem_class(protocol)


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        # Modules of others have other places in other releases.
        with contextlib.suppress(*() if module.startswith(f"{__package__}.") else (ModuleNotFoundError,)):
            importlib.import_module(module)
    is_installed()  # which the plugin's shim asks in each process


def main() -> None:
    """Become a component of Airflow. The DAG processor needs less than what runs tasks."""
    from airflow.__main__ import main as run_airflow

    if "dag-processor" in sys.argv:
        _import(IN_DAG_FILES)
    else:
        warm_up()
    run_airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
