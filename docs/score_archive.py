"""Score an archive of frames with many workers; one that dies is started again and loses nothing.

    find archive -name '*.png' | sort > frames.txt
    torchrun --nproc-per-node 2 --max-restarts 3 score_archive.py bundle frames.txt results

Every worker takes each WORLD_SIZE-th chunk of the list and writes its lines as one file that is
whole or absent. What is there is not done again, so a job that was stopped, or a group that
torchrun started anew, goes on. The lines are those of `irstd-edge predict`, with the path of each
frame's file; one that cannot be read is skipped with its reason, for one bad file of ten million
must not end the job.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from irstd_edge.edge.bundle import Bundle, open_bundle
from irstd_edge.edge.dataset import bit_depths_of
from irstd_edge.edge.files import sha256_of, write_atomic
from irstd_edge.edge.runners import Runner, open_runner
from irstd_edge.edge.sequences import frames_of
from irstd_edge.edge.types import BIT_DEPTHS, IrstdError


def chunks(listing: Path, size: int, rank: int, world_size: int) -> Iterator[tuple[int, list[str]]]:
    """Number and paths of each chunk of this worker; the list itself is never held whole."""
    with open(listing, encoding="utf-8", errors="surrogateescape") as file:  # names are bytes
        number = 0
        while lines := [line.rstrip("\n") for line in islice(file, size)]:
            if number % world_size == rank:
                yield number, lines
            number += 1


def lines_of(path: str, run: Runner, bits: int | None = None) -> Iterator[dict[str, Any]]:
    """What `predict` says of each frame of a file, and its path.

    bits: of the sensor; None for those of dataset.json beside images/, else of the file.
    """
    file = Path(path)
    try:
        for frame in frames_of(file, bits or bit_depths_of([file])[file]):
            found = [asdict(detection) for detection in run.detect(frame)]
            yield {"path": path, "frame": frame.name, "detections": found}
    except IrstdError as error:
        yield {"path": path, "frame": file.stem, "skipped": str(error)}


def refuse_other_job(out: Path, bundle: Bundle, listing: Path, **options: Any) -> None:
    """Keep results of another bundle, list or choice of options apart from ours."""
    job = json.dumps({"bundle": bundle.sha256, "list": sha256_of(listing), **options})
    kept = out / "job.json"
    if kept.exists() and kept.read_text() != job:
        raise IrstdError(f"{out}: holds another job's results: choose another folder")
    # In this order: another worker writes job.json first. What begins with a dot is being written.
    if any(out.glob("[!.]*")) and not kept.exists():
        raise IrstdError(f"{out}: holds something else: choose a new folder, or an empty one")
    write_atomic(kept, job)


def main() -> None:
    """Score this worker's chunks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("listing", type=Path, metavar="FRAMES.txt")
    parser.add_argument("out", type=Path)
    parser.add_argument("--chunk", type=int, default=1000)
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--bits", type=int, choices=BIT_DEPTHS, help="of the sensor")
    options = parser.parse_args()
    if options.chunk < 1:
        parser.error(f"--chunk: {options.chunk} is no number of frames; give 1 or more")
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    bundle = open_bundle(options.bundle)
    refuse_other_job(
        options.out,
        bundle,
        options.listing,
        chunk=options.chunk,
        variant=options.variant,
        runtime=options.runtime,
        bits=options.bits,
    )
    with open_runner(bundle, options.variant, options.runtime, threads=1) as run:
        for number, paths in chunks(options.listing, options.chunk, rank, world_size):
            part = options.out / f"part-{number:07d}.jsonl"
            if not part.exists():
                lines = (line for path in paths for line in lines_of(path, run, options.bits))
                write_atomic(part, "".join(f"{json.dumps(line)}\n" for line in lines))


if __name__ == "__main__":
    try:
        main()
    except IrstdError as error:
        print(f"score_archive: {error}", file=sys.stderr)
        sys.exit(2)
