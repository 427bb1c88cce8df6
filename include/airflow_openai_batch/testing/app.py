"""The API over HTTP: OpenAI's routes, keys and errors, on an `Emulator`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
from python_multipart.exceptions import MultipartParseError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from airflow_openai_batch.testing.interference import Interference
from airflow_openai_batch.testing.refusals import ApiError, missing
from airflow_openai_batch.testing.requests import BATCH_ENDPOINTS
from airflow_openai_batch.testing.uploads import UploadReader

if TYPE_CHECKING:
    import threading

    from starlette.types import ASGIApp, Receive, Scope, Send

    from airflow_openai_batch.testing.emulator import Emulator

JSON = dict[str, Any]

_PIECE_BYTES = 2**18
_MODELS = (
    "gpt-6-luna", "gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-astra", "gpt-5.4-mini",
    "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-5", "gpt-5-mini", "gpt-5-nano",
    "o3", "o4-mini", "text-embedding-3-small", "text-embedding-3-large", "omni-moderation-latest", "gpt-image-2",
    "gpt-audio",
)  # fmt: skip


class Api:
    """The routes. Every call of the emulator happens under ``lock``, off the event loop."""

    def __init__(self, emulator: Emulator, lock: threading.RLock, wake: Callable[[], None]) -> None:
        self.emulator = emulator
        self._lock = lock
        self._wake = wake
        self._requests = 0

    def routes(self) -> list[Route]:
        by_path: dict[str, dict[str, Any]] = {
            "/v1/files": {"POST": self._upload, "GET": self._list_files},
            "/v1/files/{file_id}": {"GET": self._get_file, "DELETE": self._delete_file},
            "/v1/files/{file_id}/content": {"GET": self._get_content},
            "/v1/batches": {"POST": self._create_batch, "GET": self._list_batches},
            "/v1/batches/{batch_id}": {"GET": self._get_batch},
            "/v1/batches/{batch_id}/cancel": {"POST": self._cancel_batch},
            "/v1/videos/{video_id}": {"GET": self._get_video},
            "/v1/videos/{video_id}/content": {"GET": self._get_video_content},
            "/v1/models": {"GET": self._list_models},
            "/v1/models/{model}": {"GET": self._get_model},
        }
        by_path |= {endpoint: {"POST": self._call_model} for endpoint in BATCH_ENDPOINTS}
        return [
            Route(path, self._guarded(handler), methods=[method])
            for path, handlers in by_path.items()
            for method, handler in handlers.items()
        ]

    def _guarded(self, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            try:
                self._check_key(request)
                response: Response = await handler(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody is there to read it
            except ApiError as error:
                response = _json(error.body(), status=error.status, headers=error.headers)
            with self._lock:
                self._requests += 1
                number = self._requests
            response.headers["x-request-id"] = f"req_{number:032x}"
            response.headers["openai-version"] = "2020-10-01"
            response.headers["openai-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
            return response

        return endpoint

    def _check_key(self, request: Request) -> None:
        settings = self.emulator.settings
        settings.rules.check_key(request.headers, settings.api_keys)

    async def _locked(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            with self._lock:
                return call(*args, **kwargs)

        try:
            return await run_in_threadpool(run)
        finally:
            self._wake()

    # -- files ---------------------------------------------------------------------------------

    async def _upload(self, request: Request) -> Response:
        emulator = self.emulator
        with self._lock:
            file_id = emulator.new_id("file-")
        try:
            with emulator.files.writer(file_id) as writer:
                upload = UploadReader(writer)
                await _receive(request, upload)
            if upload.filename is None:
                raise missing("file")
        except BaseException:
            emulator.files.discard(file_id)
            raise
        made = await self._locked(
            emulator.finish_upload,
            file_id,
            filename=upload.filename,
            purpose=upload.fields.get("purpose"),
            expires_after=upload.expires_after,
        )
        return _json(made)

    async def _list_files(self, request: Request) -> Response:
        query = request.query_params
        page = await self._locked(
            self.emulator.list_files,
            after=query.get("after"),
            limit=_number(query.get("limit"), 10_000),
            order=query.get("order", "desc"),
            purpose=query.get("purpose"),
        )
        return _json(page)

    async def _get_file(self, request: Request) -> Response:
        return _json(await self._locked(self.emulator.get_file, request.path_params["file_id"]))

    async def _delete_file(self, request: Request) -> Response:
        return _json(await self._locked(self.emulator.delete_file, request.path_params["file_id"]))

    async def _get_content(self, request: Request) -> Response:
        content, file = await self._locked(self.emulator.open_content, request.path_params["file_id"])
        start, end = 0, file.size
        asked = request.headers.get("range") if self.emulator.settings.ranges else None
        if asked is not None:
            start, end = _range(asked, file.size)
        headers = {
            "content-length": str(end - start),
            "content-disposition": f'attachment; filename="{file.id}"',
        }
        if asked is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
        return _Content(
            content,
            _pieces(content, start, end),
            status_code=206 if asked is not None else 200,
            headers=headers,
            media_type="application/octet-stream",
        )

    # -- batches -------------------------------------------------------------------------------

    async def _create_batch(self, request: Request) -> Response:
        return _json(await self._locked(self.emulator.create_batch, await _body(request)))

    async def _get_batch(self, request: Request) -> Response:
        return _json(await self._locked(self.emulator.get_batch, request.path_params["batch_id"]))

    async def _cancel_batch(self, request: Request) -> Response:
        return _json(await self._locked(self.emulator.cancel_batch, request.path_params["batch_id"]))

    async def _list_batches(self, request: Request) -> Response:
        query = request.query_params
        limit = _number(query.get("limit"), 20)
        return _json(await self._locked(self.emulator.list_batches, after=query.get("after"), limit=limit))

    # -- videos --------------------------------------------------------------------------------

    async def _get_video(self, request: Request) -> Response:
        return _json(await self._locked(self.emulator.get_video, request.path_params["video_id"]))

    async def _get_video_content(self, request: Request) -> Response:
        content = await self._locked(self.emulator.read_video, request.path_params["video_id"])
        return Response(content, media_type="video/mp4")

    # -- models --------------------------------------------------------------------------------

    async def _call_model(self, request: Request) -> Response:
        body = await _body(request)
        made, headers = await self._locked(self.emulator.call, request.url.path, body)
        return _json(made, headers=headers)

    async def _list_models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [_model(name) for name in _MODELS]})

    async def _get_model(self, request: Request) -> Response:
        return _json(_model(request.path_params["model"]))


class _Content(StreamingResponse):
    """A file's content; the file is closed also where the connection was cut."""

    def __init__(self, content: BinaryIO, pieces: Iterator[bytes], **kwargs: Any) -> None:
        super().__init__(pieces, **kwargs)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._content.close()


