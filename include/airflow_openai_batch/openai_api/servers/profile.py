"""What differs from one server to another that speaks OpenAI's Batch API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

ALL_ENDPOINTS: frozenset[str] = frozenset()
"""Whatever is asked for; the server says what it does not have."""


@dataclass(frozen=True, kw_only=True)
class ServerProfile:
    """OpenAI itself, unless something else is said; and any server of which nothing is known, read as leniently.

    A server that writes its objects in another form overrides the methods that read them.
    """

    name: str
    """As a connection's extra says it."""
    title: str
    """As its people write it."""
    hosts: tuple[str, ...] = ()
    """By which it is known: a name, or a domain that begins with a dot."""
    address: str | None = None
    """Where it is, where a connection names no host."""
    base_path: str = "/v1"
    """That its addresses begin with, for a host without a path."""
    needs_host: bool = False
    key_header: str | None = None
    """In which the key goes, alone; ``None``: as a bearer in ``Authorization``."""
    takes_entra: bool = False
    """Whether tokens of Entra ID stand for a key."""

    upload_purpose: str = "batch"
    result_purpose: str = "batch_output"
    takes_expiry: bool = True
    """Whether files and results can be given a time to live; else they stay until they are deleted."""
    keeps_metadata: bool = True
    """Else a batch is found again by its input's file, which the ledger has."""
    processes_files: bool = False
    """Whether a file has to be ``processed`` before a batch is created of it."""
    has_pages: bool = True
    """Else a list shows all there is, in any order."""
    bare_lists: bool = False
    """Whether a list may come without an object around it."""
    expires_batches: bool = True
    """Else a batch goes on however long it takes, and none is overdue."""
    repeats_calls: bool = False
    """Whether it asks the server behind it again where a reply is lost between the two, so that one call may create
    two batches."""
    completion_window: str = "24h"
    longest_window_h: int = 24
    endpoints: frozenset[str] = ALL_ENDPOINTS
    full_queue: re.Pattern[str] | None = None
    """How it words that a queue is full. Groups: ``limit``, ``scale`` (K, M or B) and ``unit`` (token or request)."""
    has_deployments: bool = False
    """Whether ``model`` names a deployment, so that prices need the model behind it."""

    def complete_address(self, host: str) -> str:
        """A connection's host with the path that the API begins at, where it has none."""
        parts = urlsplit(host)
        if parts.path.strip("/"):
            return host
        return urlunsplit(parts._replace(path=self.base_path))

    def read_made(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The batch of the answer to a creation, as `read_batch` takes it."""
        return answer

    def read_batch(self, batch: Any) -> Any:
        """A batch in OpenAI's form; what is none is handed on as it is, to be refused in words."""
        return batch

    def read_file(self, file: Any) -> Any:
        """As `read_batch`, of a file."""
        return file

    def upload_arguments(self, expiry_s: int) -> dict[str, Any]:
        """What a file is uploaded with.

        :param expiry_s: after which the server may delete it.
        """
        return {"purpose": self.upload_purpose, **self._expire("expires_after", expiry_s)}

    def creation_arguments(self, metadata: Mapping[str, str], expiry_s: int) -> dict[str, Any]:
        """What a batch is created with, beside its file and endpoint.

        :param expiry_s: after which the server may delete its results.
        """
        described = {"metadata": dict(metadata)} if self.keeps_metadata else {}
        window = {"completion_window": self.completion_window}
        return {**window, **described, **self._expire("output_expires_after", expiry_s)}

    def _expire(self, name: str, expiry_s: int) -> dict[str, Any]:
        return {name: {"anchor": "created_at", "seconds": expiry_s}} if self.takes_expiry else {}

    def find_endpoint_problem(self, endpoint: str) -> str | None:
        """Why a batch for an endpoint cannot be, as far as that is known; ``None`` where it can."""
        if not self.endpoints or endpoint in self.endpoints:
            return None
        return (
            f"{self.title} has no batches for {endpoint}, only for {' and '.join(sorted(self.endpoints))}. Ask one of "
            "these, or name a connection to another server."
        )

    def list_arguments(self, **arguments: Any) -> dict[str, Any]:
        """What a call for a list is made with."""
        return arguments if self.has_pages else {}

    def describe_windows(self) -> str:
        """For errors."""
        longest = self.longest_window_h
        return '"24h"' if longest == 24 else f'a time from "24h" to "{longest // 24}d"'


_HOURS = {"h": 1, "d": 24}
_WINDOW = re.compile(r"(\d{1,3})([hd])")


def fits_window(profile: ServerProfile, window: object) -> bool:
    """Whether a server takes this ``completion_window``."""
    found = _WINDOW.fullmatch(window) if isinstance(window, str) else None
    return found is not None and 24 <= int(found[1]) * _HOURS[found[2]] <= profile.longest_window_h


def with_fields(value: Any, changes: Mapping[str, Any]) -> Any:
    """An object with other values; anything else as it is."""
    return {**value, **changes} if isinstance(value, dict) else value
