"""What can be made out in a line of results that is no JSON: whose it is, and what it cost."""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_openai_batch.openai_api import lenient_json

_ID = re.compile(rb'"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")')
_CONTENT = re.compile(rb'"(?:response|error|body)"\s*:')
_COSTS = re.compile(r'"(usage|model|service_tier)"\s*:\s*(?=[{"])')


def make_out_id(line: bytes) -> str | None:
    """The id of a line that is no JSON; none where there is more than one that it may be.

    What stands before the answer is the server's own; an answer may hold anything, ids of other requests too.
    """
    content = _CONTENT.search(line)
    own = [found[1] for found in _ID.finditer(line, 0, content.start() if content else len(line))]
    names = {*(own or (found[1] for found in _ID.finditer(line)))}
    if len(names) != 1:
        return None
    try:
        value = lenient_json.decode(names.pop())
    except lenient_json.UnreadableJSONError:
        return None
    return value if isinstance(value, str) else None


def make_out_costs(line: bytes) -> bytes:
    """A body with nothing but the answer's model and usage; empty where they cannot be made out.

    Servers write the usage last: of several, the last one that can be read counts.
    """
    text = line.decode("utf-8", "replace")
    found: dict[str, Any] = {}
    for match in _COSTS.finditer(text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict if match[1] == "usage" else str):
            found[match[1]] = value
    return lenient_json.encode(found).encode() if "usage" in found else b""
