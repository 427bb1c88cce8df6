"""``POST /openai-batch/webhooks/{conn_id}``: OpenAI says that a batch is over.

There is no login: the signature is the proof, made with the secret that OpenAI shows once when the endpoint is created
and that the connection's extra has as ``webhook_secret``. Connections that ``[openai_batch] webhook_conn_ids`` does not
name (unset: all but ``openai_default``) get no further than their name. Whoever cannot sign learns nothing: a
connection that does not exist, one without a secret and a wrong signature get the same answer.

OpenAI waits for a few seconds, takes anything but a 2xx for a failure, and delivers at least once, for up to 72 hours
(https://platform.openai.com/docs/guides/webhooks). So the answer comes before the work, and of the content only the
batch's id is used.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import logging
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai  # a second, which only the API server pays, when it starts: OpenAI waits for the first answer, too
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from fastapi import APIRouter, HTTPException, Request
from starlette.requests import ClientDisconnect

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook
from airflow_openai_batch.plugin.webhooks.secrets import WebhookSecrets, find_receivers
from airflow_openai_batch.plugin.webhooks.wakeups import Wakes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openai.resources.webhooks.webhooks import Webhooks

log = logging.getLogger(__name__)

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

SECRET = "webhook_secret"  # noqa: S105 - its name in the connection's extra, which Airflow masks for it
MOST_BYTES = 256 * 1024
"""An event has 200 bytes."""
BODY_WITHIN_S = 10.0
FRESH_S = 300.0
"""The client refuses what is older, whatever its signature: no secret need be looked up for it."""
TELL_EVERY_S = 60.0
_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
_ENDS = frozenset({"batch.completed", "batch.failed", "batch.expired", "batch.cancelled"})
_MISMATCH = "The given webhook signature does not match the expected signature"
"""The client's words."""
_NOBODY = secrets.token_hex(32)
"""Signs for connections without a secret: they are refused at the same pace."""

_told_at = {True: -TELL_EVERY_S, False: -TELL_EVERY_S}
"""When a refusal was told last, of receivers and of others: a flood to invented names hides no real mistake."""


@router.post("/{conn_id}")
async def receive(conn_id: str, request: Request) -> dict[str, str]:
    """Take an event of OpenAI's, signed with the secret of this connection."""
    if missing := [name for name in _HEADERS if name not in request.headers]:
        raise HTTPException(400, f"The header {missing[0]} is missing: this is no webhook of OpenAI's.")
    if conn_id not in find_receivers():
        _tell_refused(conn_id, "[openai_batch] webhook_conn_ids does not list it", is_receiver=False)
        raise HTTPException(401, f"{_MISMATCH}.")
    body = await _read_body(request)
    reading = functools.partial(_read_event, conn_id, body, dict(request.headers))
    kind, batch_id = await asyncio.get_running_loop().run_in_executor(_find_threads(), reading)
    if not isinstance(kind, str) or kind not in _ENDS:
        return {"status": "ignored"}
    if not isinstance(batch_id, str) or not batch_id.startswith("batch_") or len(batch_id) > 200:
        raise HTTPException(400, "The event names no batch.")
    if not _find_wakes().take(request.headers["webhook-id"], conn_id, batch_id):
        raise HTTPException(503, "Too many events at once.", headers={"Retry-After": "60"})
    return {"status": "taken"}


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise HTTPException(413, f"An event has at most {MOST_BYTES:,} bytes.")
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(400, "The content did not arrive.") from None
    return bytes(body)


def _read_event(conn_id: str, body: bytes, headers: Mapping[str, str]) -> tuple[Any, Any]:
    """Type and batch id of an event whose signature is good. In a thread: it may read the connection."""
    secret = _secrets.find(conn_id) if _is_fresh(headers["webhook-timestamp"]) else None
    try:
        event = _verifier().unwrap(body, headers, secret=secret or _NOBODY)
    except openai.InvalidWebhookSignatureError as error:
        _tell_refused(conn_id, str(error) if secret else _NO_SECRET)
        raise HTTPException(401, f"{error}.") from None
    except json.JSONDecodeError:  # comes after the signature
        raise HTTPException(400, "The event is no JSON.") from None
    except (ValueError, TypeError) as error:  # odd characters in the content, a signature or our secret
        odd = f"{type(error).__name__}, is {SECRET} as OpenAI showed it?"
        _tell_refused(conn_id, odd if secret else _NO_SECRET)
        raise HTTPException(401, f"{_MISMATCH}.") from None
    return getattr(event, "type", None), getattr(getattr(event, "data", None), "id", None)


@functools.cache
def _verifier() -> Webhooks:
    """It signs nothing and asks nobody, so the key does not matter."""
    return openai.OpenAI(api_key="none").webhooks


@functools.cache
def _find_threads() -> ThreadPoolExecutor:
    """Apart from those in which tasks are woken, since anybody can keep these busy; not before the process forks."""
    return ThreadPoolExecutor(2, thread_name_prefix="openai-batch-webhooks")


def _is_fresh(timestamp: str) -> bool:
    try:
        return abs(time.time() - int(timestamp)) <= FRESH_S
    except ValueError:
        return False


def _read_secret(conn_id: str) -> str | None:
    try:
        secret = OpenAIBatchHook.get_connection(conn_id).extra_dejson.get(SECRET)
    except (AirflowNotFoundException, ConfigError):
        return None
    return secret.strip() if isinstance(secret, str) and not _is_empty(secret.strip()) else None


def _is_empty(secret: str) -> bool:
    """Whether the client would check with an empty key: ``whsec_...`` as documents have it holds no letter of base64,
    and anybody can sign with nothing."""
    try:
        return not (base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret)
    except ValueError:  # the client says so
        return False


_secrets = WebhookSecrets(_read_secret)


_NO_SECRET = (
    f"there is no such connection of type OpenAI, or no {SECRET} in its extra, or none but a placeholder"
)


def _tell_refused(conn_id: str, why: str, *, is_receiver: bool = True) -> None:
    """For whoever sets it up; one line a minute, since anybody can make us write it."""
    if time.monotonic() < _told_at[is_receiver] + TELL_EVERY_S:
        return
    _told_at[is_receiver] = time.monotonic()
    log.warning("A webhook for connection %.100r was refused: %s.", conn_id, why)


_wakes: dict[asyncio.AbstractEventLoop, Wakes] = {}


def _find_wakes() -> Wakes:
    """Those of the running loop; an API server has one."""
    return _wakes.setdefault(asyncio.get_running_loop(), Wakes())
