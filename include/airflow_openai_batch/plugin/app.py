"""The app that Airflow's API server mounts at ``/openai-batch``.

It has no route that answers a stranger: pages, their files, the API and whatever else somebody may try below the
prefix need a login; webhooks check OpenAI's signature.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse

from airflow_openai_batch.errors import OpenAIBatchError
from airflow_openai_batch.plugin import access, actions, api
from airflow_openai_batch.plugin.odd_requests import OddRequests
from airflow_openai_batch.plugin.webhooks import routes

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
"""Said here, since what Python knows of them depends on the machine, and browsers refuse modules of another type."""

log = logging.getLogger(__name__)
pages = APIRouter()


@cache
def make_app() -> FastAPI:
    """One for the process, without the descriptions of itself that FastAPI would show to anyone."""
    app = FastAPI(title="OpenAI batches", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(RequestValidationError, _tell_bad_request)
    app.add_exception_handler(OpenAIBatchError, _tell_trouble)
    app.add_exception_handler(Exception, _tell_defect)
    app.add_middleware(OddRequests)
    app.include_router(routes.router)
    for router in (api.router, actions.router, pages):
        app.include_router(router, dependencies=[Depends(access.requires_authenticated())])
    return app


@pages.get("/static/{path:path}")
def get_static(path: str) -> FileResponse:
    """Files of the page; asked for again where they have changed, which an upgrade does."""
    try:
        place = (STATIC / path).resolve()
        found = place.is_relative_to(STATIC.resolve()) and place.is_file()
    except (OSError, ValueError):  # a name that no file can have
        found = False
    if not found:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(
        place,
        media_type=MEDIA_TYPES.get(place.suffix, "application/octet-stream"),
        headers={"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"},
    )


@pages.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def get_nothing(path: str) -> None:
    """Strangers learn from no address whether there is something."""
    raise HTTPException(404, "There is no such page.")


def _tell_bad_request(_: Request, error: Any) -> JSONResponse:
    """Which parameter, and why; never what was sent."""
    said = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())[:500]
    return JSONResponse({"detail": said}, status_code=422)


def _tell_trouble(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)[:500]}, status_code=502)


def _tell_defect(_: Request, error: Exception) -> JSONResponse:
    """What it was goes to the log alone, where Starlette writes it."""
    said = f"That did not work ({type(error).__name__}); the API server's log says why."
    return JSONResponse({"detail": said}, status_code=500)
