"""Points of one Qdrant collection, read and written in pages: in files of this machine, or on a server by connection.

The files allow one process at a time and are held in memory whole, which is right for trying things out; where
several tasks run at once, or there are more than some 20,000 points, name a server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.connection_settings import check_conn_type
from airflow_openai_batch.recipes.qdrant.qdrant_errors import explained_store
from airflow_openai_batch.recipes.qdrant.qdrant_folder import (
    check_collection,
    find_qdrant_folder,
    make_private,
)

if TYPE_CHECKING:
    from airflow.sdk import Context
    from qdrant_client import QdrantClient, models

PAGE_POINTS = 64
"""Read and written at once: a page of transcripts of 100 KB is 6 MB."""
TIMEOUT_S = 60

PointId = int | str
"""Qdrant's: a number or a UUID."""


class Point(NamedTuple):
    """A point as it is read; ``payload`` has the fields that were asked for."""

    id: PointId
    payload: dict[str, Any]


class Neighbour(NamedTuple):
    """A point near another or near a vector."""

    id: PointId
    score: float
    """Cosine similarity: 1 for the same direction."""
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointStore:
    """Where a collection is.

    :param conn_id: a connection of type ``qdrant``: host and port, or ``url`` in its extra; the API key as password.
        Empty: files on this machine.
    :param name: of the files on this machine, for one process at a time; where they lie is not to be chosen, see
        `qdrant_folder`.
    """

    collection: str
    conn_id: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        check_collection(self.collection)
        if not self.conn_id and not self.name:
            raise ConfigError("Give a connection to Qdrant, or a name for its files on this machine.")

    @property
    def place(self) -> str:
        """The connection's id, or the folder."""
        return self.conn_id or str(find_qdrant_folder(self.name))

    def __str__(self) -> str:
        place = f"connection {self.conn_id!r}" if self.conn_id else self.place
        return f"collection {self.collection!r} ({place})"

    @contextlib.contextmanager
    def open(self) -> Iterator[Points]:
        """The collection, whether it is there or not; closed at the end, which lets the next process in.

        :raises ConfigError: if the client is not installed, or connection or folder may not be used.
        :raises StoreError: if the files are in use, or the server does not answer.
        """
        with explained_store(str(self)):
            client = self._connect()
            try:
                yield Points(client, self.collection, is_local=not self.conn_id)
            finally:
                client.close()

    def _connect(self) -> QdrantClient:
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise ConfigError(
                "Qdrant's client is not installed: pip install 'airflow-provider-openai-batch[qdrant]' "
                "on every worker."
            ) from None
        if self.conn_id:
            return QdrantClient(timeout=TIMEOUT_S, check_compatibility=False, **self._read_connection())
        folder = find_qdrant_folder(self.name)
        make_private(folder)
        return QdrantClient(path=str(folder))

    def _read_connection(self) -> dict[str, Any]:
        """What the provider's hook reads of it; a host may be an address with scheme, too."""
        from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

        check_conn_id(self.conn_id, find_giver_of(self.conn_id, "qdrant_conn_id"))
        try:
            found = BaseHook.get_connection(self.conn_id)
        except AirflowNotFoundException:
            raise ConfigError(
                f"connection {self.conn_id!r} does not exist. Create it with type Qdrant, or set "
                f"AIRFLOW_CONN_{self.conn_id.upper()}, or leave it empty for files on this machine."
            ) from None
        check_conn_type(self.conn_id, found.conn_type, "qdrant")
        extra = found.extra_dejson
        url = extra.get("url") or (
            found.host if urlsplit(found.host or "").scheme in ("http", "https") else None
        )
        place = {"url": url} if url else {"host": found.host or "localhost", "https": extra.get("https")}
        return {
            **place,
            "port": found.port or (urlsplit(url or "").port or 6333),
            "api_key": found.password or None,
            "prefix": extra.get("prefix") or None,
            "grpc_port": extra.get("grpc_port") or 6334,
            "prefer_grpc": bool(extra.get("prefer_grpc") or extra.get("prefer_gprc")),  # sic, in the provider
        }


