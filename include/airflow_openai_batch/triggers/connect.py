"""From a connection to a client, without holding up the triggerer's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_openai_batch.errors import OpenAIBatchError, TransientError
from airflow_openai_batch.triggers.watcher import BatchWatcher, get_watcher

if TYPE_CHECKING:
    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
    from airflow_openai_batch.triggers.batch_list import BatchSource


def find_watcher(conn_id: str) -> BatchWatcher:
    """The watcher of the running loop for this connection."""
    return get_watcher(conn_id, functools.partial(connect, conn_id))


async def connect(conn_id: str) -> BatchSource:
    """A client for the connection as it is now; whoever asks for it closes it.

    :raises ConfigError: if the connection does not exist or its settings are refused by the client.
    :raises TransientError: if Airflow cannot be asked for the connection.
    """
    hook = await asyncio.to_thread(_make_hook, conn_id)
    try:
        return await hook.aget_batch_client()
    except OpenAIBatchError:
        raise
    except (AirflowException, AirflowRuntimeError, OSError) as error:
        kind = type(error).__name__  # the text may quote what the secrets backend said
        raise TransientError(f"connection {conn_id!r}: Airflow could not be asked for it ({kind}).") from None


def _make_hook(conn_id: str) -> OpenAIBatchHook:
    """In a thread: importing the client takes a second, and parts of it are imported at their first use only."""
    for name in ("openai.resources.batches", "anyio._backends._asyncio"):
        with contextlib.suppress(ImportError):  # only sooner than otherwise
            importlib.import_module(name)
    hook = importlib.import_module("airflow_openai_batch.hooks.openai_batch")
    made: OpenAIBatchHook = hook.OpenAIBatchHook(conn_id)
    return made
