"""Redirects: never followed for what changes something, and never with a key to another host.

A POST that is redirected by 301, 302 or 303 goes on as a GET, without its content: an upload answered with the list of
files looks like a success. So the client is made to see such an answer as it is, as an error.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

from airflow_openai_batch.server_words import clean_words

_TARGET = "airflow_openai_batch.redirect"
"""Where a response keeps what its ``location`` was."""
_CALLS = (
    "/files",
    "/batches",
    "/chat/completions",
    "/responses",
    "/embeddings",
    "/completions",
    "/moderations",
)
"""With these the part of an address begins that is no part of the connection's host."""
_PLAIN_HEADERS = frozenset(
    {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "range",
        "user-agent",
    }
)


def guard_redirects(sdk: Any, *, key_header: str | None = None) -> None:
    """Make a client of the `openai` package keep to this; for a synchronous and an asynchronous one.

    The hooks are those of its HTTP library, which the package does not show: hence the private name.

    :param key_header: in which the key goes, alone, where the server wants it in another than ``Authorization``, which
        the package cannot leave away by itself.
    """
    http = sdk._client
    origin = _find_origin(str(sdk.base_url))

    def strip(request: Any) -> None:
        if _find_origin(str(request.url)) != origin:
            _strip_private(request.headers)
        elif key_header is not None and (bearer := request.headers.pop("authorization", "")):
            request.headers[key_header] = bearer.removeprefix("Bearer ")

    async def strip_async(request: Any) -> None:
        strip(request)

    async def keep_async(response: Any) -> None:
        _keep(response)

    is_async = type(sdk).__name__.startswith("Async")
    hooks = http.event_hooks
    hooks["request"] = [*hooks["request"], strip_async if is_async else strip]
    hooks["response"] = [*hooks["response"], keep_async if is_async else _keep]
    http.event_hooks = hooks


def _keep(response: Any) -> None:
    """Take away from a redirect where it leads, so that nobody follows it."""
    if response.request.method in ("GET", "HEAD") or not 300 <= response.status_code < 400:
        return
    response.extensions[_TARGET] = response.headers.get("location", "")
    if "location" in response.headers:
        del response.headers["location"]


def _strip_private(headers: Any) -> None:
    """A GET that was led to another host needs no key there, whatever header it is in. What the client tells itself
    in headers of its own stays."""
    for name in list(headers):
        if name.lower() not in _PLAIN_HEADERS and not name.lower().startswith("x-stainless-"):
            del headers[name]


def read_redirect(response: Any) -> str | None:
    """Where a redirect that was not followed leads; "" if it does not say, ``None`` where it is none."""
    status = getattr(response, "status_code", 0)
    if not isinstance(status, int) or not 300 <= status < 400:
        return None
    kept = getattr(response, "extensions", {}).get(_TARGET)
    return str(response.headers.get("location", "") if kept is None else kept)


def describe_redirect(response: Any, target: str) -> str:
    """What is wrong, and what the host of the connection should be."""
    asked = _strip_url(str(response.request.url))
    if not target:
        return f"{asked} leads elsewhere without saying where to. Correct the host of the connection."
    leads_to = urljoin(str(response.request.url), target)
    leads_to = _strip_url(leads_to)
    return (
        f"{asked} leads to {leads_to}. It is not followed, since what was sent would not arrive. Correct the host of "
        f"the connection: {_find_base(asked)} should be {_find_base(leads_to)}, if that is your server."
    )


def _find_origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _find_base(url: str) -> str:
    """The host of a connection, as it would have to be for a call to go there."""
    ends = [url.index(call) for call in _CALLS if call in url]
    return url[: min(ends)] if ends else url


def _strip_url(url: str) -> str:
    """Without user, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return clean_words(f"{parts.scheme}://{host}{parts.path}")
