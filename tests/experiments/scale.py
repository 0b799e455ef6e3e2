"""Frames a second and peak memory against frame size, batch, threads and processes: in Markdown.

python tests/experiments/scale.py BUNDLE [--variant int8] [--runtime openvino] [--seconds 5]

Every row is measured in processes of its own, all of which run for the same seconds.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from irstd_edge.benchmarks.memory import _peak_of_this_process_mb as peak_mb
from irstd_edge.edge.runners import open_runner

CASES = [
    *(((height, width), 1, 1, 1) for height, width in ((128, 128), (256, 256), (512, 640))),
    ((1024, 1280), 1, 1, 1),
    *(((256, 256), batch, 1, 1) for batch in (4, 16)),
    ((256, 256), 1, 2, 1),
    ((256, 256), 1, 1, 2),
    ((256, 256), 4, 2, 1),
    ((512, 640), 1, 2, 1),
    ((512, 640), 1, 1, 2),
]
"""(height, width), batch, threads, processes."""


def work(bundle: Path, variant: str, runtime: str, case: list[str]) -> None:
    """Infer for some seconds from a moment on that all processes know; print frames and memory."""
    height, width, batch, threads = map(int, case[:4])
    start, seconds = map(float, case[4:])
    random = np.random.default_rng(0)
    frames = random.random((batch, 1, height, width), np.float32)
    with open_runner(bundle, variant, runtime, threads=threads) as run:
        run.infer(frames)
        time.sleep(max(0.0, start - time.time()))
        done, began = 0, time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            run.infer(frames)
            done += batch
    print(done / (now - began), peak_mb())


def measured(arguments: list[str], case: tuple, seconds: float) -> tuple[float, float]:
    """Frames a second and peak memory in 10^6 bytes of all processes together."""
    (height, width), batch, threads, processes = case
    start = time.time() + 6.0
    own = [*map(str, (height, width, batch, threads, start, seconds))]
    command = [sys.executable, __file__, *arguments, "--case", *own]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    found = [tuple(map(float, process.communicate()[0].split())) for process in running]
    return sum(fps for fps, _ in found), sum(mb for _, mb in found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--case", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        work(options.bundle, options.variant, options.runtime, options.case)
        return
    arguments = [str(options.bundle), "--variant", options.variant, "--runtime", options.runtime]
    headings = "frame | batch | threads | processes | frames/s | Mpx/s | peak memory"
    print(f"| {headings} |\n|{'---|' * 7}", flush=True)
    for case in CASES:
        (height, width), batch, threads, processes = case
        fps, mb = measured(arguments, case, options.seconds)
        pixels = f"{fps * height * width / 1e6:.2f}"
        cells = (f"{height}x{width}", batch, threads, processes, f"{fps:.1f}", pixels)
        print(f"| {' | '.join(map(str, cells))} | {mb:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
