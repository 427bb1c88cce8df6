"""One request of the input, with where it came from."""

from __future__ import annotations

from typing import NamedTuple


class RequestLine(NamedTuple):
    """A request line as it stands in the input.

    A tuple rather than a dataclass: a million of them are made per run.
    """

    position: int
    """0-based over the whole input; rejected lines have a position too, blank ones none."""
    source_uri: str
    line_number: int
    """1-based, in its source."""
    line: bytes
    """Verbatim, without the line end."""