def find_store(context: Context) -> PointStore:
    """The collection that the form names, in ``collection`` and ``qdrant_conn_id``; files on this machine are called
    as the DAG is."""
    params = context["params"]
    return PointStore(
        collection=params["collection"],
        conn_id=params["qdrant_conn_id"] or "",
        name=context["dag"].dag_id,
    )


class Points:
    """One collection of an open client."""

    def __init__(self, client: QdrantClient, collection: str, *, is_local: bool) -> None:
        self._client = client
        self.is_local = is_local
        self._collection = collection

    def exists(self) -> bool:
        return self._client.collection_exists(self._collection)

    def create(self, dimensions: int | None, *, keywords: Sequence[str] = ()) -> None:
        """Create the collection.

        :param dimensions: of the vectors, compared by cosine; None for points without any.
        :param keywords: keys of the payload that a server should index, since filters name them.
        """
        from qdrant_client import models

        vectors: Any = (
            {}
            if dimensions is None
            else models.VectorParams(size=dimensions, distance=models.Distance.COSINE)
        )
        self._client.create_collection(self._collection, vectors_config=vectors)
        for key in () if self.is_local else keywords:
            self._client.create_payload_index(self._collection, key, models.PayloadSchemaType.KEYWORD)

    def dimensions(self) -> int | None:
        """Of the unnamed vector; None where the collection has none."""
        vectors = self._client.get_collection(self._collection).config.params.vectors
        size = getattr(vectors, "size", None)
        return None if size is None else int(size)

    def count(self, where: models.Filter | None = None) -> int:
        return self._client.count(self._collection, count_filter=where, exact=True).count

    def read_pages(
        self, fields: Sequence[str] | None, where: models.Filter | None = None, *, points: int = PAGE_POINTS
    ) -> Iterator[list[Point]]:
        """All that match, in the order of ids, a page at a time, with these fields or all."""
        offset: Any = None
        while True:
            found, offset = self._client.scroll(
                self._collection,
                scroll_filter=where,
                limit=points,
                offset=offset,
                with_payload=True if fields is None else list(fields),
                with_vectors=False,
            )
            if found:
                yield [Point(_plain_id(each.id), each.payload or {}) for each in found]
            if offset is None:
                return

    def fetch(
        self, ids: Sequence[PointId], fields: Sequence[str] | None = None
    ) -> dict[PointId, dict[str, Any]]:
        """Payloads of those among them that are there: these fields, or all."""
        wanted = True if fields is None else list(fields)
        found = self._client.retrieve(self._collection, list(ids), with_payload=wanted, with_vectors=False)
        return {_plain_id(each.id): each.payload or {} for each in found}

    def set_payloads(self, payloads: Mapping[PointId, dict[str, Any]]) -> None:
        """Set these keys of each point, whatever else its payload has; in one call."""
        from qdrant_client import models

        if payloads:
            self._client.batch_update_points(
                self._collection,
                [
                    models.SetPayloadOperation(
                        set_payload=models.SetPayload(payload=payload, points=[number])
                    )
                    for number, payload in payloads.items()
                ],
                wait=True,
            )

    def write(
        self,
        ids: Sequence[PointId],
        payloads: Sequence[dict[str, Any]],
        vectors: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """Put whole points in place of those with the same ids."""
        from qdrant_client import models

        self._client.upsert(
            self._collection,
            [
                models.PointStruct(
                    id=number, payload=payload, vector={} if vectors is None else list(vectors[at])
                )
                for at, (number, payload) in enumerate(zip(ids, payloads, strict=True))
            ],
            wait=True,
        )

    def delete(self, ids: Sequence[PointId]) -> None:
        from qdrant_client import models

        if ids:
            self._client.delete(self._collection, models.PointIdsList(points=list(ids)), wait=True)

    def find_nearest(
        self,
        near: Sequence[float] | PointId,
        fields: Sequence[str],
        *,
        limit: int,
    ) -> list[Neighbour]:
        """The points nearest to a vector, or to a point (which is not among them)."""
        query = near if isinstance(near, (int, str)) else list(near)
        found = self._client.query_points(
            self._collection, query=query, limit=limit, with_payload=list(fields)
        )
        return [Neighbour(_plain_id(each.id), each.score, each.payload or {}) for each in found.points]


def _plain_id(found: Any) -> PointId:
    return found if isinstance(found, int) else str(found)
