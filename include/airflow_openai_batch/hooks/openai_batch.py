"""From an Airflow connection to a client; built on the provider's hook and its connection type."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
from typing import Any

import openai
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.openai.hooks.openai import OpenAIHook

from airflow_openai_batch.access.settings import find_max_result_bytes
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.hooks.certificates import read_certificates
from airflow_openai_batch.openai_api.account_limits import AccountLimits, read_account_limits
from airflow_openai_batch.openai_api.answer_sizes import MOST_BYTES, MOST_WATCHED_BYTES, bound_answers
from airflow_openai_batch.openai_api.async_client import AsyncBatchClient
from airflow_openai_batch.openai_api.client import BatchClient
from airflow_openai_batch.openai_api.client_arguments import check_client_arguments, check_made_arguments
from airflow_openai_batch.openai_api.client_errors import translated
from airflow_openai_batch.openai_api.connection_settings import (
    check_client_settings,
    check_conn_type,
    check_host,
    check_key,
    is_openai_host,
)
from airflow_openai_batch.openai_api.model_ends import ModelEnds, read_own_ends
from airflow_openai_batch.openai_api.own_prices import OwnPrices, read_own_prices
from airflow_openai_batch.openai_api.redirects import guard_redirects
from airflow_openai_batch.openai_api.servers.choice import DEFAULT_SERVER, find_by_host, read_server
from airflow_openai_batch.openai_api.servers.credentials import EntraTokens, set_up_server
from airflow_openai_batch.server_words import clean_words, remember_connection, remember_secret

log = logging.getLogger(__name__)

_QUIETED = ("httpx", "httpx2", "azure.core.pipeline.policies.http_logging_policy")
"""HTTP libraries write a line for every request: at each poll one, in the log of a waiting task."""


class OpenAIBatchHook(OpenAIHook):
    """Clients for the Batch API from a connection of type ``openai``, and of no other.

    Password: the API key. Host: another ``base_url``, for compatible servers; which one that is, ``server`` in the
    extra says (see `openai_api.servers`). Where the connection ``openai_default`` does not exist and
    ``OPENAI_API_KEY`` is set, that key is used.

    ``auth_type`` and ``openai_client_kwargs`` of the extra are the provider's, and hold for tasks, triggers, the page
    and real time. Of them ``max_retries`` is without effect: an upload or a batch is never sent twice, and each path
    has patience of its own. ``timeout`` is for each call, but for uploads and the creation of batches; a trigger
    waits at most 60 s for an answer.
    """

    def __init__(self, conn_id: str = OpenAIHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(conn_id=conn_id, **kwargs)
        self._server = DEFAULT_SERVER
        """Of the client that was made last."""
        self._key_header: str | None = None

    def get_batch_client(self) -> BatchClient:
        """:raises ConfigError: if the connection does not exist or its settings are refused by the client."""
        client = self.get_conn()
        return BatchClient(
            client, conn_id=self.conn_id, server=self._server, max_result_bytes=find_max_result_bytes()
        )

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """:raises AirflowNotFoundException: if there is none.
        :raises ConfigError: if none is named, or it is of another type."""
        if not conn_id or not str(conn_id).strip():
            raise ConfigError(
                f"conn_id={conn_id!r}: name a connection of type OpenAI, or leave it out for "
                f"{OpenAIHook.default_conn_name}."
            )
        try:
            conn = super().get_connection(conn_id)
        except ImportError as error:  # what Airflow 3.1 says of it outside tasks and triggers
            if error.name != "airflow.sdk.execution_time.task_runner":
                raise
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined") from None
        check_conn_type(conn_id, conn.conn_type)
        return conn

    def _client_kwargs(self, conn: Any, extras: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a synchronous client."""
        settings = self._read_settings(conn, extras)
        settings["http_client"] = openai.DefaultHttpxClient(verify=read_certificates())
        credential = settings.get("api_key")
        return {**settings, "api_key": credential.get} if isinstance(credential, EntraTokens) else settings

    def _async_client_kwargs(self, conn: Any, extras: dict[str, Any]) -> dict[str, Any]:
        settings = self._read_settings(conn, extras)
        settings["http_client"] = openai.DefaultAsyncHttpxClient(verify=read_certificates())
        credential = settings.get("api_key")
        return {**settings, "api_key": credential.aget} if isinstance(credential, EntraTokens) else settings

    def _read_settings(self, conn: Any, extras: dict[str, Any]) -> dict[str, Any]:
        """Here every way to a client comes by, synchronous or not."""
        check_conn_type(self.conn_id, conn.conn_type)
        remember_connection(conn.password, extras)
        check_client_arguments(self.conn_id, extras, inspect.signature(openai.OpenAI.__init__).parameters)
        try:
            settings: dict[str, Any] = super()._client_kwargs(conn, extras)
        except ImportError as error:
            raise ConfigError(
                f"connection {self.conn_id!r}: 'token_provider' in its extra cannot be imported "
                f"({clean_words(str(error))}). Name a function, as package.module.function, that workers, triggerers "
                "and API servers can import."
            ) from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"connection {self.conn_id!r}: {clean_words(str(error))}") from None
        where = f"connection {self.conn_id!r}"
        self._server = read_server(extras, settings.get("base_url"), where)
        settings = set_up_server(self._server, settings, extras, where)
        self._key_header = self._server.key_header if isinstance(settings.get("api_key"), str) else None
        check_client_settings(self.conn_id, settings, extras)
        check_made_arguments(self.conn_id, settings)
        if settings.get("base_url") is None:  # the client takes None for an address beside `data_residency`
            settings.pop("base_url", None)
        return settings

    async def aget_batch_client(self) -> AsyncBatchClient:
        """The asynchronous client; whoever asks for it closes it.

        :raises ConfigError: as `get_batch_client`.
        """
        client = await self.aget_conn()
        return AsyncBatchClient(client, server=self._server)

    def get_limits(self) -> AccountLimits:
        """What the connection's extra says of the account: ``tier`` ("free", 1 to 5), or numbers that win over it:
        ``enqueued_token_limit`` and ``enqueued_request_limit`` (one number, or one by model), ``requests_per_minute``,
        ``tokens_per_minute``, ``realtime_concurrency``, ``max_retries`` (of one real-time request, 3); and
        ``monthly_budget_usd``, see `costs.monthly_budget`.

        :raises ConfigError: for a value that is no limit.
        """
        return read_account_limits(self._read_extra(), f"connection {self.conn_id!r}")

    def get_own_prices(self) -> OwnPrices:
        """``prices`` and ``deployments`` of the connection's extra, see `openai_api.own_prices`.

        :raises ConfigError: for what is no price, or no deployment.
        """
        where, (extra, host) = f"connection {self.conn_id!r}", self._connection
        server = read_server(extra, host, where)
        return read_own_prices(extra, where, has_deployments=server.has_deployments)

    def get_model_ends(self) -> ModelEnds:
        """When models end where this connection leads to, and ``model_ends`` of its extra.

        :raises ConfigError: for what is no date, or a host that is none.
        """
        own = read_own_ends(self._read_extra(), f"connection {self.conn_id!r}")
        return ModelEnds(is_openai=is_openai_host(self._find_host()), own=own)

    def _find_host(self) -> str | None:
        try:
            conn = self.get_connection(self.conn_id)
        except AirflowNotFoundException:
            host = None
        else:
            settings = self._read_settings(conn, conn.extra_dejson)
            if settings.get("data_residency"):
                return None
            host = settings.get("base_url")
        return str(host) if host else os.environ.get("OPENAI_BASE_URL")

    def _read_extra(self) -> dict[str, Any]:
        """Empty where the connection does not exist."""
        return self._connection[0]

    @functools.cached_property
    def _connection(self) -> tuple[dict[str, Any], str | None]:
        """Its extra and its host, as they are written there; read once a hook, since a task asks for much of it."""
        try:
            conn = self.get_connection(self.conn_id)
        except AirflowNotFoundException:
            return {}, os.environ.get("OPENAI_BASE_URL")
        extra: dict[str, Any] = conn.extra_dejson
        remember_connection(conn.password, extra)
        given = extra.get("openai_client_kwargs")
        host = given.get("base_url") if isinstance(given, dict) else None
        return extra, str(host or conn.host or "") or None

    @staticmethod
    def _quiet_http() -> None:
        """Warnings only, unless somebody chose a level for these loggers."""
        for name in _QUIETED:
            if (logger := logging.getLogger(name)).level == logging.NOTSET:
                logger.setLevel(logging.WARNING)

    def get_conn(self) -> openai.OpenAI:
        self._quiet_http()
        with translated(f"connection {self.conn_id!r}"):
            try:
                client = super().get_conn()
            except AirflowNotFoundException:
                self._check_environment_key()
                client = openai.OpenAI()
            except (TypeError, ValueError) as error:
                raise self._bad_settings(error) from None
        guard_redirects(client, key_header=self._key_header)
        bound_answers(client, MOST_BYTES)
        return client

    def get_realtime_client(self) -> openai.AsyncOpenAI:
        """The asynchronous client, for synchronous code in a worker that runs a loop of its own with it. It does not
        retry by itself: `realtime` has the patience.

        :raises ConfigError: as `get_batch_client`.
        """
        self._quiet_http()
        with translated(f"connection {self.conn_id!r}"):
            try:
                conn = self.get_connection(self.conn_id)
                client = openai.AsyncOpenAI(**self._async_client_kwargs(conn, conn.extra_dejson))
            except AirflowNotFoundException:
                self._check_environment_key()
                client = openai.AsyncOpenAI()
            except (TypeError, ValueError) as error:
                raise self._bad_settings(error) from None
        guard_redirects(client, key_header=self._key_header)
        bound_answers(client, MOST_BYTES)
        return client.with_options(max_retries=0)

    async def aget_conn(self) -> openai.AsyncOpenAI:
        self._quiet_http()
        with translated(f"connection {self.conn_id!r}"):
            try:
                client = await self._make_async_client()
            except AirflowNotFoundException:
                self._check_environment_key()
                client = await asyncio.to_thread(openai.AsyncOpenAI)
            except (TypeError, ValueError) as error:
                raise self._bad_settings(error) from None
        guard_redirects(client, key_header=self._key_header)
        bound_answers(client, MOST_WATCHED_BYTES)
        return client

    async def _make_async_client(self) -> openai.AsyncOpenAI:
        """What the provider's ``aget_conn`` does, with the client made in a thread: it reads certificates for 50 ms
        and more, and may import a ``token_provider``; a triggerer could do nothing else meanwhile."""
        connection = await get_async_connection(self.conn_id, hook=self)
        extra = await get_async_extra_dejson(connection)
        return await asyncio.to_thread(
            lambda: openai.AsyncOpenAI(**self._async_client_kwargs(connection, extra))
        )

    def _check_environment_key(self) -> None:
        if self.conn_id == self.default_conn_name and (key := os.environ.get("OPENAI_API_KEY")):
            remember_secret(key)
            check_key(key, "OPENAI_API_KEY in the environment")
            if host := os.environ.get("OPENAI_BASE_URL"):
                check_host(host, "OPENAI_BASE_URL in the environment")
            self._server = find_by_host(host)
            self._key_header = self._server.key_header
            log.info("Connection %r does not exist; using OPENAI_API_KEY from the environment.", self.conn_id)
            return
        raise ConfigError(
            f"connection {self.conn_id!r} does not exist. Create it with type OpenAI and the API key as password, "
            f"or set AIRFLOW_CONN_{self.conn_id.upper()}"
            + (
                " or OPENAI_API_KEY in the workers' and triggerers' environment."
                if self.conn_id == self.default_conn_name
                else "."
            )
        )

    def _bad_settings(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"connection {self.conn_id!r}: the client refuses openai_client_kwargs of its extra "
            f"({clean_words(str(error))})."
        )
