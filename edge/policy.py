"""What is refused of files that others made: sizes, names, memory. The limits stand here alone.

Every reader asks before it gives memory or time to what a file declares; docs/hostile.md has the
list, and says how it is tested.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from irstd_edge.edge.errors import IrstdError

MAX_SIDE_PX = 8192
"""Of a frame."""
MAX_TEXT_BYTES = 32 * 2**20
"""Of JSON and lists: parsed, they take some thirty times as much."""
MAX_BENCH_BYTES = 256 * 2**20
"""Of bench.json, which lists every target; parsed, it takes some five times as much."""
MAX_TOML_BYTES = 2**18
"""Parsing TOML takes time that grows faster than the file."""
MAX_PICTURE_BYTES = 2**30
"""Of a PNG, TIFF, BMP or JPEG, which is read as a whole; stacks and videos may be of any size."""
MAX_GRAPH_BYTES = 2 * 2**30
"""ONNX is protobuf, which ends at 2 GiB."""
MAX_WEIGHTS_BYTES = 2 * 2**30
MAX_UNPICKLING_S = 60.0
MAX_KEY_BYTES = 2**16
MAX_TIFF_ENTRIES = 2**21
"""Of all pages together: a page has some fifteen."""
MAX_PIXEL_BITS = 64
"""Four channels of 16 bits."""
MAX_PACK_PX = 2**22
"""Of a TIFF's pages that are decoded at once."""
MAX_JPEG_SCANS = 64
"""A decoder goes over the whole frame for each; encoders write about ten."""
MAX_ARRAY_HEADER_BYTES = 10_000
"""Of an NPY; numpy's own limit, which it looks at after it has read the header."""
MAX_GRAPH_NODES = 100_000
MAX_NAME_LENGTH = 200

UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
"""Control characters, what turns the direction of text or is not seen, halves of characters."""


def is_printable(text: str) -> bool:
    """Whether text may reach a terminal, a page or a log as it is."""
    return UNPRINTABLE.search(text) is None


def printable(text: str) -> str:
    """Text with everything escaped that a terminal or a page would act on."""
    return UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


def refuse_name(path: Path) -> None:
    """Raise IrstdError for a file whose name cannot be printed."""
    if not is_printable(path.name):
        raise IrstdError(f"{path}: its name holds characters that cannot be printed: rename it")


def refuse_special(path: Path, status: os.stat_result, max_bytes: int | None) -> None:
    """Raise IrstdError for what is no plain file, which may never end, or holds too much."""
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a device or the like"
        raise IrstdError(f"{path}: is {kind}, not a file: give a plain file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise IrstdError(
            f"{path}: holds {status.st_size} bytes, more than the {max_bytes} that are read of "
            "such a file: is it the right one?"
        )


def limit_memory() -> None:
    """Let this process take no more than the machine has: a bomb becomes an error of its own.

    Without it, Linux promises memory that it does not have, and then kills a process to keep its
    word, which may be another one.
    """
    try:
        import resource

        most = _memory_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        ends = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(ends), hard))
    except (ImportError, OSError, ValueError):
        return  # not Linux, or it does not say


def _memory_bytes() -> int:
    """Memory and swap of the machine, or of the container if that is less."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {cells[0]: int(cells[1]) for cells in lines}
    most = 1024 * (kilobytes["MemTotal:"] + kilobytes.get("SwapTotal:", 0))
    container = Path("/sys/fs/cgroup/memory.max")
    text = container.read_text().strip() if container.is_file() else "max"
    return min(most, int(text)) if text.isdecimal() else most
