"""A task of one shard: which shard of which job it is about, who said so, and how it is named in the UI."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.access.givers import Giver, find_giver, find_giver_in
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import OpenAIBatchError
from airflow_openai_batch.operators.task.base import OpenAIBatchOperator
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.instance_label import label_shard
from airflow_openai_batch.operators.task.shard_ref import ShardRef, read_ref
from airflow_openai_batch.operators.task.source_access import make_source_resolver
from airflow_openai_batch.sending.shard_files import LandingRules, ShardFiles, open_shard

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
    from airflow_openai_batch.openai_api.client import BatchClient
    from airflow_openai_batch.storage.location import Resolver


class ShardOperator(OpenAIBatchOperator):
    """Base of all operators of one shard; a subclass assigns these in its ``__init__``."""

    shard: ShardRef | None
    conn_id: str
    waits_for: str
    """What it waits for now, for its name; "" where it does not wait."""
    linked_batch_id: str | None
    _giver: Giver | None
    _resolve_source: Resolver

    @property
    def label(self) -> str:
        """Names the mapped instance in the UI, with what it waits for."""
        if self.shard is None:
            return self.linked_batch_id or ""
        try:
            return label_shard(self.files.shard, self.waits_for)
        except OpenAIBatchError:  # the task has failed with it, and would with this instead
            return "a shard that cannot be opened"

    @functools.cached_property
    def files(self) -> ShardFiles:
        """The shard's files. For use after template rendering.

        :raises ConfigError: if the reference, the output or the connection cannot be used.
        """
        job, number = read_ref(self.shard)
        giver = self._read_giver()
        output = open_place(job, "output", giver)
        return open_shard(output, number, self._resolve_source, self.landing_rules())

    def check_givers(self, context: Context) -> None:
        """:raises ConfigError: if whoever named the connection may not use it."""
        opened, opened_for = vars(self).pop("files", None), self._read_giver()
        self._giver = find_giver(context, "shard")
        self._resolve_source = make_source_resolver(context)
        if opened is not None and opened_for is self._giver:  # for the task's name, and no more than it may
            self.files = replace(opened, resolve=self._resolve_source)
        with task_failures():
            check_conn_id(self.conn_id, find_giver(context, "conn_id"))

    def _read_giver(self) -> Giver:
        """Who named the shard; before the task runs, for its name in the UI, without the run's parameters."""
        if self._giver is not None:
            return self._giver
        return find_giver_in(self.dag, self.task_id, {}, "shard") if self._dag is not None else Giver.FORM

    def landing_rules(self) -> LandingRules:
        """How answers become rows; operators that land read their parameters here."""
        return LandingRules()

    @functools.cached_property
    def hook(self) -> OpenAIBatchHook:
        """What the connection says while the task is at it."""
        from airflow_openai_batch.hooks.openai_batch import (
            OpenAIBatchHook,  # a second of imports, see `DEFAULT_CONN_ID`
        )

        return OpenAIBatchHook(self.conn_id)

    def _connect(self) -> BatchClient:
        return self.hook.get_batch_client()

    def result(self) -> dict[str, Any]:
        return dict(self.shard or {})
