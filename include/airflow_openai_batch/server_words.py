"""What a server says, made fit for logs, the ledger, XCom, exceptions and reports: short, on one line, without secrets.

A server that echoes a request's headers, or a storage's error with a signed URL, would otherwise carry a key to
wherever the sentence goes. So texts pass through here where they enter our own types, and nowhere later.

Two kinds are replaced: what looks like a credential, whoever's it is, and what is known to be one, since it stands in a
connection that this process has read (`remember_secret`).
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_CHARS = 500
CODE_CHARS = 100
HIDDEN = "***"
_READ_CHARS = 20_000
"""More of a text is not looked through."""
_LEAST_SECRET = 6
"""Shorter values are words: to replace them would garble every message."""
_MOST_SECRETS = 500
"""That are remembered, the latest; a rotated key is forgotten in the end."""
_PUBLIC_KEYS = frozenset(
    {
        *("auth_type", "base_url", "data_residency", "endpoint_url", "host", "organization", "project"),
        *("region", "region_name", "token_file_path", "token_provider", "token_type"),
        *("server", "completion_window", "deployments", "tenant_id", "client_id"),
        *("azure_authority", "azure_scope", "workload_identity_provider"),
    }
)
"""Of a connection's extra: what an error may name. Passwords in their URLs are found by their form."""

_VALUE = r"""["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token|digest)\s+)?[^\s"',;&<>{}()]+"""
_PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), by)
    for pattern, by in (
        (r"-----BEGIN\s[A-Z\s]{0,40}-----.*?(?:-----END\s[A-Z\s]{0,40}-----|$)", HIDDEN),
        (r"(https?://)[^\s/?#@\"'<>]+@", rf"\1{HIDDEN}@"),
        (r"(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/?#@:\"'<>]*:[^\s/?#@\"'<>]+@", rf"\1{HIDDEN}@"),
        # What signs a URL stands in its query, under names that differ by vendor.
        (r"(\bhttps?://[^\s?\"'<>]{1,2000})\?[^\s\"'<>]+", rf"\1?{HIDDEN}"),
        (
            r"(?<![a-z0-9])((?:proxy-)?authorization|(?:set-)?cookie|(?:x-)?api[-_ ]?key(?: provided)?|"
            r"x-amz-[a-z-]{1,40}|passw(?:or)?d|secret|(?:client|access|private|account|shared|secret)[-_](?:access[-_])?(?:key|secret)|"
            r"(?:access|refresh|id|auth|security|session|sas)[-_]?token|sig|signature)" + _VALUE,
            rf"\1: {HIDDEN}",
        ),
        (r"\btoken=[^\s\"',;&<>]+", f"token={HIDDEN}"),
        (r"\b(bearer|basic)\s+(?:(?=\S*[0-9=_~+/-])[a-z0-9._~+/=-]{6,}|[a-z]{20,})", rf"\1 {HIDDEN}"),
        (r"\beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?", HIDDEN),
        (r"\bsk-[\w*-]+(?:\.{2,}[\w*-]+)?", HIDDEN),
        (r"\b(?:sess-|gsk_|xai-|whsec_|hf_|glpat-|gh[pousr]_|github_pat_|xox[a-z]-)[\w*-]{6,}={0,2}", HIDDEN),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}", HIDDEN),
        (r"\bAIza[\w-]{20,}", HIDDEN),
        (r"(?<![\w.+/=-])[\w.+/=-]*(?:\*{3,}|•{3,})[\w.+/=*-]*", HIDDEN),  # what somebody masked in part
    )
)
_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
"""Line ends, terminal codes, and what turns the direction of a text round."""

_lock = threading.Lock()
_secrets: OrderedDict[str, None] = OrderedDict()
_known: re.Pattern[str] | None = None
_known_bytes: re.Pattern[bytes] | None = None


