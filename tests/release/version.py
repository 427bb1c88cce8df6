"""Whether the version that is built is the one that CHANGELOG.md speaks of."""

from __future__ import annotations

import re

_SECTION = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<day>\S+))?\n(?P<body>.*?)(?=^## |\Z)", re.M | re.S)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def find_version_problems(version: str, changelog: str) -> list[str]:
    """What keeps this version from being released; nothing if its section is the newest, dated and not empty.

    :param changelog: the text of CHANGELOG.md.
    """
    sections = {found["name"]: found for found in _SECTION.finditer(changelog)}
    unreleased = sections.pop("Unreleased", None)
    own = sections.get(version)
    if own is None:
        rename = "rename [Unreleased] to it" if unreleased is not None else "write it"
        return [
            f"CHANGELOG.md: has no section `## [{version}] - YYYY-MM-DD`; {rename}, or change the version"
        ]
    problems = []
    newest = next(iter(sections))
    if newest != version:
        problems.append(f"CHANGELOG.md: its newest section is {newest}, but what is built is {version}")
    if not own["day"] or not _DAY.fullmatch(own["day"]):
        problems.append(f"CHANGELOG.md: the section {version} has no date: `## [{version}] - YYYY-MM-DD`")
    if not own["body"].strip():
        problems.append(f"CHANGELOG.md: the section {version} is empty")
    if unreleased is not None and unreleased["body"].strip():
        problems.append(
            f"CHANGELOG.md: [Unreleased] is not empty, but what is built holds it; move it to {version}"
        )
    return problems
