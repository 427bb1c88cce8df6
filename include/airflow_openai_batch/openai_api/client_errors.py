"""The `openai` client's exceptions as ours: told apart by type and status, never quoting a body.

Each message says what was asked, what came, and what to change.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import openai
from openai._exceptions import SubjectTokenProviderError  # which the package raises and does not show

from airflow_openai_batch.errors import (
    FatalAccountError,
    NotFoundError,
    RemoteError,
    RequestRefusedError,
    TransientError,
)
from airflow_openai_batch.openai_api.error_codes import ACCOUNT_CODES
from airflow_openai_batch.openai_api.rate_limits import read_retry_after
from airflow_openai_batch.openai_api.redirects import describe_redirect, read_redirect
from airflow_openai_batch.openai_api.server_objects import PAGE, is_page
from airflow_openai_batch.openai_api.servers.choice import name_by_host
from airflow_openai_batch.openai_api.unreached import explain_unreached, name_address
from airflow_openai_batch.server_words import clean_code, clean_words


def _find_stream_errors() -> tuple[type[Exception], ...]:
    """What reading a response body raises: the client hands through the errors of its HTTP library, which was
    httpx once and is httpx2 now."""
    found = (importlib.import_module(name) for name in ("httpx2", "httpx") if importlib.util.find_spec(name))
    return tuple(module.HTTPError for module in found)


STREAM_ERRORS = _find_stream_errors()

_EXCHANGE = "token exchange"
"""What the client's errors say where the exchange of a token fails otherwise: there is no type for it."""
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
_MISSING_STATUS = frozenset({404, 410})
"""Some servers tell what was deleted from what never was."""
_NO_ROUTE_WORDS = frozenset({"not found", "404 page not found", "404 not found", "route not found"})
"""What web frameworks answer for an address that they do not have."""


class NoRouteError(TransientError):
    """The server does not have the address that was asked for: its host is wrong, or what stands before it is down."""


def translate_error(error: openai.OpenAIError, doing: str) -> RemoteError:
    """The error of ours that says what this one means.

    :param doing: what was tried, for the message: ``creating the batch``.
    """
    if isinstance(error, openai.OAuthError):
        return _explain_exchange(error, doing)
    if isinstance(error, openai.APIStatusError):
        return _translate_status(error, doing)
    if isinstance(error, openai.APIConnectionError):  # time-outs are a subclass
        return explain_unreached(error, doing, timed_out=isinstance(error, openai.APITimeoutError))
    if isinstance(error, SubjectTokenProviderError) or _EXCHANGE in str(error).lower():
        return TransientError(
            f"{doing}: workload identity got no token. Look at workload_identity_provider and what belongs to it in "
            f"the connection's extra: {clean_words(str(error)).rstrip('.')}."
        )
    if "api_key" in str(error) or "credentials" in str(error).lower():
        return FatalAccountError(
            f"{doing}: the connection has no API key. Put it into the connection's password."
        )
    return RequestRefusedError(f"{doing}: {type(error).__name__}")


def _explain_exchange(error: openai.OAuthError, doing: str) -> RemoteError:
    """Of workload identity: the token was got, and is not taken."""
    code = clean_code(error.error) or None
    return FatalAccountError(
        f"{doing}: OpenAI answered {error.status_code}{f' {code}' if code else ''} to the token of workload identity: "
        f"{clean_words(error.message).rstrip('.')}. Correct identity_provider_id, service_account_id and what "
        "workload_identity_provider needs in the connection's extra.",
        status_code=error.status_code,
        code=code,
    )


def _translate_status(error: openai.APIStatusError, doing: str) -> RemoteError:
    status, code = error.status_code, clean_code(error.code) or None
    text = f"{doing}: {_name_server(error)} answered {status}" + (f" {code}" if code else "")
    kind, why = _judge_status(error, status, code)
    if kind is RequestRefusedError and not why:
        # The server's own words for a refused call name parameters, ids and limits; they quote no request of the file.
        why = f": {_read_message(error) or 'no message'}"
    by_whom = _name_other_host(error) if status in (401, 403, 413) or _is_page(error) else ""
    return kind(
        f"{text}{by_whom}{why or '.'}",
        status_code=status,
        code=code,
        retry_after_s=read_retry_after(error.response.headers) if issubclass(kind, TransientError) else None,
    )


