"""The certificates by which servers are known, read once a process.

To read them takes 25 ms, which was a seventh of what a short task computes: a process that forks one for each task
hands them down (`warm`).
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING

import openai

if TYPE_CHECKING:
    import ssl


def read_certificates() -> ssl.SSLContext:
    """As the client's HTTP library reads them by itself."""
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _read(*_: str | None) -> ssl.SSLContext:
    """Once for each place that the environment names."""
    bases = (base.__module__.partition(".")[0] for base in openai.DefaultHttpxClient.__mro__)
    library = next(base for base in bases if base.startswith("httpx"))  # httpx2 from openai 3 on
    context: ssl.SSLContext = importlib.import_module(library).create_ssl_context()
    return context
