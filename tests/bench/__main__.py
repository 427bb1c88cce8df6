"""All benchmarks, one after another: ``make bench``; or those that are named: ``python -m bench lanes drain``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    failed = 0
    known = {script.stem.removeprefix("bench_") for script in Path(__file__).parent.glob("bench_*.py")}
    if unknown := set(sys.argv[1:]) - known:
        sys.exit(f"No such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}.")
    for name in sys.argv[1:] or sorted(known):
        failed |= subprocess.run([sys.executable, "-m", f"bench.bench_{name}"], check=False).returncode
    sys.exit(failed)
