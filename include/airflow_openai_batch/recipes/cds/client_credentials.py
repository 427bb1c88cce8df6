"""OAuth 2.0 client credentials for a catalogue: an id and a secret become tokens of some minutes.

Source: RFC 6749, section 4.4, and OCLC's "Client Credentials Grant": Basic authentication at the token's address, with
``grant_type=client_credentials`` and a scope in the form.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from urllib.parse import urlsplit

import httpx
import msgspec

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.connection_settings import check_key
from airflow_openai_batch.server_words import remember_secret

_USUAL_S = 300.0
"""Of a token whose server does not say how long it lives."""
_MARGIN_S = 60.0
"""It is renewed so long before its end, or a tenth of its life where that is less."""
_TELLING = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "invalid_scope"),
        *("unauthorized_client", "unsupported_grant_type"),
    }
)
"""The codes of RFC 6749, which may be quoted; other words of a server may hold what it was sent."""


class TokenUnavailableError(httpx.TransportError):
    """The token's server is busy or answers nothing of use; worth another try."""


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None
    token_type: str = "bearer"  # noqa: S105 - a word of the protocol


class _Refusal(msgspec.Struct):
    error: str = ""


class ClientCredentials(httpx.Auth):
    """Puts a token into each request, fetched when it is first needed, anew before it ends, and once where it is
    refused all the same. The secret goes to the token's address alone.

    :param token_url: https, unless ``is_plain``.
    :param conn_id: for messages.
    :param is_plain: the catalogue itself is asked without TLS, within a network.
    :raises ConfigError: for an address or a secret that cannot be used.
    """

    requires_response_body = True

    def __init__(
        self, *, token_url: str, client_id: str, secret: str, scope: str, conn_id: str, is_plain: bool = False
    ) -> None:
        self._whose = f"connection {conn_id!r}"
        _check_address(token_url, self._whose, is_plain=is_plain)
        if not client_id or not secret:
            raise ConfigError(
                f"{self._whose}: token_url in its extra needs the client's id as login and its secret as password."
            )
        check_key(secret, f"{self._whose}: its password (the client's secret)")
        remember_secret(secret)
        self._url = token_url
        self._basic = httpx.BasicAuth(client_id, secret)
        self._form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
        self._token: str | None = None
        self._renew_at = 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Of one request to the catalogue, as httpx drives it."""
        is_fresh = self._token is None or time.monotonic() >= self._renew_at
        if is_fresh:
            yield from self._fetch()
        answer = yield self._sign(request)
        if answer.status_code == 401 and not is_fresh:  # revoked, or its clock differs from ours
            yield from self._fetch()
            yield self._sign(request)

    def _sign(self, request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _fetch(self) -> Generator[httpx.Request, httpx.Response]:
        self._token = None
        asked_at = time.monotonic()
        request = httpx.Request("POST", self._url, data=self._form, headers={"Accept": "application/json"})
        answer = yield next(self._basic.auth_flow(request))
        if answer.status_code == 429 or answer.status_code >= 500:
            raise TokenUnavailableError(f"{self._url} answered {answer.status_code}")
        if answer.status_code != 200:
            raise ConfigError(
                f"{self._url}: gives no token (answered {_describe(answer)}). Look at the login (the client's id), "
                f"the password (its secret) and, in the extra, token_url and scope of the {self._whose}."
            )
        try:
            found = msgspec.json.decode(answer.content, type=_TokenAnswer)
            lives_s = _USUAL_S if found.expires_in is None else float(found.expires_in)
        except (msgspec.DecodeError, ValueError):
            raise TokenUnavailableError(f"{self._url} answered without a token") from None
        if found.token_type.lower() != "bearer":
            raise ConfigError(
                f"{self._url}: gives tokens that are no bearer tokens, which are all that is known here."
            )
        remember_secret(found.access_token)
        check_key(found.access_token, f"{self._url}: the token that it gives")
        self._token = found.access_token
        self._renew_at = asked_at + lives_s - min(_MARGIN_S, lives_s / 10)


def _check_address(url: str, whose: str, *, is_plain: bool) -> None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no number
    except ValueError:
        parts = urlsplit("")
    schemes = ("https", "http") if is_plain else ("https",)
    if parts.scheme not in schemes or not parts.hostname or "@" in parts.netloc:
        raise ConfigError(
            f"{whose}: token_url in its extra must be an address with {' or '.join(f'{each}://' for each in schemes)} "
            "and without a password, for instance https://oauth.oclc.org/token."
        )


def _describe(answer: httpx.Response) -> str:
    try:
        code = msgspec.json.decode(answer.content, type=_Refusal).error
    except msgspec.DecodeError:
        code = ""
    return f"{answer.status_code}, {code}" if code in _TELLING else str(answer.status_code)
