"""A table for the terminal, and for docs/performance.md: it is Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest cell; the first is text, the others are numbers."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    print(f"\n{title} ({describe_machine()})\n")
    print(_line(head, widths))
    print("| " + " | ".join("-" * width for width in widths) + " |")
    for row in rows:
        print(_line(row, widths))


def describe_machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if not n else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join((first, *others)) + " |"