def clean_words(said: Any, most_chars: int = MOST_CHARS) -> str:
    """A server's words as they may go anywhere; "" for nothing.

    :param said: a text; anything else is taken as JSON.
    """
    text: str = _as_text(said)
    if len(text) > _READ_CHARS:
        text = text[:_READ_CHARS].rpartition(" ")[0]  # not a part of a key, which nobody would know again
    text = hide_secrets(text)
    for pattern, by in _PATTERNS:
        text = pattern.sub(by, text)
    text = _CONTROL.sub(" ", text).strip()
    text = hide_secrets(text)
    return text if len(text) <= most_chars else f"{text[: most_chars - 1]}…"


def clean_code(said: Any) -> str:
    """A server's code for what went wrong; "" where there is none."""
    return clean_words(said, CODE_CHARS)


def describe_error(error: BaseException) -> str:
    """What another library's exception says, with its type."""
    words = clean_words(str(error))
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def hide_secrets(text: str) -> str:
    """The text without what connections of this process hold; all else as it is."""
    return text if _known is None else _known.sub(HIDDEN, text)


def hide_secrets_bytes(data: bytes) -> bytes:
    """As `hide_secrets`."""
    return data if _known_bytes is None else _known_bytes.sub(HIDDEN.encode(), data)


def remember_connection(password: str | None, extra: Any) -> None:
    """All of a connection that nobody is to read: its password, and the texts of its extra."""
    remember_secret(password)
    for value in _iter_private(extra):
        remember_secret(value)


def remember_secret(value: str | None) -> None:
    """Replace this text from now on, also as it stands in URLs, JSON, HTML, base64 and hexadecimal."""
    global _known, _known_bytes
    value = (value or "").strip()
    if len(value) < _LEAST_SECRET:
        return
    with _lock:
        known_before = value in _secrets
        _secrets[value] = None
        _secrets.move_to_end(value)
        if known_before:
            return
        if len(_secrets) > _MOST_SECRETS:
            _secrets.popitem(last=False)
        forms = sorted({form for each in _secrets for form in _iter_forms(each)}, key=len, reverse=True)
        _known = re.compile("|".join(map(re.escape, forms)))
        _known_bytes = re.compile(b"|".join(re.escape(form.encode()) for form in forms))


def _iter_forms(secret: str) -> Iterator[str]:
    """Ways in which a server may write it back."""
    secret = secret.encode("utf-8", "replace").decode()
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    yield from (json.dumps(secret)[1:-1], html.escape(secret))
    yield json.dumps(secret, ensure_ascii=False)[1:-1].replace("/", "\\/")
    raw = secret.encode()
    yield raw.hex()
    for skipped in range(3):
        # In base64 of a longer text, as "Basic" is of "user:password", it begins at any of three places.
        coded = base64.b64encode(b"\0" * skipped + raw).decode().rstrip("=")
        # The characters at both ends hold bits of its neighbours.
        inner = coded[-(-skipped * 8 // 6) : len(coded) - 1 if (skipped + len(raw)) % 3 else None]
        if len(inner) >= _LEAST_SECRET + 2:
            yield from (inner, inner.replace("+", "-").replace("/", "_"))


def _iter_private(extra: Any, key: str = "") -> Iterator[str]:
    if isinstance(extra, dict):
        for name, value in extra.items():
            # Names of models stand below the names of deployments, which may be any.
            yield from _iter_private(value, key if key == "deployments" else str(name))
    elif isinstance(extra, list):
        for value in extra:
            yield from _iter_private(value, key)
    elif isinstance(extra, str) and key not in _PUBLIC_KEYS and len(extra) >= 8:
        yield extra


def _as_text(said: Any) -> str:
    if said is None:
        return ""
    if isinstance(said, bytes):
        said = said.decode("utf-8", "replace")
    if not isinstance(said, str):
        try:
            said = json.dumps(said)
        except (TypeError, ValueError, RecursionError):
            return type(said).__name__
    return str(said).encode("utf-8", "replace").decode()  # no lone surrogates, which no file would take
