"""Requests that no page and no program of ours sends: answered before anything looks at them.

A NUL in a name is an error in file systems and in PostgreSQL, a name of a megabyte one in most, and a stranger may send
both. What is left then is text, of a length that names have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MOST_PATH_BYTES = 2_000
MOST_QUERY_BYTES = 8_000
MOST_NAME_CHARS = 250
"""Airflow's own bound for the ids of DAGs, runs and tasks."""
MOST_NUMBER = 2**31 - 1
"""Of pages and map indexes: what every database takes."""
TEXT = r"^[^\x00-\x1f\x7f]*$"


class OddRequests:
    """ASGI middleware that refuses addresses which cannot be meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _find_refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, why = refusal
        await JSONResponse({"detail": why}, status_code=status)(scope, receive, send)


def _find_refusal(scope: Scope) -> tuple[int, str] | None:
    path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    query: bytes = scope.get("query_string") or b""
    if len(path) > MOST_PATH_BYTES or len(query) > MOST_QUERY_BYTES:
        return 414, "The address is too long."
    for part in (path, query):
        said = unquote_to_bytes(part)
        if any(byte < 0x20 or byte == 0x7F for byte in said):
            return 400, "The address holds control characters."
        try:
            said.decode()
        except UnicodeDecodeError:
            return 400, "The address is no UTF-8."
    return None
