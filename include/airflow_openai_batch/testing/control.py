"""The control API under ``/emulator``: script, clock, settings and books, for other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    import threading

    from starlette.requests import Request

    from airflow_openai_batch.testing.emulator import Emulator

JSON = dict[str, Any]


class Control:
    """Routes without a key: the server listens on loopback."""

    def __init__(self, emulator: Emulator, lock: threading.RLock) -> None:
        self._emulator = emulator
        self._lock = lock

    def routes(self) -> list[Route]:
        return [
            Route("/emulator/health", self._route(self._health), methods=["GET"]),
            Route("/emulator/script", self._route(self._add_rule), methods=["POST"]),
            Route("/emulator/script", self._route(self._list_rules), methods=["GET"]),
            Route("/emulator/script", self._route(self._remove_rules), methods=["DELETE"]),
            Route("/emulator/settings", self._route(self._configure), methods=["POST"]),
            Route("/emulator/settings", self._route(self._settings), methods=["GET"]),
            Route("/emulator/clock", self._route(self._read_clock), methods=["GET"]),
            Route("/emulator/clock", self._route(self._set_clock), methods=["POST"]),
            Route("/emulator/queue", self._route(self._occupy_queue), methods=["POST"]),
            Route("/emulator/books", self._route(self._books), methods=["GET"]),
            Route("/emulator/books/custom_ids", self._count_answers, methods=["GET"]),
            Route("/emulator/books/bodies", self._count_answers, methods=["GET"]),
            Route("/emulator/kept/{job_key:path}", self._route(self._kept), methods=["GET"]),
            Route("/emulator/reset", self._route(self._reset), methods=["POST"]),
        ]

    def _route(self, handler: Callable[[Request, JSON], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            raw = await request.body()
            try:
                fields = msgspec.json.decode(raw, type=dict[str, Any]) if raw else {}
                with self._lock:
                    made = handler(request, fields)
            except (ValueError, TypeError, KeyError, msgspec.MsgspecError) as error:
                return _json({"error": str(error)}, 400)
            return _json(made)

        return endpoint

    def _health(self, request: Request, fields: JSON) -> JSON:
        return {"ok": True}

    def _add_rule(self, request: Request, fields: JSON) -> JSON:
        return {"id": self._emulator.script.add(fields)}

    def _list_rules(self, request: Request, fields: JSON) -> JSON:
        return {"rules": [rule.to_json() for rule in self._emulator.script.rules]}

    def _remove_rules(self, request: Request, fields: JSON) -> JSON:
        self._emulator.script.remove(request.query_params.get("id"))
        return {}

    def _configure(self, request: Request, fields: JSON) -> JSON:
        for name in ("api_keys", "models"):
            if isinstance(fields.get(name), list):
                fields[name] = frozenset(fields[name]) if name == "api_keys" else tuple(fields[name])
        self._emulator.configure(**fields)
        return self._settings(request, {})

    def _settings(self, request: Request, fields: JSON) -> JSON:
        settings = self._emulator.settings
        shown = {
            name: getattr(settings, name) for name in settings.__dataclass_fields__ if name != "api_keys"
        }
        return {**shown, "api_keys": None if settings.api_keys is None else len(settings.api_keys)}

    def _read_clock(self, request: Request, fields: JSON) -> JSON:
        return {"now": self._emulator.clock.now()}

    def _set_clock(self, request: Request, fields: JSON) -> JSON:
        clock: Any = self._emulator.clock
        if "speed" in fields:
            clock.run(float(fields["speed"]))
        if "advance_s" in fields:
            clock.advance(float(fields["advance_s"]))
        return {"now": clock.now()}

    def _occupy_queue(self, request: Request, fields: JSON) -> JSON:
        self._emulator.occupy_queue(**fields)
        return {"enqueued": dict(self._emulator.books.enqueued)}

    def _books(self, request: Request, fields: JSON) -> JSON:
        emulator = self._emulator
        emulator.batches.settle()
        alive = emulator.files.alive
        return {
            **emulator.books.to_json(),
            "batches": {batch.id: batch.status for batch in emulator.batches},
            "files": [
                {"id": f.id, "filename": f.filename, "purpose": f.purpose, "bytes": f.size} for f in alive
            ],
        }

    def _kept(self, request: Request, fields: JSON) -> JSON:
        return {"batches": self._emulator.kept_batches(request.path_params["job_key"])}

    def _reset(self, request: Request, fields: JSON) -> JSON:
        self._emulator.reset()
        return {}

    async def _count_answers(self, request: Request) -> Response:
        """Lines of ``[custom_id or body key, good answers]``; ``?min=2`` gives those paid more than once."""
        least = int(request.query_params.get("min", "1"))
        books = self._emulator.books
        counter: Any = books.good_by_body if request.url.path.endswith("bodies") else books.good_by_custom_id
        with self._lock:
            found = [pair for pair in counter.items() if pair[1] >= least]
        return StreamingResponse(_lines(found), media_type="application/jsonl")


def _lines(pairs: list[tuple[str | int, int]]) -> Iterator[bytes]:
    for start in range(0, len(pairs), 1_000):
        yield b"".join(msgspec.json.encode(pair) + b"\n" for pair in pairs[start : start + 1_000])


def _json(body: JSON, status: int = 200) -> Response:
    encoded = msgspec.json.encode(body, enc_hook=str)
    return Response(encoded, status_code=status, media_type="application/json")
