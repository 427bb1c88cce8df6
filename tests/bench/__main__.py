"""All benchmarks, one after another: ``make bench``; or those that are named: ``python -m bench lanes drain``.

What takes too long for all is run where it is named: ``python -m bench million --requests 100000``. Whatever begins
with a dash, and what comes after it, is told to each of them.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import takewhile
from pathlib import Path

from demo.processes import exit_on_signals

HERE = Path(__file__).parent
NAMED_ONLY = {"million": "bench.million"}
PATIENCE_S = 60.0
"""With a benchmark that has been told to end, and ends what it started."""


def run(module: str, options: list[str]) -> int:
    process = subprocess.Popen([sys.executable, "-m", module, *options])
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait(PATIENCE_S)
        raise


if __name__ == "__main__":
    names = list(takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    options = sys.argv[1 + len(names) :]
    usual = {path.stem.removeprefix("bench_"): f"bench.{path.stem}" for path in HERE.glob("bench_*.py")}
    known = usual | NAMED_ONLY
    if unknown := set(names) - known.keys():
        sys.exit(f"No such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}.")
    failed = 0
    with exit_on_signals():
        for name in names or sorted(usual):
            failed |= run(known[name], options)
    sys.exit(failed)
