"""A file holds one idea, which a reader can keep in mind."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "include" / "airflow_openai_batch"
MOST_LINES = 400


def test_no_source_file_of_the_package_is_longer_than_400_lines():
    lines = {path: path.read_text().count("\n") for path in PACKAGE.rglob("*.py")}
    too_long = {
        str(path.relative_to(PACKAGE)): count for path, count in sorted(lines.items()) if count > MOST_LINES
    }
    assert not too_long, "carve out a part with an idea of its own"