def _judge_status(
    error: openai.APIStatusError, status: int, code: str | None
) -> tuple[type[RemoteError], str]:
    """What a refusal is, and how its sentence goes on; "" where the status says it all."""
    if (target := read_redirect(error.response)) is not None:
        return RequestRefusedError, f": {describe_redirect(error.response, target)}"
    if code in ACCOUNT_CODES:
        why = "The account cannot pay: check its credit and billing limit, then clear the task; nothing is sent twice."
        return FatalAccountError, f". {why}"
    if status == 413:
        return RequestRefusedError, f": {_TOO_LARGE}{_quote(error)}"
    if status == 401:
        return FatalAccountError, _explain_key(error, code)
    if status in _TRANSIENT_STATUS or status >= 500:
        return TransientError, ""
    if _is_page(error):
        return TransientError, f": {PAGE}"
    if status == 407:
        return TransientError, f". {_PROXY_LOGIN}"
    if status == 403:
        return FatalAccountError, _explain_forbidden(error, code)
    if status in _MISSING_STATUS:
        return _judge_missing(error)
    return RequestRefusedError, ""


_TOO_LARGE = (
    "what was sent is larger than the server takes, or a proxy before it. OpenAI takes files of 200,000,000 bytes; "
    "for less, set max_bytes_per_shard below the limit of what stands between (for instance 50,000,000) and split "
    "again with on_existing=restart, or raise that limit (nginx: client_max_body_size)."
)
_PROXY_LOGIN = (
    "A proxy on the way asks for a login: correct HTTPS_PROXY in the environment of workers and triggerers, with user "
    "and password, or except the host by NO_PROXY."
)


def _explain_key(error: openai.APIStatusError, code: str | None) -> str:
    if code == "incorrect_hostname":
        return (
            ": the key is of a project whose data stay in one region, and this is not that region's host. OpenAI says: "
            f"{_read_message(error) or 'nothing more'} Set the connection's host to the region's address, for "
            "instance https://eu.api.openai.com/v1 or https://us.api.openai.com/v1."
        )
    page = " (with a web page, as proxies do: it may be theirs)" if _is_page(error) else ""
    return f"{page}. The key of the connection is wrong or was revoked: correct it, then clear the task."


def _explain_forbidden(error: openai.APIStatusError, code: str | None) -> str:
    if code is not None and "country" in code:
        return (
            ": OpenAI does not serve the country or region that this request came from, which is that of the worker or "
            "of the proxy it goes through. Run workers and triggerers in, or route them through, a supported one."
        )
    return f". The key may not do this: check its project and permissions.{_quote(error)}"


def _quote(error: openai.APIStatusError) -> str:
    """A sentence of its own; "" where the server says nothing."""
    said, who = _read_message(error), _name_server(error)
    return f" {who[0].upper()}{who[1:]} says: {said}" if said else ""


def _judge_missing(error: openai.APIStatusError) -> tuple[type[RemoteError], str]:
    """It is about an object, or about the address itself."""
    said = _read_message(error)
    if not (said.startswith("Invalid URL") or said.strip(" .").lower() in _NO_ROUTE_WORDS):
        return (
            NotFoundError,
            ". It is not there (any more), or belongs to another project than the connection's key.",
        )
    address = name_address(error.response)
    missing = (
        "" if "/v1" in address else " It has no /v1, with which the addresses of most servers begin: add it."
    )
    return (
        NoRouteError,
        f": the server has nothing at {address}. Correct the connection's host (for OpenAI: "
        f"https://api.openai.com/v1).{missing}",
    )


def _is_page(error: openai.APIStatusError) -> bool:
    kind = error.response.headers.get("content-type") or ""
    return is_page(error.body.encode()[:200] if isinstance(error.body, str) else b"", kind)


def _read_message(error: openai.APIStatusError) -> str:
    """The server's own words, cleaned; "" where it says nothing, or sends a page."""
    body: Any = error.body
    if isinstance(body, dict):
        return clean_words(body.get("message") or body.get("detail"))
    return "" if body is None or _is_page(error) else clean_words(body)


def _name_server(error: openai.APIStatusError) -> str:
    return name_by_host(name_address(error.response))


def _name_other_host(error: openai.APIStatusError) -> str:
    """Who really answered, where the connection leads elsewhere than to OpenAI."""
    address = name_address(error.response)
    return "" if not address or "//api.openai.com/" in address else f" ({address})"


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors for the client's inside the block.

    :raises RemoteError: see `translate_error`.
    """
    try:
        yield
    except openai.OpenAIError as error:
        raise translate_error(error, doing) from None  # the cause may hold headers and bodies
