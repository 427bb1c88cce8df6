"""All benchmarks, one after another: ``make bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    failed = 0
    for script in sorted(Path(__file__).parent.glob("bench_*.py")):
        failed |= subprocess.run([sys.executable, "-m", f"bench.{script.stem}"], check=False).returncode
    sys.exit(failed)