def build_app(
    emulator: Emulator, lock: threading.RLock, wake: Callable[[], None], extra_routes: list[Route]
) -> ASGIApp:
    """The application, with the script's HTTP faults around it.

    :param wake: called after each call: there may be work for the background.
    """
    api = Api(emulator, lock, wake)
    app = Starlette(
        routes=[*api.routes(), *extra_routes], exception_handlers={404: _not_found, 405: _not_found}
    )

    def strike(method: str, path: str) -> Any:
        with lock:
            return emulator.script.strike_http(method, path)

    def record(route: str, status: int | str) -> None:
        with lock:
            emulator.books.record_call(route, status)

    def latency_s(path: str) -> float:
        settings = emulator.settings
        return settings.latency_s + (settings.realtime_latency_s if path in BATCH_ENDPOINTS else 0.0)

    return _Addressed(emulator, Interference(app, strike=strike, record=record, latency_s=latency_s))


class _Addressed:
    """Where the server that is played has its addresses: below, all is at ``/v1``."""

    def __init__(self, emulator: Emulator, app: ASGIApp) -> None:
        self._emulator = emulator
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = self._emulator.settings.rules.path
        if scope["type"] == "http" and own != "/v1":
            path = scope["path"]
            if path.startswith(f"{own}/"):
                scope = {**scope, "path": "/v1" + path.removeprefix(own)}
            elif path.startswith("/v1/"):
                scope = {**scope, "path": "/nothing" + path}
        await self._app(scope, receive, send)


async def _not_found(request: Request, _: Exception) -> Response:
    error = ApiError(404, f"Invalid URL ({request.method} {request.url.path})")
    return _json(error.body(), status=404)


async def _receive(request: Request, upload: UploadReader) -> None:
    parser = upload.parser(request.headers.get("content-type", ""))
    try:
        async for chunk in request.stream():
            if chunk:
                parser.write(chunk)
        parser.finalize()
    except MultipartParseError:
        raise ApiError(400, "Could not parse multipart form.") from None


async def _body(request: Request) -> Any:
    try:
        return msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using "
            "your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid "
            "JSON.)",
        ) from None


def _json(body: JSON, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(body), status_code=status, headers=headers, media_type="application/json"
    )


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise ApiError(400, "Invalid type for 'limit': expected an integer.", param="limit") from None


def _range(header: str, size: int) -> tuple[int, int]:
    first, _, last = header.removeprefix("bytes=").partition("-")
    try:
        start = int(first) if first else size - int(last)
        end = int(last) + 1 if first and last else size
    except ValueError:
        start, end = 0, size
    if not 0 <= start < size:
        raise ApiError(
            416, "The requested range is not satisfiable.", headers={"content-range": f"bytes */{size}"}
        )
    return start, min(end, size)


def _pieces(content: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    content.seek(start)
    while start < end:
        piece = content.read(min(_PIECE_BYTES, end - start))
        if not piece:
            return
        start += len(piece)
        yield piece


def _model(name: str) -> JSON:
    created = 1_700_000_000 + int(hashlib.blake2b(name.encode(), digest_size=3).hexdigest(), 16)
    return {"id": name, "object": "model", "created": created, "owned_by": "system"}
