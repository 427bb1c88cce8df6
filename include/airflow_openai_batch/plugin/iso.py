"""Times as the page's API gives them."""

from __future__ import annotations

from datetime import UTC, datetime


def to_iso(at: float | datetime | None) -> str | None:
    """ISO 8601 in UTC, of Unix seconds or an aware moment."""
    if at is None:
        return None
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, tz=UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
