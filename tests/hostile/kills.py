"""kill -9 at random moments of the commands that write: the old or the new result, never half.

python kills.py [--kills 200] [--seed 0] [--only JOB]... [--bundle BUNDLE]

Every other kill comes at any moment of the run, the others shortly after one of its operations on
files, chosen at random: a run computes for seconds, and writes for milliseconds.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jobs

from irstd_edge.benchmarks.scenes import write_dataset
from irstd_edge.edge.types import IrstdError

EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
"""Of Python's audit hooks."""
AFTER_S = 0.004
"""Longest time from an operation to the kill."""


def started(work: Callable[[Path], None], out: Path) -> tuple[int, int]:
    """Process id of a child that works, and a pipe with a byte for each operation on `out`."""
    ends, told = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        return pid, ends

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and str(out) in str(arguments[0]):
            os.write(told, b".")

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sys.addaudithook(hook)
    try:
        work(out)
        os._exit(0)
    except IrstdError:
        os._exit(2)
    except BaseException:
        (out.parent / "traceback").write_text(traceback.format_exc())
        os._exit(70)


def finished(pid: int, ends: int) -> tuple[int, int]:
    """Exit status of a child, and how many operations it told of."""
    count = 0
    while data := os.read(ends, 4096):
        count += len(data)
    os.close(ends)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), count


def whole_run(job: jobs.Job, folder: Path) -> tuple[Path, float, int]:
    """The old result, and seconds and operations of a run over it that nothing disturbs."""
    old, out = folder / "old", folder / "out"
    old.mkdir()
    assert finished(*started(job.old, old))[0] == 0, (folder / "traceback").read_text()
    shutil.copytree(old, out)
    start = time.monotonic()
    status, operations = finished(*started(job.work, out))
    assert status == 0, (folder / "traceback").read_text()
    assert job.state(out) in ("new", "old or new")
    return old, time.monotonic() - start, operations


def kill_once(job: jobs.Job, old: Path, took_s: float, operations: int, rng: random.Random) -> str:
    """The state that a kill left."""
    out = old.with_name("out")
    shutil.rmtree(out)
    shutil.copytree(old, out)
    pid, ends = started(job.work, out)
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, took_s))
    else:
        for _ in range(rng.randint(1, operations)):
            if not os.read(ends, 1):
                break
        time.sleep(rng.uniform(0, AFTER_S))
    os.kill(pid, signal.SIGKILL)
    finished(pid, ends)
    return job.state(out)


def every_job(folder: Path, made: Path | None) -> dict[str, jobs.Job]:
    """On scenes and a small bundle that are made here; `made` is one of `quantize`."""
    scenes, bundle = folder / "scenes", folder / "bundle"
    write_dataset(scenes, frames=jobs.FRAMES, size=(64, 64), seed=3)
    jobs.write_small_bundle(bundle)
    return {
        "train": jobs.train(scenes),
        "quantize": jobs.quantize(made),
        "compile": jobs.compile_engine(bundle),
        "bench": jobs.bench(scenes, bundle),
        "predict": jobs.predict(scenes, bundle),
    }


def main() -> int:
    """Print a line a job; 1 if any kill left half a result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--bundle", type=Path, help="of quantize, to be written in its place")
    options = parser.parse_args()
    start, broken, done = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        every = every_job(Path(name), options.bundle)
        chosen = {job: every[job] for job in options.only or every}
        for number, (job, it) in enumerate(chosen.items()):
            share = range(number, options.kills, len(chosen))
            folder = Path(name, f"{job}-job")
            folder.mkdir()
            old, took_s, operations = whole_run(it, folder)
            states: Counter[str] = Counter()
            for kill in share:
                rng = random.Random(f"{options.seed}:{job}:{kill}")
                try:
                    states[kill_once(it, old, took_s, operations, rng)] += 1
                except (AssertionError, IrstdError, OSError, ValueError) as error:
                    states["HALF"] += 1
                    print(f"{job}:{kill}: {error!r}")
            broken, done = broken + states["HALF"], done + len(share)
            found = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            print(f"{job}: {len(share)} kills of a run of {took_s:.1f} s: {found}", flush=True)
    print(f"{done} kills, {broken} half results, {time.monotonic() - start:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    import torch

    import irstd_edge.calibration.to_bundle  # noqa: F401  what children need is imported once

    torch.set_num_threads(1)
    sys.exit(main())
