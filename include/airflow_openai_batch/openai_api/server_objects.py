"""The JSON that a server answers with, read once into our own types, and refused in words where it is something else.

Compatible servers, gateways and proxies answer 200 with a login page, an error, dates as text, an object without its
id. What is read here is what the rest of the package can rely on.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

from airflow_openai_batch.errors import AnswerError, TransientError
from airflow_openai_batch.server_words import clean_words, hide_secrets

MOST_ID_CHARS = 1_000
"""Gateways put a whole address into an id."""
_ID = re.compile(r"[!-~]+")
_LATEST = 1e11
"""Of a time in Unix seconds, the year 5138: what is greater counts milliseconds."""


class OddAnswerError(ValueError):
    """What is wrong with an object, in words that come after its name: ``has no id``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileView:
    """A file as the server lists it. Time in Unix seconds of the server's clock."""

    id: str
    filename: str = ""
    created_at: float | None = None
    bytes: int | None = None
    status: str = ""

    @classmethod
    def from_dict(cls, file: Any) -> FileView:
        """:raises OddAnswerError: if it is no file."""
        file = read_fields(file)
        return cls(
            id=read_id(file, "id"),
            filename=file["filename"] if isinstance(file.get("filename"), str) else "",
            created_at=read_time(file, "created_at"),
            bytes=read_count(file, "bytes"),
            status=file["status"] if isinstance(file.get("status"), str) else "",
        )


def read_object(
    content: bytes, doing: str, *, content_type: str = "", bare_list: bool = False
) -> dict[str, Any]:
    """The JSON object of an answer with status 2xx.

    :param doing: what was asked, for the message.
    :param bare_list: whether a list may come without an object around it.
    :raises TransientError: for what a proxy or a gateway sends in the server's place.
    """
    if is_page(content, content_type):
        raise TransientError(f"{doing}: {PAGE}")
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    if bare_list and isinstance(found, list):
        return {"data": found}
    if not isinstance(found, dict):
        raise TransientError(
            f"{doing}: the answer ({len(content):,} bytes of {_name_type(content_type)}) is no JSON object. Something "
            "between here and the API answers in its place: look at the host of the connection and at proxies."
        )
    if found.get("error") and "id" not in found and "data" not in found:
        error = found["error"]
        said = error.get("message") if isinstance(error, dict) else error
        raise TransientError(f"{doing}: a success was answered that holds an error: {clean_words(said)}")
    return found


PAGE = (
    "a web page came where the API answers JSON: a proxy, a login or a firewall answered in its place, or the "
    "connection's host is not that of an API (for OpenAI: https://api.openai.com/v1). Open the way for workers and "
    "triggerers, or correct the host."
)


def is_page(content: bytes, content_type: str = "") -> bool:
    """Whether an answer is HTML, by its type or its first character."""
    return "html" in content_type.lower() or content[:200].lstrip()[:1] == b"<"


def read_page(answer: dict[str, Any]) -> list[Any]:
    """The items of a list.

    :raises OddAnswerError: if it is no list.
    """
    items = answer.get("data")
    if not isinstance(items, list):
        raise OddAnswerError("has no list under 'data'")
    return items


def read_vectors(answer: dict[str, Any], inputs: int) -> list[list[float]]:
    """One vector for each input, placed by ``index``.

    :raises OddAnswerError: if one is missing or stands twice: a vector beside the wrong text would look right.
    """
    vectors: dict[int, list[float]] = {}
    for item in map(read_fields, read_page(answer)):
        index, vector = item.get("index"), item.get("embedding")
        if type(index) is not int or not 0 <= index < inputs or index in vectors:
            raise OddAnswerError(
                f"has a vector whose index is not one of its {inputs:,} inputs, or stands twice"
            )
        if not isinstance(vector, list) or not all(type(each) in (int, float) for each in vector):
            raise OddAnswerError(f"has no list of numbers for input {index:,}")
        vectors[index] = vector
    if len(vectors) != inputs:
        raise OddAnswerError(f"has {len(vectors):,} vectors for {inputs:,} inputs")
    return [vectors[index] for index in range(inputs)]


def read_fields(value: Any) -> dict[str, Any]:
    """:raises OddAnswerError: if it is no object."""
    if not isinstance(value, dict):
        raise OddAnswerError(f"is no JSON object but {_name_kind(value)}")
    return value


def read_id(fields: dict[str, Any], name: str) -> str:
    """:raises OddAnswerError: if there is none, or what is there cannot be one."""
    value = fields.get(name)
    if value is None or value == "":
        raise OddAnswerError(f"has no {name}")
    if not isinstance(value, str):
        raise OddAnswerError(f"has {_name_kind(value)} as its {name}")
    if len(value) > MOST_ID_CHARS or not _ID.fullmatch(value):
        raise OddAnswerError(
            f"has an {name} of {len(value):,} characters that cannot be one (at most {MOST_ID_CHARS:,}, no blanks)"
        )
    if hide_secrets(value) != value:
        raise OddAnswerError(f"has the connection's key in its {name}")
    return value


def read_optional_id(fields: dict[str, Any], name: str) -> str | None:
    """``None`` where the server says ``null`` or \"\".

    :raises OddAnswerError: if what is there cannot be one.
    """
    return None if fields.get(name) in (None, "") else read_id(fields, name)


def read_time(fields: dict[str, Any], name: str) -> float | None:
    """Unix seconds; ``None`` where there is none.

    :raises OddAnswerError: for a date in another form.
    """
    value = fields.get(name)
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LATEST:
        raise OddAnswerError(
            f"has a date in another form ({name} is {_name_kind(value)}, not a number of Unix seconds)"
        )
    return float(value)


def read_count(fields: dict[str, Any], name: str) -> int | None:
    """``None`` where there is none, or what is there counts nothing."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return int(value)


def explain_odd(doing: str, what: str, error: OddAnswerError) -> str:
    """The sentence about an answer that is not what was asked for."""
    return (
        f"{doing}: {what} of the answer {error}. The server of this connection does not speak OpenAI's Batch API as it "
        "is documented, or a gateway changes what it says: correct the connection's host, or ask whoever runs it."
    )


def make_answer_error(doing: str, what: str, error: OddAnswerError) -> AnswerError:
    return AnswerError(explain_odd(doing, what, error))


def _name_type(content_type: str) -> str:
    return clean_words(content_type.partition(";")[0], 60) or "an unnamed type"


def _name_kind(value: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "nothing")
