"""The prompt spec: one YAML file or dict that says what to ask about a row, of which model, in which form.

::

    name: reviews_sentiment
    version: 2
    model: gpt-6-luna
    system: You judge reviews of a shop.
    user: "Positive, Negative or Neutral? {{ text }}"
    parameters: {reasoning_effort: none, max_completion_tokens: 10}
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import yaml

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.endpoints import MAX_EMBEDDING_INPUTS_PER_REQUEST, Endpoint
from airflow_openai_batch.tables.prompts.answer_schema import check_bounds, make_strict, read_model_schema
from airflow_openai_batch.wording import shorten

DEFAULT_CUSTOM_ID = "row-{{ _row }}"
"""Unique by itself; another template is checked for it."""
MAX_IMAGE_BYTES = 20_000_000
"""Of one image file. Source: OpenAI's guide on images once named 20 MB each, later 50 MB a request; the smaller."""

MAX_PROMPT_BYTES = 4_000_000
"""Of a prompt's YAML."""
MAX_PROMPT_VALUES = 200_000
"""Of a prompt, each alias counted as what it stands for: ten in each of ten lines are ten thousand million."""

_ENDPOINTS = (Endpoint.CHAT_COMPLETIONS, Endpoint.RESPONSES, Endpoint.EMBEDDINGS)
_OWN_KEYS = frozenset({"model", "messages", "input", "instructions", "stream"})
_LENGTH_KEYS: dict[Endpoint, tuple[frozenset[str], str]] = {
    Endpoint.RESPONSES: (frozenset({"max_tokens", "max_completion_tokens"}), "max_output_tokens"),
    Endpoint.CHAT_COMPLETIONS: (frozenset({"max_output_tokens"}), "max_tokens or max_completion_tokens"),
}


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images that a column names: web addresses go into the request as they are, files as data URLs."""

    column: str
    """Its value is an address (http, https), a data URL, a path below ``images_root``, or a list of these."""
    detail: Literal["auto", "low", "high"] | None = None
    """As OpenAI takes it; it decides what the image costs."""
    max_side: int | None = None
    """Files are scaled down to so many pixels on the longer side. Needs the extra ``images``; where that is installed,
    without this they are scaled down to what the model looks at, if that is published."""
    max_bytes: int = MAX_IMAGE_BYTES
    """Of the file as it is sent, before base64; a larger one rejects its row."""
    optional: bool = False
    """Whether a row without one is sent all the same."""

    def check(self, number: int) -> None:
        """:raises ConfigError: for a value that cannot be used."""
        where = f"images[{number}]"
        if not self.column.strip():
            raise ConfigError(f"{where}.column is empty: name the column that holds the path or address.")
        if self.max_side is not None and not 16 <= self.max_side <= 8_192:
            raise ConfigError(f"{where}.max_side={self.max_side}: must be 16 to 8,192 pixels.")
        if not 1 <= self.max_bytes <= 50_000_000:
            raise ConfigError(f"{where}.max_bytes={self.max_bytes}: must be 1 to 50,000,000.")


class PromptSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked about each row. Checks itself; see `read_prompt`.

    ``system``, ``user``, ``input`` and ``custom_id`` are Jinja2 templates in a sandbox. They see the columns by
    name, ``row`` (all columns, for names that are no identifiers: ``{{ row['Review text'] }}``) and ``_row``, the
    number of the row from 0. A template that needs an empty cell rejects the row; ``is defined`` and ``default``
    look first.
    """

    name: str
    model: str
    version: str | int | float = "1"
    """Goes into the manifest, so that results can be told apart."""
    endpoint: str = "chat/completions"
    """``chat/completions``, ``responses`` or ``embeddings``."""
    system: str | None = None
    user: str | None = None
    input: str | None = None
    """The text to embed; of embeddings only, in place of ``user``."""
    images: list[ImageSpec] = []
    response_schema: dict[str, Any] | None = None
    """JSON Schema of the answer; see ``strict``. In DAG code a Pydantic model."""
    strict: bool = True
    """Whether the model is held to the schema, which is then made what strict mode asks for."""
    parameters: dict[str, Any] = {}
    """``temperature``, ``max_tokens`` and what else the endpoint takes, as they are."""
    custom_id: str = DEFAULT_CUSTOM_ID
    rows_per_request: int = 1
    """Embeddings: so many texts go out in one request, at most 2,048."""
    description: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "model"):
            if not getattr(self, field).strip():
                raise ConfigError(f"{field} is empty: every prompt needs one.")
        if self.url not in _ENDPOINTS:
            known = ", ".join(each.removeprefix("/v1/") for each in _ENDPOINTS)
            raise ConfigError(f"endpoint={shorten(self.endpoint)!r}: must be one of {known}.")
        self._check_texts()
        self._check_parameters()
        for number, image in enumerate(self.images):
            image.check(number)
        if not self.custom_id.strip():
            raise ConfigError(f"custom_id is empty: leave it out for {DEFAULT_CUSTOM_ID!r}.")

    @property
    def url(self) -> str:
        """The endpoint as a request line has it: ``/v1/chat/completions``."""
        return "/v1/" + self.endpoint.strip().strip("/").removeprefix("v1/")

    @property
    def is_embedding(self) -> bool:
        return self.url == Endpoint.EMBEDDINGS

    @property
    def sha256(self) -> str:
        """Of everything in it: another prompt is another job."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    @property
    def sent_schema(self) -> dict[str, Any] | None:
        """The schema as it goes out.

        :raises ConfigError: if it cannot be what strict mode asks for.
        """
        if self.response_schema is None:
            return None
        if self.strict:
            return make_strict(self.response_schema)
        check_bounds(self.response_schema)
        return self.response_schema

    @property
    def schema_name(self) -> str:
        """The prompt's name as the API takes a schema's: 64 letters, digits, ``_`` and ``-``."""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", self.name)[:64]

    def _check_texts(self) -> None:
        if self.is_embedding:
            if not (self.input or "").strip():
                raise ConfigError(
                    "input is missing: say what to embed, for instance input: '{{ text }}'."
                    + (" For embeddings it is called input, not user." if self.user else "")
                )
            for field in ("system", "user", "images", "response_schema"):
                if getattr(self, field):
                    raise ConfigError(f"{field} is set, but embeddings take an input only. Remove it.")
            if not 1 <= self.rows_per_request <= MAX_EMBEDDING_INPUTS_PER_REQUEST:
                raise ConfigError(
                    f"rows_per_request={self.rows_per_request}: must be 1 to "
                    f"{MAX_EMBEDDING_INPUTS_PER_REQUEST:,} (OpenAI's limit per request)."
                )
            return
        if self.input is not None:
            raise ConfigError(f"input is for embeddings; with {self.endpoint} the text is called user.")
        if not (self.user or "").strip() and not self.images:
            raise ConfigError(
                "user is missing: say what to ask about a row, for instance user: '{{ text }}'."
            )
        if self.rows_per_request != 1:
            raise ConfigError(
                f"rows_per_request={self.rows_per_request}: only embeddings take several rows in a request."
            )

    def _check_parameters(self) -> None:
        if taken := sorted(_OWN_KEYS.intersection(self.parameters)):
            raise ConfigError(
                f"parameters.{taken[0]}: is made from the other fields of the prompt, or cannot be used in a batch. "
                "Remove it."
            )
        keys, instead = _LENGTH_KEYS.get(Endpoint(self.url), (frozenset(), ""))
        if wrong := sorted(keys.intersection(self.parameters)):
            raise ConfigError(f"parameters.{wrong[0]}: {self.endpoint} calls it {instead}.")
        if self.response_schema is not None:
            key = "text" if self.url == Endpoint.RESPONSES else "response_format"
            if key in self.parameters:
                raise ConfigError(f"parameters.{key}: is made from response_schema. Keep one of the two.")
        try:
            msgspec.json.encode(self.parameters)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"parameters: hold something that JSON cannot ({error}).") from None
        _ = self.sent_schema


def read_prompt(
    source: str | bytes | Mapping[str, Any],
    *,
    overrides: Mapping[str, Any] | None = None,
    where: str = "prompt",
) -> PromptSpec:
    """A prompt from YAML text or a dict.

    :param overrides: fields that take the place of those in it, for instance ``{"model": "gpt-6.1-sol"}``.
    :param where: what errors call it, for instance the file's name.
    :raises ConfigError: that names the field, for whatever cannot be used.
    """
    fields = dict(source) if isinstance(source, Mapping) else _read_yaml(source, where)
    fields.update(overrides or {})
    schema = fields.get("response_schema")
    try:
        if schema is not None and not isinstance(schema, Mapping):
            fields["response_schema"] = read_model_schema(schema)
        return msgspec.convert(fields, PromptSpec)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        reason = str(cause) if isinstance(cause, ConfigError) else f"{_say_field(str(error))}."
        raise ConfigError(f"{where}: {reason}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


class _Loader(yaml.SafeLoader):
    """Counts what stands there before anything is made of it."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        _count_values(node, {})
        return node


