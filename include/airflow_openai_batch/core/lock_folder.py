"""Where the locks lie that processes of one user share on a machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def find_lock_folder() -> Path:
    """A folder of the user's own, since files of another one cannot be opened in a shared folder."""
    folder = Path(tempfile.gettempdir()) / f"airflow-openai-batch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
