"""What OpenAI says when it refuses: the bodies of HTTP errors and the errors of a whole batch."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]

_TYPES = {
    401: "invalid_request_error",
    403: "invalid_request_error",
    429: "requests",
    409: "invalid_request_error",
}


class ApiError(Exception):
    """An HTTP answer other than 200."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type or _type_of(status, code)
        self.headers = headers or {}

    def body(self) -> JSON:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def missing(param: str) -> ApiError:
    return ApiError(
        400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param
    )


def _type_of(status: int, code: str | None) -> str:
    if code in ("insufficient_quota", "billing_hard_limit_reached"):
        return code if code == "insufficient_quota" else "invalid_request_error"
    if status >= 500 or status == 0:
        return "server_error"
    return _TYPES.get(status, "invalid_request_error")


MESSAGES = {
    "insufficient_quota": (
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on "
        "this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    ),
    "billing_hard_limit_reached": "Billing hard limit has been reached.",
    "rate_limit_exceeded": "Rate limit reached. Please try again later.",
    "invalid_api_key": (
        "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."
    ),
    "content_policy_violation": "Your request was rejected as a result of our safety system.",
    "context_length_exceeded": "This model's maximum context length is 128000 tokens.",
    "request_timeout": "This request timed out.",
    "resource_unavailable": "Resource unavailable: there is no capacity for flex processing now. Try again later.",
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was cancelled with its batch.",
}
"""By error code, for HTTP answers and for lines."""

STATUS_MESSAGES = {
    400: "Invalid request.",
    401: MESSAGES["invalid_api_key"],
    403: "You are not allowed to access this resource.",
    404: "The requested resource was not found.",
    408: "Request timed out.",
    409: "The request conflicts with the state of the resource.",
    413: "The request body is too large.",
    429: MESSAGES["rate_limit_exceeded"],
    500: "The server had an error while processing your request. Sorry about that!",
    502: "Bad gateway.",
    503: "The engine is currently overloaded, please try again later.",
    0: "",
}

STATUS_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
"""The code that OpenAI gives with a status where a script names none."""


def message_for(status: int, code: str | None) -> str:
    if code in MESSAGES:
        return MESSAGES[code]
    return STATUS_MESSAGES.get(status, f"Request failed with status {status}.")


BATCH_MESSAGES = {
    "token_limit_exceeded": (
        "Enqueued token limit reached for {model} in organization {organization}. Limit: {limit:,} enqueued "
        "tokens. Please try again once some in_progress batches have been completed."
    ),
    "request_limit_exceeded": (
        "Enqueued request limit reached for {model} in organization {organization}. Limit: {limit:,} "
        "enqueued "
        "requests. Please try again once some in_progress batches have been completed."
    ),
    "invalid_json_line": "This line is not parseable as valid JSON.",
    "missing_required_parameter": "Missing required parameter: '{param}'.",
    "invalid_url": "The URL provided for this request does not match the batch endpoint.",
    "invalid_method": "Invalid value: '{value}'. Value must be 'POST'.",
    "invalid_type": "Invalid type for '{param}': expected a string.",
    "duplicate_custom_id": (
        "The custom_id '{value}' for this request is a duplicate of another request. The custom_id "
        "parameter must "
        "be unique for each request in a batch."
    ),
    "mismatched_model": (
        "The model '{value}' for this request does not match the rest of the batch. Each batch must contain "
        "requests for a single model."
    ),
    "model_not_found": "The provided model '{value}' is not supported by the Batch API.",
    "invalid_request": (
        "Cannot find file {file_id}, or organization {organization} does not have access to it."
    ),
    "empty_file": ("The input file is empty. Please ensure that the batch contains at least one request."),
    "too_many_tasks": "The batch input file has more than {limit:,} requests, the limit of a batch.",
    "too_many_inputs": "The batch has more than {limit:,} embedding inputs, the limit of a batch.",
    "stream_not_supported": "Streaming is not supported in the Batch API.",
    "billing_hard_limit_reached": MESSAGES["billing_hard_limit_reached"],
}
"""Errors of the whole batch, by code."""

CODELESS = {"request_limit_exceeded"}
"""Seen without a code: the name is ours."""


def batch_error(code: str, *, line: int | None = None, param: str | None = None, **values: Any) -> JSON:
    """One entry of ``batch.errors.data``."""
    blanks = {"model": "?", "organization": "?", "limit": 0, "param": param, "value": "?", "file_id": "?"}
    template = BATCH_MESSAGES.get(code, code.replace("_", " ").capitalize() + ".")
    return {
        "code": None if code in CODELESS else code,
        "line": line,
        "message": template.format(**{**blanks, **values}),
        "param": param,
    }
