"""The validation of a batch's input file: one pass, as OpenAI does while a batch is ``validating``."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from airflow_openai_batch.testing.refusals import batch_error
from airflow_openai_batch.testing.requests import (
    EMBEDDINGS,
    CountTokens,
    base_model,
    inputs_of,
    is_known_model,
)

if TYPE_CHECKING:
    from airflow_openai_batch.testing.settings import Settings

JSON = dict[str, Any]

_MOST_ERRORS = 100


class RequestScan:
    """Reads the lines, some at a time, and gathers what the batch needs to know.

    Memory: 16 bytes a line, and the custom_ids until the end.
    """

    def __init__(self, file: BinaryIO, endpoint: str, settings: Settings, count_tokens: CountTokens) -> None:
        self._file = file
        self._endpoint = endpoint
        self._settings = settings
        self._count_tokens = count_tokens
        self._ids: set[str] = set()
        self._inputs = 0
        self.offsets = array("q", [0])
        """Where each line starts, and where the last ends."""
        self.errors: list[JSON] = []
        self.model: str | None = None
        self.tokens = array("l")
        """Input tokens of each line."""
        self.done = False

    @property
    def requests(self) -> int:
        return len(self.offsets) - 1

    def step(self, lines: int) -> bool:
        """Read so many lines; true at the end."""
        for _ in range(lines):
            line = self._file.readline()
            if not line or len(self.errors) >= _MOST_ERRORS:
                self._finish()
                return True
            self.offsets.append(self.offsets[-1] + len(line))
            self._check_line(line)
        return self.done

    def close(self) -> None:
        self._file.close()

    def _finish(self) -> None:
        self.close()
        self._ids.clear()
        self.done = True
        settings = self._settings
        if not self.requests:
            self._refuse("empty_file", None)
        if self.requests > settings.max_requests_per_batch:
            self._refuse("too_many_tasks", None, limit=settings.max_requests_per_batch)
        if self._inputs > settings.max_embedding_inputs:
            self._refuse("too_many_inputs", None, limit=settings.max_embedding_inputs)

    def _check_line(self, line: bytes) -> None:
        number = self.requests
        try:
            request = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._refuse("invalid_json_line", number)
        if not isinstance(request, dict):
            return self._refuse("invalid_json_line", number)
        for name in ("custom_id", "method", "url", "body"):
            if name not in request:
                return self._refuse("missing_required_parameter", number, param=name)
        custom_id, body = request["custom_id"], request["body"]
        if not isinstance(custom_id, str):
            return self._refuse("invalid_type", number, param="custom_id")
        if custom_id in self._ids:
            self._refuse("duplicate_custom_id", number, param="custom_id", value=custom_id[:100])
        self._ids.add(custom_id)
        if request["method"] != "POST":
            self._refuse("invalid_method", number, param="method", value=str(request["method"])[:20])
        if request["url"] != self._endpoint:
            self._refuse("invalid_url", number, param="url")
        return self._check_body(body, number)

    def _check_body(self, body: Any, number: int) -> None:
        if not isinstance(body, dict):
            return self._refuse("invalid_type", number, param="body")
        model = body.get("model")
        if not isinstance(model, str):
            if self._endpoint != "/v1/moderations":
                return self._refuse("missing_required_parameter", number, param="body.model")
            model = "omni-moderation-latest"
        if self.model is None:
            self.model = model
            if not is_known_model(model, self._settings.models):
                self._refuse("model_not_found", number, param="body.model", value=model[:100])
        elif model != self.model:
            self._refuse("mismatched_model", number, param="body.model", value=model[:100])
        if body.get("stream"):
            self._refuse("stream_not_supported", number, param="body.stream")
        if self._endpoint == EMBEDDINGS:
            self._inputs += len(inputs_of(body.get("input")))
        try:
            tokens = self._count_tokens(body, self._endpoint)
        except (TypeError, AttributeError, ValueError):
            tokens = len(msgspec.json.encode(body)) // 4  # refused line by line, later
        self.tokens.append(tokens)
        return None

    def _refuse(self, code: str, line: int | None, *, param: str | None = None, **values: Any) -> None:
        self.errors.append(batch_error(code, line=line, param=param, **values))

    @property
    def input_tokens(self) -> int:
        return sum(self.tokens)

    @property
    def queue(self) -> str:
        """The model whose queue the batch stands in."""
        return base_model(self.model or "")
