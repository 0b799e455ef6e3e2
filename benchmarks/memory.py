"""Memory and load time of one variant, where nothing else lives: in a process of its own.

python -m irstd_edge.benchmarks.memory BUNDLE VARIANT RUNTIME THREADS HEIGHT WIDTH
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from irstd_edge.edge.cuda import Cuda
from irstd_edge.edge.runners import open_runner
from irstd_edge.edge.tensorrt_runtime import TENSORRT_RUNTIMES
from irstd_edge.edge.types import Frame

CALLS = 3
"""Some runtimes allocate at the second call what they plan at the first."""
LIMIT_S = 120.0


@dataclass(frozen=True)
class Loaded:
    """What a variant takes before it is fast."""

    memory_mb: float
    """Peak resident memory in 10^6 bytes; the interpreter and the libraries are in it, as they are
    on the device."""
    load_ms: float
    """From the bundle to the first frame's detections: files verified, graph or engine loaded."""
    gpu_memory_mb: float | None
    """What the engine and its buffers took of the GPU, CUDA's own context left out; None where it
    runs on the CPU."""


def measure_load(
    bundle: Path, variant: str, runtime: str, threads: int | None, size: tuple[int, int]
) -> Loaded | None:
    """A fresh Python opens a variant and detects.

    None where it could not be measured: not Linux, or that process failed.
    """
    arguments = [str(bundle.absolute()), variant, runtime, str(threads or 0), *map(str, size)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
            # A json.py or numpy.py in the folder where the user stands is none of ours; Python
            # 3.10 knows no such variable, and looks in the folder where it starts.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            cwd="/" if sys.version_info < (3, 11) else None,
        )
        return Loaded(**json.loads(done.stdout))
    except (OSError, TypeError, ValueError, subprocess.SubprocessError):
        return None


def _load_and_report(arguments: list[str]) -> Loaded:
    bundle, variant, runtime, threads, height, width = arguments
    frame = Frame("black", np.zeros((int(height), int(width)), np.uint8), 8)
    cuda = Cuda() if runtime in TENSORRT_RUNTIMES else None
    before = cuda.free_bytes() if cuda else 0
    start = time.perf_counter()
    with open_runner(Path(bundle), variant, runtime, threads=int(threads) or None) as runner:
        runner.detect(frame)
        load_ms = 1000 * (time.perf_counter() - start)
        for _ in range(CALLS - 1):
            runner.detect(frame)
        taken = (before - cuda.free_bytes()) / 1e6 if cuda else None
        return Loaded(_peak_of_this_process_mb(), load_ms, taken)


def _peak_of_this_process_mb() -> float:
    """VmHWM; getrusage would report the parent's size at the fork when that was larger."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise OSError("/proc/self/status has no VmHWM")
    return int(found[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(asdict(_load_and_report(sys.argv[1:]))))
