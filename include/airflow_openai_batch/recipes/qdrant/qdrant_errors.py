"""What goes wrong with a vector store, in our words: told apart by type and status, payloads never quoted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from airflow_openai_batch.errors import ConfigError, OpenAIBatchError
from airflow_openai_batch.server_words import clean_words

_LONGEST = 200


class StoreError(OpenAIBatchError):
    """The vector store is in use or does not answer; worth another try."""

    permanent = False


@contextlib.contextmanager
def explained_store(where: str) -> Iterator[None]:
    """Errors of Qdrant's client as ours.

    :param where: which collection, for the message.
    :raises ConfigError: for what the store refuses.
    :raises StoreError: for what may pass.
    """
    try:
        yield
    except OpenAIBatchError:
        raise
    except Exception as error:
        translated = _translate(error, where)
        if translated is None:
            raise
        raise translated from None


def _translate(error: Exception, where: str) -> OpenAIBatchError | None:
    """None for what does not come from the client."""
    kind = type(error)
    if isinstance(error, RuntimeError) and "already accessed" in str(error):
        return StoreError(
            f"{where}: its files are in use by another process, and they allow one at a time. Wait until that task "
            "has ended, or name a connection to a Qdrant server."
        )
    if kind.__module__.startswith("qdrant_client"):
        status = getattr(error, "status_code", None)
        if status is not None:
            return _translate_status(int(status), getattr(error, "content", b""), where)
        cause = getattr(error, "source", error)
        return StoreError(f"{where}: Qdrant could not be reached ({type(cause).__name__}).")
    if kind.__module__.startswith("grpc"):
        code = getattr(getattr(error, "code", lambda: None)(), "name", kind.__name__)
        return StoreError(f"{where}: Qdrant answered {code} over gRPC.")
    if isinstance(error, ValueError) and "not found" in str(error) and "Collection" in str(error):
        return _missing(where)
    return None


def _translate_status(status: int, content: bytes, where: str) -> OpenAIBatchError:
    if status in (401, 403):
        return ConfigError(f"{where}: Qdrant answered {status}. Correct the API key in the connection.")
    if status == 404:
        return _missing(where)
    if status in (408, 429) or status >= 500:
        return StoreError(f"{where}: Qdrant answered {status}.")
    return ConfigError(f"{where}: Qdrant answered {status}{_read_reason(content)}.")


def _missing(where: str) -> ConfigError:
    return ConfigError(f"{where}: is not there. Correct the name of the collection.")


def _read_reason(content: bytes) -> str:
    try:
        reason = msgspec.json.decode(content)["status"]["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
    return f" ({clean_words(reason, _LONGEST)})"
