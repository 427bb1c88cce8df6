"""What a server takes, refuses and shows: OpenAI's, unless a server has rules of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_openai_batch.testing.refusals import MESSAGES, ApiError

JSON = dict[str, Any]

_CREATION_FIELDS = frozenset({"input_file_id", "endpoint", "completion_window"})


@dataclass(frozen=True, kw_only=True)
class ServerRules:
    """Independent of the profile that the package has of the same server."""

    name: str
    path: str = "/v1"
    """That its addresses begin with."""
    batch_purpose: str = "batch"
    purposes: tuple[str, ...] = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
    takes_expiry: bool = True
    keeps_metadata: bool = True
    has_pages: bool = True
    says_has_more: bool = True
    tells_purposes_apart: bool = True
    expires_batches: bool = True
    longest_window_h: int = 24
    endpoints: tuple[str, ...] = ()
    """Of batches; none: those of OpenAI."""

    def check_key(self, headers: Mapping[str, str], keys: frozenset[str] | None) -> None:
        """:raises ApiError: 401, for a call without a key, or with one that is not taken."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            )
        if keys is not None and key.strip() not in keys:
            raise ApiError(401, MESSAGES["invalid_api_key"], code="invalid_api_key")

    def check_expiry(self, policy: Any, param: str) -> None:
        """:raises ApiError: 400, where files have no time to live."""
        if policy is not None and not self.takes_expiry:
            raise self.unknown_field(param)

    def check_creation(self, params: JSON) -> None:
        """Before OpenAI's own checks.

        :raises ApiError: 400, for what this server does not know.
        """
        known = set(_CREATION_FIELDS)
        known |= {"metadata"} if self.keeps_metadata else set()
        known |= {"output_expires_after"} if self.takes_expiry else set()
        for name in params:
            if name not in known:
                raise self.unknown_field(name)
        if self.endpoints and params.get("endpoint") not in self.endpoints:
            raise ApiError(400, f"endpoint must be one of {list(self.endpoints)}", param="endpoint")

    def takes_window(self, window: str) -> bool:
        """Whether that is a ``completion_window`` here."""
        found = re.fullmatch(r"(\d+)([hd])", window)
        if found is None:
            return False
        return 24 <= int(found[1]) * (24 if found[2] == "d" else 1) <= self.longest_window_h

    def unknown_field(self, name: str) -> ApiError:
        """In the words of most servers that check their input."""
        return ApiError(400, f"Unrecognized request argument supplied: {name}", param=name)

    def word_refusal(self, code: str, *, model: str, limit: int) -> str | None:
        """How it words that a batch is refused; ``None``: as OpenAI."""
        return None

    def show_batch(self, batch: JSON) -> JSON:
        """A batch as this server writes it."""
        return batch if self.keeps_metadata else {**batch, "metadata": None}

    def show_created(self, batch: JSON) -> JSON:
        """The answer to its creation; ``batch`` is as `show_batch` gave it."""
        return batch

    def show_file(self, file: JSON) -> JSON:
        return file

    def show_list(self, page: JSON) -> Any:
        if self.says_has_more and self.has_pages:
            return page
        return {"object": "list", "data": page["data"]}