def _count_values(node: Any, counted: dict[int, int]) -> int:
    """:raises RecursionError: if it holds itself, or is nested too deeply.
    :raises ConfigError: if there are too many."""
    if id(node) in counted:
        return counted[id(node)]
    inner = node.value if isinstance(node, yaml.CollectionNode) else ()
    values = 1
    for each in inner:
        parts = each if isinstance(each, tuple) else (each,)  # key and value
        values += sum(_count_values(part, counted) for part in parts)
        if values > MAX_PROMPT_VALUES:
            raise ConfigError(
                f"comes to more than {MAX_PROMPT_VALUES:,} values with its aliases followed, the limit."
            )
    counted[id(node)] = values
    return values


def _read_yaml(text: str | bytes, where: str) -> dict[str, Any]:
    if len(text) > MAX_PROMPT_BYTES:
        raise ConfigError(f"{where}: has {len(text):,} bytes, limit {MAX_PROMPT_BYTES:,}. Is it a prompt?")
    try:
        found = yaml.load(text, _Loader)  # noqa: S506 - a safe one
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply, or holds itself.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        hint = " Put templates in quotes." if "unhashable" in str(error.problem) else ""
        raise ConfigError(f"{where}: is not valid YAML{place}: {error.problem}.{hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: is not valid YAML ({type(error).__name__}).") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(f"{where}: must be a mapping of fields, such as name, model and user.")
    return found


def _say_field(message: str) -> str:
    """msgspec's words, field first: ``model: expected `str`, got `int```."""
    reason, separator, path = message.partition(" - at `")
    field = path.rstrip("`").removeprefix("$.")
    if separator:
        return f"{field}: {reason[0].lower()}{reason[1:]}"
    if "unknown field" in reason:
        known = ", ".join(PromptSpec.__struct_fields__)
        return f"{reason}. There are {known}; what else the endpoint takes goes into parameters"
    return reason
