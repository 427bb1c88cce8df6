"""The `openai` client's exceptions as ours: told apart by type and status, never quoting a body."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator

import openai

from airflow_openai_batch.core.account import ACCOUNT_CODES
from airflow_openai_batch.core.errors import (
    FatalAccountError,
    NotFoundError,
    RemoteError,
    RequestRefusedError,
    TransientError,
)


def _find_stream_errors() -> tuple[type[Exception], ...]:
    """What reading a response body raises: the client hands through the errors of its HTTP library, which was
    httpx once and is httpx2 now."""
    found = (importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name))
    return tuple(module.HTTPError for module in found)


STREAM_ERRORS = _find_stream_errors()

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})


def translate_error(error: openai.OpenAIError, doing: str) -> RemoteError:
    """The error of ours that says what this one means.

    :param doing: what was tried, for the message: ``creating the batch``.
    """
    if isinstance(error, openai.APIStatusError):
        return _translate_status(error, doing)
    if isinstance(error, openai.APIConnectionError):  # time-outs are a subclass
        kind = "timed out" if isinstance(error, openai.APITimeoutError) else "could not be reached"
        return TransientError(f"{doing}: OpenAI {kind} ({type(error.__cause__ or error).__name__}).")
    if "api_key" in str(error) or "credentials" in str(error).lower():
        return FatalAccountError(
            f"{doing}: the connection has no API key. Put it into the connection's password."
        )
    return RequestRefusedError(f"{doing}: {type(error).__name__}")


def _translate_status(error: openai.APIStatusError, doing: str) -> RemoteError:
    status, code = error.status_code, error.code
    retry_after_s = _read_retry_after(error)
    text = f"{doing}: OpenAI answered {status}" + (f" {code}" if code else "")
    if status == 401:
        return FatalAccountError(
            f"{text}. The key of the connection is wrong or was revoked: correct it, then clear the task.",
            status_code=status,
            code=code,
        )
    if status == 403:
        return FatalAccountError(
            f"{text}. The key may not do this: check its project and permissions.",
            status_code=status,
            code=code,
        )
    if code in ACCOUNT_CODES:
        return FatalAccountError(
            f"{text}. The account cannot pay: check its credit and billing limit, then clear the task; "
            "nothing is sent twice.",
            status_code=status,
            code=code,
        )
    if status == 404:
        return NotFoundError(
            f"{text}. It is not there (any more), or belongs to another project than the connection's key.",
            status_code=status,
            code=code,
        )
    if status in _TRANSIENT_STATUS or status >= 500:
        return TransientError(f"{text}.", status_code=status, code=code, retry_after_s=retry_after_s)
    # OpenAI's own words for a refused call name parameters, ids and limits; they quote no request of the file.
    return RequestRefusedError(f"{text}: {_read_message(error)}", status_code=status, code=code)


def _read_message(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or "no message")[:300]


def _read_retry_after(error: openai.APIStatusError) -> float | None:
    with contextlib.suppress(ValueError, TypeError):
        return float(error.response.headers.get("retry-after", ""))
    return None


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors for the client's inside the block.

    :raises RemoteError: see `translate_error`.
    """
    try:
        yield
    except openai.OpenAIError as error:
        raise translate_error(error, doing) from None  # the cause may hold headers and bodies
