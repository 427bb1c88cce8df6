"""The operators for one shard; each says only how far it goes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_openai_batch.job.shard_state import Goal, is_reached
from airflow_openai_batch.operators.task.caller import make_caller
from airflow_openai_batch.operators.task.handover import (
    MayBeginInTriggerer,
    creates_for_next,
    may_end_in_triggerer,
)
from airflow_openai_batch.operators.task.monthly_budget import find_monthly_budget
from airflow_openai_batch.operators.task.parameters import read_flag, read_int, read_list
from airflow_openai_batch.operators.task.sending import read_policy
from airflow_openai_batch.operators.task.shard_step import ShardStepOperator
from airflow_openai_batch.operators.task.source_access import find_source_giver
from airflow_openai_batch.results.outcome import OutcomeRules
from airflow_openai_batch.sending.shard_files import LandingRules
from airflow_openai_batch.sending.steps import Adopt, Create, Find

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.sending.driver import ShardDriver


class OpenAIBatchUploadOperator(ShardStepOperator):
    """Streams a shard's byte ranges from object storage to OpenAI, checking size and sha256 on the way.

    Where an `OpenAIBatchCreateOperator` for the same shard comes next and nothing has to be waited for, it creates the
    batch as well, and that task begins and ends in the triggerer (Airflow 3.3).
    """

    goal: ClassVar[Goal] = Goal.UPLOADED
    hands_over: ClassVar[bool] = True
    operator_extra_links = ()  # there is no batch yet

    @functools.cached_property
    def _creates(self) -> bool:
        return creates_for_next(self)

    def go_further(self, driver: ShardDriver) -> None:
        was_uploaded = driver.state is not None and driver.state.file_id is not None
        if was_uploaded and self._creates:
            driver.drive_within(Goal.CREATED, Find, Adopt, Create)

    def _hand_over(self, context: Context) -> None:
        if self._state is not None and is_reached(self._state, Goal.CREATED) and self._creates:
            super()._hand_over(context)


class LandingOperator(ShardStepOperator):
    """Base of the operators that turn answers into rows.

    :param keep_response_body: keep each answer's JSON in the column ``response_body``; ``raw/`` has it anyway.
    :param max_attempts: how often a request may really run before it counts as failed.
    :param accept_codes: which of ``content_filter``, ``refusal`` and ``truncated`` count as ``ok`` all the same;
        a request that is meant to be cut off by ``max_tokens`` wants ``truncated`` here.
    :param retry_codes: which of these and ``invalid_output`` (the answer breaks its schema) are asked again.
    """

    template_fields: Sequence[str] = (
        *ShardStepOperator.template_fields,
        "keep_response_body",
        "max_attempts",
        "accept_codes",
        "retry_codes",
    )

    def __init__(
        self,
        *,
        keep_response_body: bool | str = False,
        max_attempts: int | str = 3,
        accept_codes: Sequence[str] | str = (),
        retry_codes: Sequence[str] | str = ("invalid_output",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keep_response_body = keep_response_body
        self.max_attempts = max_attempts
        self.accept_codes = accept_codes
        self.retry_codes = retry_codes

    def landing_rules(self) -> LandingRules:
        return LandingRules(
            keep_response_body=read_flag("keep_response_body", self.keep_response_body),
            outcomes=OutcomeRules(
                max_attempts=read_int("max_attempts", self.max_attempts, minimum=1),
                accept=frozenset(filter(None, read_list("accept_codes", self.accept_codes))),
                retry=frozenset(filter(None, read_list("retry_codes", self.retry_codes))),
            ),
        )

    def order_landing(self, context: Context) -> dict[str, Any] | None:
        """Of a task that ends with its rows; not where a worker sees to more, or the rows would be another user's."""
        from airflow_openai_batch.triggers.landing import LandingOrder, may_land_here

        is_last = self.goal is Goal.DONE and self.waits_alone and may_end_in_triggerer(self)
        user = self.run_as_user or conf.get("core", "default_impersonation", fallback="")
        if self._state is None or not is_last or user or not may_land_here(self.files, self._state):
            return None
        if find_monthly_budget(self.hook) is not None:
            return None  # its book may lie on a disk that the workers share
        caller = make_caller(context)
        order = LandingOrder(
            job=self.files.output.uri,
            shard=self.files.shard.shard,
            job_giver=self._read_giver(),
            source_giver=find_source_giver(context),
            caller=caller,
            policy=read_policy(self, caller),
            rules=self.landing_rules(),
        )
        return order.to_dict()


class OpenAIBatchResendOperator(MayBeginInTriggerer, LandingOperator):
    """Sends again what a shard still needs, until every request has its row; ends at once where nothing is left.

    After an `OpenAIBatchDownloadOperator` it begins in the triggerer, and ends there where nothing is left.
    """

    goal: ClassVar[Goal] = Goal.DONE


class OpenAIBatchShardOperator(LandingOperator):
    """Takes a shard from wherever it is through upload, create, wait, download and resend, in one task."""

    goal: ClassVar[Goal] = Goal.DONE
