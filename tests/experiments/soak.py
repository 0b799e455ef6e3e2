"""Half an hour of a sensor: is a frame lost, does memory grow, how old is a line when it comes?

python tests/experiments/soak.py BUNDLE [--minutes 30] [--rate-hz 25] [--size 256x256]

Sends 14-bit frames with a target that moves to `irstd-edge predict BUNDLE -` at the sensor's rate
and reads its lines. Prints a table of the process's memory, and exits 1 where a line is missing or
out of order, or where memory, looked at every half minute, grew by a tenth after the first minute.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np


def send(pipe, frames: int, rate_hz: float, shape: tuple[int, int], sent: list[float]) -> None:
    """Write every frame at its time, or later where the reader is slow; note when it was due."""
    random = np.random.default_rng(0)
    scenes = random.normal(8000, 12, (16, *shape)).astype("<u2")
    start = time.monotonic()
    for index in range(frames):
        counts = scenes[index % len(scenes)].copy()
        row, col = 8 + index % (shape[0] - 16), 8 + (3 * index) % (shape[1] - 16)
        counts[row : row + 3, col : col + 3] += 400
        due = start + index / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
        sent.append(due)
        pipe.write(counts.tobytes())
        pipe.flush()
    pipe.close()


def memory_mb(process: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> int:
    """Send, read, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate-hz", type=float, default=25)
    parser.add_argument("--size", default="256x256", help="HxW")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    frames = round(60 * options.minutes * options.rate_hz)
    command = ["-m", "irstd_edge.cli", "predict", options.bundle, "-", "--bits", "14"]
    with subprocess.Popen(
        [sys.executable, *command, "--raw", f"{width}x{height}:u16le"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as run:
        sent: list[float] = []
        sender = threading.Thread(
            target=send, args=(run.stdin, frames, options.rate_hz, (height, width), sent)
        )
        sender.start()
        ages, memory, found, lost = [], [], 0, 0
        every = max(1, round(30 * options.rate_hz))
        for index, line in enumerate(run.stdout):
            ages.append(1000 * (time.monotonic() - sent[index]))
            told = json.loads(line)
            lost += told["frame"] != f"stdin#{index}"
            found += bool(told["detections"])
            if index % every == 0:
                memory.append(memory_mb(run.pid))
        sender.join()
    if run.returncode or not ages:
        return 1  # it has said why
    settled = memory[2:] or memory
    print(
        "| frames | lines | lost or out of order | with a detection | age p50, p99, most | memory |"
    )
    print("|---|---|---|---|---|---|")
    age = ", ".join(f"{value:.1f}" for value in (*np.percentile(ages, (50, 99)), max(ages)))
    print(
        f"| {frames} | {len(ages)} | {lost} | {found} | {age} ms | "
        f"{min(settled):.0f} to {max(settled):.0f} MB, last {memory[-1]:.0f} |"
    )
    return int(len(ages) != frames or lost > 0 or max(settled) > 1.1 * settled[0])


if __name__ == "__main__":
    sys.exit(main())
