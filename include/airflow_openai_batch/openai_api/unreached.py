"""Why no answer came: certificates, names, refused connections, time-outs, each with what to change.

The client says "Connection error." for all of them; what happened stands in the chain of its causes.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from airflow_openai_batch.errors import RemoteError, RequestRefusedError, TransientError
from airflow_openai_batch.openai_api.answer_sizes import TooLongAnswerError
from airflow_openai_batch.server_words import clean_words

_MOST_CAUSES = 20
_OWN_FAULTS = frozenset({"LocalProtocolError", "UnsupportedProtocol", "InvalidURL"})
"""Of the HTTP library: what was to be sent cannot be sent to anybody."""


def explain_unreached(error: Any, doing: str, *, timed_out: bool) -> RemoteError:
    """The error of ours for one of the client's that has no answer; texts of causes may hold headers, and stay out."""
    causes = list(_iter_causes(error))
    address = name_address(getattr(error, "request", None))
    where = f"{doing}: {address}" if address else f"{doing}: the server"
    last = next((each for each in causes[1:]), error)
    if any(type(each).__name__ in _OWN_FAULTS for each in causes):
        return RequestRefusedError(
            f"{where} cannot be asked at all ({type(last).__name__}). Correct the host and the password of the "
            "connection, and headers in its extra: a line end or another odd character is in one of them."
        )
    if (
        too_long := next((each for each in causes if isinstance(each, TooLongAnswerError)), None)
    ) is not None:
        return TransientError(
            f"{where} cannot be read: {too_long}. Look at the host of the connection and at proxies."
        )
    if timed_out:
        return TransientError(f"{where} timed out ({type(last).__name__}).")
    return TransientError(f"{where} could not be reached ({_explain(causes, last)}).{_name_proxy(address)}")


def name_address(source: Any) -> str:
    """Scheme, host and path of a request, or of an answer to one; \"\" where there is none."""
    request = getattr(source, "request", None) if hasattr(source, "status_code") else source
    url = getattr(request, "url", None)
    if url is None:
        return ""
    parts = urlsplit(str(url))
    return clean_words(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _explain(causes: list[BaseException], last: BaseException) -> str:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted: {clean_words(cause.verify_message)}. Where a proxy or a company's "
                "own authority signs it, set SSL_CERT_FILE to a file with that authority's certificate, in the "
                "environment of workers, triggerers and the API server"
            )
        if isinstance(cause, ssl.SSLError):
            return (
                f"no TLS with it: {clean_words(cause.reason or type(cause).__name__)}. Is it https:// that this port "
                "speaks, and not http://?"
            )
        if isinstance(cause, socket.gaierror):
            return (
                "its name is not known to this machine's DNS. Correct the host of the connection, or the DNS of "
                "workers and triggerers"
            )
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused: nothing listens there, or a firewall says no"
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return "the connection was cut"
    return type(last).__name__


def _name_proxy(address: str) -> str:
    """The way is through a proxy where the environment says so, and it may be that which fails."""
    name = "HTTPS_PROXY" if address.startswith("https") else "HTTP_PROXY"
    proxy = os.environ.get(name) or os.environ.get(name.lower()) or os.environ.get("ALL_PROXY")
    return f" The way there is through the proxy that {name} or ALL_PROXY names." if proxy and address else ""


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised for, and so on; members of groups too."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MOST_CAUSES:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        waiting.extend(cause for cause in (each.__cause__, each.__context__) if cause is not None)
