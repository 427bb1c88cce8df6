"""Where candidates for a CD come from: a library's catalogue over HTTP, or a file of records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
from airflow.providers.common.compat.sdk import BaseHook

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import ConfigError, OpenAIBatchError
from airflow_openai_batch.openai_api.connection_settings import check_conn_type
from airflow_openai_batch.recipes.cds.cd_covers import FIELDS, Cover, score_match
from airflow_openai_batch.recipes.cds.file_catalogue import FileCatalogue
from airflow_openai_batch.server_words import remember_connection

if TYPE_CHECKING:
    from types import TracebackType


MOST_CANDIDATES = 5
"""A model that judges more of them judges worse, and each costs tokens."""
LEAST_SCORE = 0.3
_TIMEOUT_S = 30.0
_TRIES = 4


class Candidate(NamedTuple):
    """A record of the catalogue that may be the CD."""

    id: str
    cover: Cover
    score: float
    """See `score_match`."""


class Catalogue(Protocol):
    """What can be searched."""

    def search(self, read: Cover) -> Iterator[tuple[str, Cover]]:
        """Id and record of whatever may fit, in any order."""

    def __enter__(self) -> Catalogue: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CatalogueError(OpenAIBatchError):
    """The catalogue did not answer as it should; worth another try."""

    permanent = False


def find_candidates(catalogue: Catalogue, read: Cover) -> list[Candidate]:
    """The best few, best first; none where title and artist are unknown."""
    if read.title is None and read.artist is None:
        return []
    found: dict[str, Candidate] = {}
    for identity, record in catalogue.search(read):
        score = score_match(read, record)
        if score >= LEAST_SCORE:
            found.setdefault(identity, Candidate(identity, record, score))
    return sorted(found.values(), key=lambda each: (-each.score, each.id))[:MOST_CANDIDATES]


def open_catalogue(conn_id: str, file_uri: str, columns: Mapping[str, str] | None = None) -> Catalogue:
    """The catalogue behind an HTTP connection, or, without one, a file of records.

    :param conn_id: an Airflow connection of type HTTP; see `HttpCatalogue`.
    :param file_uri: of a table of records; see `FileCatalogue`.
    :param columns: of that, by the names that they have here.
    :raises ConfigError: if neither can be used.
    """
    if conn_id.strip().lower() not in ("", "none"):
        return HttpCatalogue.from_connection(conn_id.strip())
    return FileCatalogue.read(file_uri, find_giver_of(file_uri, "catalogue_uri"), columns or {})


@dataclass(slots=True)
class HttpCatalogue:
    """A catalogue that answers a GET with JSON. The connection's extra says how; all of it is optional:

    * ``path``: below the connection's host; default ``/search``.
    * ``query``: parameters, in which ``{title}``, ``{artist}``, ``{year}``, ``{label}`` and ``{catalogue_number}``
      stand for what was read; default ``{"title": "{title}", "artist": "{artist}"}``. One with an unknown is left out.
    * ``items``: where the records are in the answer; default ``results``. Dots lead inward.
    * ``fields``: where ``id`` and the fields of `Cover` are in a record; by default under these names.
    * ``requests_per_second``: default 5.
    * ``headers``: for instance a User-Agent with an address, which public catalogues ask for.

    * ``token_url`` and ``scope``: login and password are the id and the secret of an OAuth client, for which tokens
      come from there; see `ClientCredentials`. For OCLC ``https://oauth.oclc.org/token`` and the key's scopes.

    Otherwise login and password become HTTP basic authentication, a password alone a bearer token.
    """

    base_url: str
    path: str = "/search"
    query: Mapping[str, str] = field(default_factory=lambda: {"title": "{title}", "artist": "{artist}"})
    items: str = "results"
    fields: Mapping[str, str] = field(default_factory=dict)
    requests_per_second: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token_url: str = ""
    scope: str = ""
    conn_id: str = ""
    login: str = ""
    password: str = field(default="", repr=False)
    _client: Any = None
    _next_at: float = 0.0

    @classmethod
    def from_connection(cls, conn_id: str) -> HttpCatalogue:
        """:raises ConfigError: if the connection says something that cannot be used."""
        check_conn_id(conn_id, find_giver_of(conn_id, "catalogue_conn_id"))
        connection = BaseHook.get_connection(conn_id)
        check_conn_type(conn_id, connection.conn_type, "http")
        host = connection.host or ""
        if "://" not in host:
            host = f"{connection.schema or 'https'}://{host}"
        if connection.port:
            host = f"{host.rstrip('/')}:{connection.port}"
        extra = connection.extra_dejson
        known = ("path", "query", "items", "fields", "requests_per_second", "headers", "token_url", "scope")
        if unknown := sorted(extra.keys() - set(known)):
            raise ConfigError(
                f"connection {conn_id!r}: {unknown[0]!r} in its extra is not known; there are {', '.join(known)}."
            )
        remember_connection(connection.password, extra.get("headers"))
        path = extra.get("path", "/")
        if not isinstance(path, str) or not path.startswith("/"):  # it could name another host
            raise ConfigError(f"connection {conn_id!r}: path in its extra must begin with a slash.")
        try:
            return cls(
                base_url=host.rstrip("/"),
                conn_id=conn_id,
                login=connection.login or "",
                password=connection.password or "",
                **extra,
            )
        except TypeError as error:
            raise ConfigError(f"connection {conn_id!r}: its extra cannot be used ({error}).") from None

    def search(self, read: Cover) -> Iterator[tuple[str, Cover]]:
        """One call.

        :raises CatalogueError: if there is no answer after some tries, or none that can be read.
        """
        found = self._get(read)
        for part in self.items.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, list):
            raise CatalogueError(f"{self.base_url}{self.path}: its answer has no list under {self.items!r}.")
        for record in found:
            identity = _dig(record, self.fields.get("id", "id"))
            if identity is not None:
                values = {name: _dig(record, self.fields.get(name, name)) for name in FIELDS}
                yield str(identity), Cover.from_record(values)

    def _get(self, read: Cover) -> Any:
        import httpx

        from airflow_openai_batch.recipes.cds.client_credentials import TokenUnavailableError

        where = f"{self.base_url}{self.path}"
        for attempt in range(_TRIES):
            self._wait()
            try:
                answer = self._open().get(where, params=_fill(self.query, read))
            except httpx.HTTPError as error:
                if attempt + 1 == _TRIES:
                    raise CatalogueError(f"{where}: cannot be reached ({_describe(error)}).") from None
                if isinstance(error, TokenUnavailableError):
                    self._next_at = time.monotonic() + 2.0**attempt
                continue
            if answer.status_code in (401, 403, 404):
                raise ConfigError(
                    f"{where}: answered {answer.status_code}. Look at the connection's host, path and password."
                )
            if answer.status_code == 200:
                try:
                    return msgspec.json.decode(answer.content)
                except msgspec.DecodeError:
                    raise CatalogueError(f"{where}: its answer is no JSON.") from None
            self._next_at = time.monotonic() + min(60.0, _read_retry_after(answer.headers, attempt))
        raise CatalogueError(f"{where}: answered {answer.status_code} {_TRIES} times.")

    def _open(self) -> Any:
        import httpx

        if self._client is None:
            headers = {"Accept": "application/json", **self.headers}
            if self.password and not self.login and not self.token_url:
                headers["Authorization"] = f"Bearer {self.password}"
            self._client = httpx.Client(timeout=_TIMEOUT_S, headers=headers, auth=self._make_auth())
        return self._client

    def _make_auth(self) -> Any:
        from airflow_openai_batch.recipes.cds.client_credentials import ClientCredentials

        if not self.token_url:
            return (self.login, self.password) if self.login else None
        return ClientCredentials(
            token_url=self.token_url,
            client_id=self.login,
            secret=self.password,
            scope=self.scope,
            conn_id=self.conn_id,
            is_plain=self.base_url.startswith("http://"),
        )

    def _wait(self) -> None:
        """Until the next call is due."""
        now = time.monotonic()
        if self._next_at > now:
            time.sleep(self._next_at - now)
        self._next_at = max(now, self._next_at) + 1 / self.requests_per_second

    def __enter__(self) -> HttpCatalogue:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()


def _describe(error: Exception) -> str:
    """Its kind; of our own also its words."""
    is_own = type(error).__module__.startswith(__name__.partition(".")[0])
    return str(error) if is_own else type(error).__name__


def _fill(query: Mapping[str, str], read: Cover) -> dict[str, str]:
    filled = {}
    for name, template in query.items():
        named = [each for each in FIELDS if f"{{{each}}}" in template]
        values = {each: getattr(read, each) for each in named}
        if None in values.values():
            continue
        text = template
        for each, value in values.items():
            text = text.replace(f"{{{each}}}", str(value))
        filled[name] = text
    return filled


def _dig(record: Any, path: str) -> Any:
    """``artist-credit.0.name`` of a record."""
    for part in path.split("."):
        if isinstance(record, dict):
            record = record.get(part)
        elif isinstance(record, list) and part.isdigit() and int(part) < len(record):
            record = record[int(part)]
        else:
            return None
    return record if isinstance(record, (str, int, float)) else None


def _read_retry_after(headers: Mapping[str, str], attempt: int) -> float:
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return 2.0**attempt
