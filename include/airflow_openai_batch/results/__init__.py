"""Landing: raw files indexed, answers judged, rows written in the order of the input."""
