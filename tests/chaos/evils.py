"""What befalls batches and lines, in the words of the emulator's ``script``."""

from __future__ import annotations

from typing import Any

LINE_EVILS: dict[str, dict[str, Any]] = {
    "line 0 once": {"line": 0},
    "line 429 once": {"line": 429},
    "line 500 twice": {"line": 500, "times": 2},
    "line 503 once": {"line": 503},
    "line request_timeout once": {"line": "request_timeout"},
    "line missing once": {"line": "missing", "scope": "batch"},
    "line duplicate": {"line": "duplicate", "scope": "batch"},
    "line string_body": {"line": "string_body"},
    "line bad_schema once": {"line": "bad_schema"},
    "line not_json once": {"line": "not_json"},
    "line unparsable once": {"line": "unparsable", "scope": "batch"},
    "line 500 for ever": {"line": 500, "times": None},
    "line 400 for ever": {"line": 400, "times": None},
    "line refusal for ever": {"line": "refusal", "times": None},
    "line cut off for ever": {"line": "length", "times": None},
    "line filtered for ever": {"line": "content_filter", "times": None},
}
FOR_EVER = " for ever"

LATE = "batch shows late in lists"
"""Later than anybody waits for the batch of a lost reply to show: where its reply is lost, it gets a twin."""
LOST_REPLIES: dict[str, Any] = {"http": "POST /v1/batches", "drop": "after", "times": 3}
"""Strike whichever job creates next; scripted together with `LATE`."""
BATCH_EVILS: dict[str, dict[str, Any]] = {
    "batch refused: no room": {
        "batch": "failed",
        "code": "token_limit_exceeded",
        "limit": 90_000,
        "times": 2,
    },
    "batch refused: file not visible": {"batch": "failed", "code": "invalid_request"},
    "batch expired, partly": {"batch": "expired", "done": 7, "total": 10},
    "batch expired, rest missing": {"batch": "expired", "done": 5, "total": 10, "unfinished": "missing"},
    "batch cancelled by others": {"batch": "cancelled", "done": 4, "total": 10},
    "batch stuck in progress": {"batch": "in_progress"},
    "batch stuck finalizing": {"batch": "finalizing"},
    "batch's files lag": {"batch": "completed", "file_lag": 2},
    "batch's files are named late": {"batch": "completed", "file_ids_late_s": 5.0},
    "batch says little": {"batch": "completed", "omit": ["request_counts", "usage", "model"]},
    "batch with an empty error file id": {"batch": "completed", "empty_error_file_id": True},
    LATE: {"batch": "completed", "takes_s": 26, "list_lag_s": 20, "times": None},
    "batch takes its time": {"batch": "completed", "takes_s": 12},
}

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "label",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"label": {"type": "string"}, "score": {"type": "integer"}},
            "required": ["label", "score"],
            "additionalProperties": False,
        },
    },
}
NEEDS_SCHEMA = frozenset({"line bad_schema once", "line not_json once"})
