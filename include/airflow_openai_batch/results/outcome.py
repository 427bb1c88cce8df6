"""From one line of an output or error file to what became of the request.

Classified on the HTTP status of the line; the facts are in OpenAI's guide and in what users met
(ellmer #830: lines with status 0; errors of refused requests stand in ``response.body.error``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal

import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api import lenient_json
from airflow_openai_batch.openai_api.answer_parts import (
    CONTENT_FILTER,
    MISSING_PARTS,
    REFUSAL,
    TRUNCATED,
    UNREADABLE,
    VIDEO_UNFINISHED,
    Choice,
    ResponseContent,
)
from airflow_openai_batch.openai_api.error_codes import ACCOUNT_CODES, SPOILED_BODY
from airflow_openai_batch.openai_api.responses import read_answer, read_costs
from airflow_openai_batch.openai_api.result_line import (
    FLEX_LINE,
    ResultLine,
    ResultResponse,
    read_result_line,
)
from airflow_openai_batch.results.format_check import check_format
from airflow_openai_batch.results.torn_lines import make_out_costs
from airflow_openai_batch.server_words import clean_code, hide_secrets, hide_secrets_bytes

Status = Literal["ok", "failed", "invalid_output", "missing"]

INVALID_OUTPUT: Final = "invalid_output"
MISSING: Final = "missing"
NOT_SENT = "not_sent"
"""No send carried the request: so far there was only a sample, or the deadline came first."""
NO_RESPONSE = "no_response"
"""Status 0, or neither a response nor an error."""

NOT_RUN_CODES = frozenset({"batch_expired", "batch_cancelled"})
"""OpenAI never started these: no attempt is used up."""
RETRYABLE_RESPONSE_CODES = frozenset(
    {"server_error", "rate_limit_exceeded", "response_cancelled", "response_in_progress", "response_queued"}
)
"""Codes that a 200 of /v1/responses can carry inside, where its status is not ``completed``."""

UNUSABLE_CODES = frozenset({UNREADABLE, MISSING_PARTS})
"""Nothing of the answer can be used: ``invalid_output``, as one that breaks its schema."""

ANSWER_CODES = frozenset({CONTENT_FILTER, REFUSAL, TRUNCATED, INVALID_OUTPUT})


class Rank(IntEnum):
    """Which of several lines for one request is kept: the lowest rank, then the first."""

    GOOD = 0
    DEFECTIVE = 1
    """Answered and paid for, but not what was asked for."""
    REFUSED = 2
    """Asking again will not help."""
    BROKEN = 3
    """Worth another try."""
    NOT_RUN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRules:
    """What counts as good, and what is asked again. Checks itself.

    A content filter, a refusal and a truncated answer are ``failed`` unless they are accepted here:
    who filters on ``status = 'ok'`` shall find whole answers only. They are not asked again unless
    named here, since the same request mostly meets the same end and is paid for again.

    :raises ConfigError: for an unknown code or a number of attempts under 1.
    """

    max_attempts: int = 3
    retry: frozenset[str] = field(default=frozenset({INVALID_OUTPUT}))
    """Of content_filter, refusal, truncated, invalid_output: which are asked again."""
    accept: frozenset[str] = field(default=frozenset())
    """Of content_filter, refusal, truncated: which are ``ok`` all the same; ``error_code`` keeps the code."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts={self.max_attempts}: must be at least 1.")
        _check_codes("retry_codes", self.retry, ANSWER_CODES)
        _check_codes("accept_codes", self.accept, ANSWER_CODES - {INVALID_OUTPUT})
        if both := sorted(self.retry & self.accept):
            raise ConfigError(
                f"{', '.join(both)}: both in retry_codes and in accept_codes; an accepted answer is not asked again."
            )


def _check_codes(name: str, codes: frozenset[str], known: frozenset[str]) -> None:
    if unknown := sorted(codes - known):
        raise ConfigError(f"{name}={unknown}: must be of {', '.join(sorted(known))}.")


class Outcome(msgspec.Struct, kw_only=True):
    """What one line says of its request."""

    rank: Rank
    status: Status
    status_code: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    retryable: bool = False
    ran: bool = True
    """Whether it counts as an attempt."""
    account_error: bool = False
    """The account may not ask or cannot pay: nothing more should be sent."""
    unchecked: bool = False
    """The request's schema cannot be used, so the answer was not checked against it."""
    answer: ResponseContent | None = None
    parsed: str | None = None
    request_id: str | None = None
    body: bytes | None = None
    flex: bool = False
    """The line says that it came through flex; to be believed only of lines that we have written."""


