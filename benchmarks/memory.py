"""Peak memory of one variant, measured where nothing else lives: in a process of its own.

python -m irstd_edge.benchmarks.memory BUNDLE VARIANT RUNTIME THREADS HEIGHT WIDTH
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from irstd_edge.edge.runners import open_runner
from irstd_edge.edge.types import Frame

CALLS = 3
"""Some runtimes allocate at the second call what they plan at the first."""
LIMIT_S = 120.0


def peak_memory_mb(
    bundle: Path, variant: str, runtime: str, threads: int | None, size: tuple[int, int]
) -> float | None:
    """Peak resident memory of a fresh Python that opens a variant and detects, in 10^6 bytes.

    The interpreter and the libraries are in it, as they are on the device. None where it could
    not be measured: not Linux, or that process failed.
    """
    arguments = [str(bundle), variant, runtime, str(threads or 0), *map(str, size)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
            # A json.py or numpy.py in the folder where the user stands is none of ours.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        return float(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _detect_and_report(arguments: list[str]) -> str:
    bundle, variant, runtime, threads, height, width = arguments
    frame = Frame("black", np.zeros((int(height), int(width)), np.uint8), 8)
    with open_runner(Path(bundle), variant, runtime, threads=int(threads) or None) as runner:
        for _ in range(CALLS):
            runner.detect(frame)
        return str(_peak_of_this_process_mb())


def _peak_of_this_process_mb() -> float:
    """VmHWM; getrusage would report the parent's size at the fork when that was larger."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise OSError("/proc/self/status has no VmHWM")
    return int(found[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(_detect_and_report(sys.argv[1:]))
