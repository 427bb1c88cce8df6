"""The operators for one shard; each says only how far it goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow_openai_batch.job.shard_state import Goal
from airflow_openai_batch.operators.task.handover import begin_in_triggerer
from airflow_openai_batch.operators.task.parameters import read_flag, read_list, read_number
from airflow_openai_batch.operators.task.shard_step import ShardStepOperator
from airflow_openai_batch.results.outcome import OutcomeRules
from airflow_openai_batch.sending.shard_files import LandingRules


class OpenAIBatchUploadOperator(ShardStepOperator):
    """Streams a shard's byte ranges from object storage to OpenAI, checking size and sha256 on the way."""

    goal: ClassVar[Goal] = Goal.UPLOADED
    operator_extra_links = ()  # there is no batch yet


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
                max_attempts=int(read_number("max_attempts", self.max_attempts, minimum=1)),
                accept=frozenset(read_list("accept_codes", self.accept_codes)),
                retry=frozenset(read_list("retry_codes", self.retry_codes)),
            ),
        )


class OpenAIBatchResendOperator(LandingOperator):
    """Sends again what a shard still needs, until every request has its row; ends at once where nothing is left.

    After an `OpenAIBatchDownloadOperator` it begins in the triggerer, and ends there where nothing is left.
    """

    goal: ClassVar[Goal] = Goal.DONE

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        begin_in_triggerer(self)


class OpenAIBatchShardOperator(LandingOperator):
    """Takes a shard from wherever it is through upload, create, wait, download and resend, in one task."""

    goal: ClassVar[Goal] = Goal.DONE