_TORN = "The line with this answer is no JSON: nothing of it could be read but whose it is, and what it cost."


def read_outcome(
    line: bytes,
    endpoint: str,
    output_format: str,
    schema: bytes | None,
    rules: OutcomeRules,
    *,
    inputs: int | None = None,
    dimensions: int | None = None,
) -> Outcome:
    """What ``line`` says. Never raises for what the server sent: the row says what is wrong.

    :param output_format: ``text``, ``json_object`` or ``json_schema``, as the request asked.
    :param schema: JSON of the schema, with ``json_schema``.
    :param inputs: that the request has, of embeddings and moderations; None where that is not known.
    :param dimensions: that it asks for, if any.
    """
    found, torn = _open_line(line)
    outcome = _judge_line(found, torn, endpoint, output_format, schema, rules, inputs, dimensions)
    outcome.flex = isinstance(found.id, str) and found.id.startswith(FLEX_LINE)
    return _hide_secrets(outcome)


def _judge_line(
    found: ResultLine,
    torn: bool,
    endpoint: str,
    output_format: str,
    schema: bytes | None,
    rules: OutcomeRules,
    inputs: int | None,
    dimensions: int | None,
) -> Outcome:
    response, error = found.response, found.error
    if response is None:
        return _without_response(error)
    body = _unquote_body(bytes(response.body))
    status_code = response.status_code
    if type(status_code) is not int or not 0 <= status_code < 2**31:
        status_code = 200 if _looks_like_answer(body) else 0
    if 200 <= status_code < 300:
        answer = read_answer(endpoint, body, inputs=inputs, dimensions=dimensions)
        error_within = (_find_error_within(body) or error) if answer.defect == UNREADABLE else None
        if error_within:
            outcome = _judge_refusal(_status_within(error_within), body, error_within)
        else:
            outcome = judge_answer(answer, output_format, schema, rules)
    else:
        outcome = _judge_refusal(status_code, body, error)
    outcome.status_code = status_code
    outcome.request_id = response.request_id if isinstance(response.request_id, str) else None
    outcome.body = body
    if torn and outcome.answer is not None:
        outcome.error_message = outcome.answer.defect_message = _TORN
    return outcome


def _hide_secrets(outcome: Outcome) -> Outcome:
    """A server that echoes what it was sent does not bring the connection's key into a row."""
    if outcome.error_message is not None:
        outcome.error_message = hide_secrets(outcome.error_message)
    if outcome.body is not None and outcome.status != "ok":
        outcome.body = hide_secrets_bytes(outcome.body)
    return outcome


def _open_line(line: bytes) -> tuple[ResultLine, bool]:
    """And whether the line is torn: what can be made out of its answer stands there then."""
    try:
        return read_result_line(line), False
    except lenient_json.UnreadableJSONError:
        response = ResultResponse(status_code=200, body=msgspec.Raw(make_out_costs(line)))
        return ResultLine(response=response), True


def _unquote_body(body: bytes) -> bytes:
    """One compatible server returns the body as a JSON string."""
    if not body.startswith(b'"'):
        return body
    try:
        text = lenient_json.decode(body)
    except lenient_json.UnreadableJSONError:
        return body
    return text.encode() if isinstance(text, str) else body


def _looks_like_answer(body: bytes) -> bool:
    try:
        value = lenient_json.decode(body)
    except lenient_json.UnreadableJSONError:
        return False
    return isinstance(value, dict) and bool(value) and not value.get("error")


def _without_response(error: Any) -> Outcome:
    """No HTTP answer at all: OpenAI's own codes, and anything unknown is worth another try."""
    code, message = _read_error(error)
    code = code or NO_RESPONSE
    not_run = code in NOT_RUN_CODES
    account = code in ACCOUNT_CODES
    return Outcome(
        rank=Rank.NOT_RUN if not_run else Rank.BROKEN,
        status="failed",
        error_code=code,
        error_message=message or "Neither a response nor an error came back.",
        retryable=True,
        ran=not (not_run or account),
        account_error=account,
    )


def _find_error_within(body: bytes) -> Any:
    """What stands as ``error`` in a body, or in a choice of it; None where there is none."""
    try:
        value = lenient_json.decode(body)
    except lenient_json.UnreadableJSONError:
        return None
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    within = [value, *(choices if isinstance(choices, list) else [])]
    return next((found for each in within if isinstance(each, dict) and (found := each.get("error"))), None)


