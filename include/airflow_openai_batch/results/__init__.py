"""Landing: raw files indexed, answers judged, rows written in the order of the input."""

# Modules that other folders may import from.
__all__ = [
    "landing",
    "landing_slots",
    "landing_summary",
    "lanes",
    "leftovers",
    "media_files",
    "outcome",
    "phases",
    "raw_index",
    "result_rows",
]
