"""Real English texts that every machine with Python has: the docstrings of what is installed.

The files are parsed, never imported. The order is fixed (standard library first, then packages by name), so
that the same environment gives the same requests: ``python -m demo.corpus PATH COUNT``.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from airflow_openai_batch.openai_api.models import DEFAULT_MODEL
from airflow_openai_batch.storage.location import resolve_plain

INSTRUCTION = "Say in one plain sentence what the documentation you are given is about."
MAX_ANSWER_TOKENS = 80
MIN_CHARACTERS = 60
"""Shorter docstrings are rarely a text."""
SKIPPED_FOLDERS = frozenset({"idlelib", "lib2to3", "site-packages", "test", "testing", "tests"})

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Docstring:
    """One documented thing, named ``module:qualified.name``."""

    name: str
    text: str


def default_roots() -> tuple[Path, ...]:
    """The standard library and the installed packages."""
    paths = sysconfig.get_paths()
    return Path(paths["stdlib"]), Path(paths["purelib"])


def read_docstrings(roots: Iterable[Path]) -> Iterator[Docstring]:
    """Every docstring of at least 60 characters below the roots, each text and each name once."""
    texts: set[str] = set()
    names: dict[str, int] = {}
    for found in _read_all(roots):
        if len(found.text) < MIN_CHARACTERS or found.text in texts:
            continue
        texts.add(found.text)
        # Overloads and conditional definitions share a name; a request's id must be its own.
        names[found.name] = count = names.get(found.name, 0) + 1
        yield found if count == 1 else Docstring(f"{found.name}#{count}", found.text)


def write_requests(
    path: Path, count: int, *, roots: Iterable[Path] | None = None, model: str = DEFAULT_MODEL
) -> int:
    """Write up to ``count`` chat requests in the Batch API's input format and return how many there were."""
    written = 0
    with resolve_plain(str(path)).open_write() as file:
        for docstring in islice(read_docstrings(roots or default_roots()), count):
            line = json.dumps(_request(docstring, model), ensure_ascii=False)
            file.write(line.encode() + b"\n")
            written += 1
    return written


def _request(docstring: Docstring, model: str) -> dict[str, object]:
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": docstring.text}]
    body = {
        "model": model,
        "messages": messages,
        # Reasoning would be written, and paid for, within the same limit.
        "reasoning_effort": "none",
        "max_completion_tokens": MAX_ANSWER_TOKENS,
    }
    return {"custom_id": docstring.name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def _read_all(roots: Iterable[Path]) -> Iterator[Docstring]:
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if not SKIPPED_FOLDERS.intersection(parts):
                module = ".".join(part for part in parts if part != "__init__")
                yield from _read_file(path, module)


def _read_file(path: Path, module: str) -> Iterator[Docstring]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):  # templates, old syntax, odd encodings
        return
    yield from _read_node(tree, module, "")


def _read_node(node: _Documented, module: str, name: str) -> Iterator[Docstring]:
    text = ast.get_docstring(node)
    # A lone surrogate, written as an escape, has no UTF-8.
    if text and not any("\ud800" <= character <= "\udfff" for character in text):
        yield Docstring(f"{module}:{name}" if name else module, text)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _read_node(child, module, f"{name}.{child.name}".lstrip("."))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if not target.exists():  # it appears whole or not at all
        write_requests(target, int(sys.argv[2]))