def _status_within(error: Any) -> int:
    """The status that an error in a 200 should have had: gateways say so; of others one that is asked again."""
    found = error if isinstance(error, dict) else {}
    for key in ("code", "status"):
        code = found.get(key)
        if type(code) is int and 400 <= code < 600:
            return code
    return 400 if found.get("type") == "invalid_request_error" else 500


def _judge_refusal(status_code: int, body: bytes, error: Any) -> Outcome:
    code, message = _read_error(_find_error_within(body))
    if code is None and message is None:
        code, message = _read_error(error)
    code = code or (NO_RESPONSE if status_code == 0 else f"http_{status_code}")
    message = message or f"HTTP status {status_code} without a message."
    account, not_run = status_code in (401, 403) or code in ACCOUNT_CODES, code in NOT_RUN_CODES
    passing = status_code in (0, 408, 409, 429) or status_code >= 500 or message.startswith(SPOILED_BODY)
    retryable = account or passing or not_run
    costs = read_costs(body)
    return Outcome(
        answer=costs if costs.usage is not None else None,
        rank=Rank.NOT_RUN if not_run else Rank.BROKEN if retryable else Rank.REFUSED,
        status="failed",
        error_code=code,
        error_message=message,
        retryable=retryable,
        ran=not (not_run or account),
        account_error=account,
    )


def _read_error(error: Any) -> tuple[str | None, str | None]:
    if isinstance(error, str):
        return None, error or None
    if not isinstance(error, dict):
        return None, None
    code = error.get("code") or error.get("type")
    message = error.get("message")
    return (
        clean_code(code) or None if isinstance(code, (str, int)) else None,
        message if isinstance(message, str) and message else None,
    )


def judge_answer(
    answer: ResponseContent, output_format: str, schema: bytes | None, rules: OutcomeRules
) -> Outcome:
    """What an answer that came with a 2xx is worth; arguments as of `read_outcome`."""
    code = answer.defect
    if code == VIDEO_UNFINISHED:  # it may be made yet: to ask again would pay for another one
        return Outcome(
            rank=Rank.BROKEN,
            status=MISSING,
            error_code=code,
            error_message=answer.defect_message,
            answer=answer,
            parsed=answer.structured,
        )
    if code is not None and code not in rules.accept:
        return Outcome(
            rank=Rank.DEFECTIVE,
            status=INVALID_OUTPUT if code in UNUSABLE_CODES else "failed",
            error_code=code,
            error_message=answer.defect_message,
            retryable=_is_retryable_defect(code, rules),
            answer=answer,
            parsed=answer.structured,
        )
    outcome = Outcome(
        rank=Rank.GOOD,
        status="ok",
        error_code=code,
        error_message=answer.defect_message,
        answer=answer,
        parsed=answer.structured,
    )
    if output_format != "text":
        _check_formats(outcome, answer, output_format, schema, rules)
    return outcome


def _is_retryable_defect(code: str, rules: OutcomeRules) -> bool:
    if code in UNUSABLE_CODES:
        return INVALID_OUTPUT in rules.retry
    return code in rules.retry or code in RETRYABLE_RESPONSE_CODES


def _check_formats(
    outcome: Outcome, answer: ResponseContent, output_format: str, schema: bytes | None, rules: OutcomeRules
) -> None:
    """Hold the text, or those of all choices, against the format that was asked for."""
    if answer.pieces and not _holds_json(answer.content or ""):
        # A model that begins anew leaves the beginning of its answer before the whole one.
        answer.content = next(filter(_holds_json, reversed(answer.pieces)), answer.content)
    choices = answer.choices or ([Choice(answer.content)] if answer.has_text else [])
    for number, choice in enumerate(choices):
        if choice.calls is not None or (choice.text is None and answer.defect is not None):
            continue
        found = check_format(choice.text or "", output_format, schema)
        if found.text is not None:
            choice.text = found.text
        outcome.unchecked |= found.unchecked
        if number == 0:
            outcome.parsed = found.text
        if found.violation is not None:
            several = f"Choice {number + 1} of {len(choices)}: " if len(choices) > 1 else ""
            outcome.rank = Rank.DEFECTIVE
            outcome.status = INVALID_OUTPUT
            outcome.error_code = INVALID_OUTPUT
            outcome.error_message = several + found.violation
            # Another answer is checked against the same schema.
            outcome.retryable = INVALID_OUTPUT in rules.retry and not found.beyond_limits
            return


def _holds_json(text: str) -> bool:
    try:
        return isinstance(lenient_json.decode(text), dict | list)
    except lenient_json.UnreadableJSONError:
        return False
